"""What one core of this machine can do: bytes to and from memory, operations, from which cache.

python -m benchmarks.bandwidth
"""

from __future__ import annotations

import time

import numpy as np

SIZES = [1 << k for k in range(14, 28)]  # bytes of one array: 16 kB to 128 MB


def measure() -> dict:
    """Return GB/s of reading, copying and scaling arrays of every size, and GFLOP/s at most."""
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1):
        sizes = [{"bytes": size, **_bandwidth(size)} for size in SIZES]
        a = np.ones((1024, 1024), np.float32)
        flops = 2 * 1024**3 / _best(lambda: a @ a)
    return {"gflops": _round(flops / 1e9), "sizes": sizes}


def _bandwidth(size: int) -> dict:
    x = np.ones(size // 4, np.float32)
    y = np.ones_like(x)
    half = np.float32(1)
    return {
        "read": _round(size / _best(lambda: np.dot(x, x)) / 1e9),
        "copy": _round(2 * size / _best(lambda: np.copyto(y, x)) / 1e9),
        "scale": _round(2 * size / _best(lambda: np.multiply(x, half, out=y)) / 1e9),
    }


def _best(function, seconds: float = 0.2) -> float:
    """The shortest time of many: what the machine can do when nothing is in the way."""
    function()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    """Print the table."""
    found = measure()
    print(f"{'an array of':>14}{'read':>12}{'copy':>12}{'scale':>12}")
    for row in found["sizes"]:
        print(f"{row['bytes'] / 1024:>11,.0f} kB"
              + "".join(f"{row[key]:>7.1f} GB/s" for key in ("read", "copy", "scale")))  # fmt: skip
    print(f"matrix product: {found['gflops']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
