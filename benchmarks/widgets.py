"""How long a widget takes to redraw: script, style and layout, against a frame of 16 ms.

    python -m benchmarks.widgets

Every trait that a control moves is moved a hundred times in Chromium, as a kernel or a link would.
The time is what the page's own thread computes, so that a busy machine does not count.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from widget_harness import ARGS, mount, need_chromium  # noqa: E402

FRAME = 16.0  # ms

REDRAWS = 100

MOVE = """async ([key, values, n]) => {
  let frames = 0;
  const watch = new MutationObserver(() => { frames++; });
  watch.observe(__el, { subtree: true, childList: true, attributes: true, characterData: true });
  for (let i = 0; i < n; i++) {
    __model.set(key, values[i % values.length]);
    await __frames(2);
  }
  watch.disconnect();
  return frames;
}"""


def samples() -> dict:
    """The widgets as the chapters show them, and the values to move them through."""
    from bn import data, results, widgets

    digits = data.digits()
    said = np.random.default_rng(0).dirichlet(np.ones(10), len(digits.y_test))
    cases = {
        "Axes": (
            widgets.Axes(N=8, C=8, H=6, W=6),
            {"norm": ["batch", "layer", "group"], "at": [[0, 0, 0, 0], [7, 3, 2, 5]]},
        ),
        "Chain": (
            widgets.Chain(),
            {"depth": [2, 50, 100], "eta": [1e-4, 1e-2], "weight": [0.5, 1.5]},
        ),
        "Batch": (widgets.Batch(), {"gamma": [0.5, 2.0], "beta": [-1.0, 1.0], "eps": [1e-5, 1.0]}),
        "Conventions": (
            widgets.Conventions(),
            {"momentum": [0.1, 0.99], "m": [2, 64], "step": [0, 120], "to": ["flax", "cudnn"]},
        ),
        "Projection": (
            widgets.Projection(),
            {"turn": [0.0, 45.0, 90.0], "g": [[1, 0, 0], [0, 1, -1]], "x": [[1, 2, 3], [0, 0, 4]]},
        ),
        "Roofline": (
            widgets.Roofline(),
            {"values": [1e4, 1e8], "peak": [10.0, 1e4], "way": ["in place", "in blocks"]},
        ),
        "Running": (
            widgets.Running(batch_size=128),
            {"momentum": [0.01, 0.5], "seed": [2, 3], "step": [1, 150]},
        ),
        "Scale": (
            widgets.Scale(),
            {"scale": [1e-3, 0.1, 1.0, 100.0], "eta": [0.01, 0.1], "matched": [True, False]},
        ),
        "Predictions": (
            widgets.Predictions(digits.x_test, digits.y_test, {"a net": said}),
            {"truth": [-1, 3, 5], "outcome": ["wrong", "right", "all"]},
        ),
    }
    if "mnist_mlp" in results.names():
        replay = widgets.Replay(results.load("mnist_mlp"))
        cases["Replay"] = (
            replay,
            {"epoch": list(range(1, 11)), "metric": ["test_loss", "test_accuracy"]},
        )
    return cases


def spent(cdp) -> float:
    """Milliseconds the page's thread has computed: script, style, layout; waiting not counted."""
    metrics = {m["name"]: m["value"] for m in cdp.send("Performance.getMetrics")["metrics"]}
    return 1000 * sum(metrics[f"{k}Duration"] for k in ("Script", "RecalcStyle", "Layout"))


def measure() -> list[dict]:
    """Return one row a widget and trait: the milliseconds that a redraw takes."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=need_chromium(), args=ARGS)
        for name, (widget, moves) in samples().items():
            for trait, values in moves.items():
                page = browser.new_page(viewport={"width": 700, "height": 1400})
                mount(page, widget)
                cdp = page.context.new_cdp_session(page)
                cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.evaluate(MOVE, [trait, values, 10])  # warm
                before = spent(cdp)
                frames = page.evaluate(MOVE, [trait, values, REDRAWS])
                took = (spent(cdp) - before) / REDRAWS
                page.close()
                assert frames >= REDRAWS / 2, f"{name}.{trait} draws nothing"
                rows.append(
                    {"widget": name, "trait": trait, "ms": took, "of_a_frame": took / FRAME}
                )
        browser.close()
    return rows


def main() -> None:
    """Print the table."""
    print(f"{'widget':<14}{'trait':<12}{'a redraw':>12}{'of a frame':>12}")
    for row in measure():
        print(
            f"{row['widget']:<14}{row['trait']:<12}{row['ms']:>9.2f} ms{row['of_a_frame']:>12.2f}"
        )


if __name__ == "__main__":
    main()
