"""Run the benchmarks: all of them, or those named.

python -m benchmarks [layers] [step_time] [widgets] …
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import benchmarks

NAMES = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name != "__main__"]


def main(names: list[str]) -> int:
    """Run each benchmark in a process of its own; return how many failed."""
    if unknown := set(names) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
        return 2
    failed = 0
    for name in names or NAMES:
        print(f"\n{name}\n{'=' * len(name)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
