"""Figures of one family: the palette, the style, and the plots that several chapters draw.

Needs matplotlib (``pip install "bn[book]"``).
"""

from __future__ import annotations

from importlib.resources import as_file, files

import matplotlib.pyplot as plt
import numpy as np

#: The palette, after Okabe and Ito (2008): apart for every common kind of colour vision.
#: A plot never tells two things apart by colour alone.
COLORS = {
    "with": "#0072B2",
    "without": "#D55E00",
    "third": "#009E73",
    "accent": "#9B5FA5",
    "warn": "#E69F00",
    "muted": "#8A9099",
    "ink": "#1f2328",
    "paper": "#ffffff",
    "grid": "#d8dce1",
}


def use_style() -> None:
    """Apply the book's matplotlib style; in a notebook, draw figures as reproducible SVG.

    Examples
    --------
    >>> import matplotlib
    >>> use_style()
    >>> matplotlib.rcParams["axes.spines.top"]
    False
    """
    with as_file(files("bn") / "bn.mplstyle") as path:
        plt.style.use(path)
    try:
        shell = get_ipython()
    except NameError:  # not in IPython
        return
    if not hasattr(shell, "kernel"):  # IPython in a terminal draws in windows
        return
    import matplotlib_inline.backend_inline as inline

    shell.run_line_magic("matplotlib", "inline")
    inline.set_matplotlib_formats("svg", metadata={"Date": None, "Creator": None})


#: How the two arms of every comparison are drawn.
ARMS = {
    True: {"color": COLORS["with"], "linestyle": "-", "marker": "o", "label": "with batch norm"},
    False: {"color": COLORS["without"], "linestyle": "--", "marker": "D", "label": "without"},
}


def training_curves(record: dict, metric: str, ax=None, **params):
    """Draw a metric by epoch for both arms of a record: mean over seeds, smallest to largest.

    Parameters
    ----------
    record : dict
        From :func:`bn.results.load`, with units for ``batch_norm`` true and false.
    metric : str
        Such as ``"test_accuracy"``, drawn in per cent, or ``"train_loss"``, on a logarithmic axis.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current axes.
    **params
        Further parameters that choose the units, such as ``lr=0.1``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from bn import results

    ax = plt.gca() if ax is None else ax
    percent = metric.endswith("accuracy")
    for batch_norm, style in ARMS.items():
        values = results.curves(record, metric, batch_norm=batch_norm, **params)
        values = 100 * values if percent else values
        epochs = range(1, values.shape[1] + 1)
        ax.fill_between(epochs, values.min(0), values.max(0), color=style["color"], alpha=0.22)
        ax.plot(epochs, values.mean(0), markersize=3.5, **style)
    where, what = metric.split("_")
    where = {"train": "training"}.get(where, where)
    ax.set(xlabel="epoch", ylabel=f"{where} {what}" + (", %" if percent else ""))
    ax.xaxis.get_major_locator().set_params(integer=True)
    if not percent:
        ax.set_yscale("log")
    return ax


def paired_differences(differences: dict, ax=None):
    """Draw paired differences, a row for each comparison: every seed, the mean, its interval.

    Parameters
    ----------
    differences : dict of str to bn.results.Paired
        Under the name that stands at the row; differences of accuracies, as fractions.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current axes.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = plt.gca() if ax is None else ax
    ax.axvline(0, color=COLORS["ink"], linewidth=1)
    for row, gain in enumerate(differences.values()):
        seeds = 100 * gain.differences
        ax.plot(seeds, [row + 0.17] * len(seeds), "o", mfc="none", color=COLORS["muted"])
        ax.plot([100 * gain.low, 100 * gain.high], [row, row], color=COLORS["with"], linewidth=3)
        ax.plot(100 * gain.mean, row, "s", color=COLORS["with"], markersize=7)
    ax.set_yticks(range(len(differences)), list(differences))
    ax.set(xlabel="with minus without, percentage points", ylim=(len(differences) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


def learning_rates(record: dict, metric: str, ax=None, **params):
    """Draw a final metric by learning rate for both arms: mean over seeds, smallest to largest.

    Parameters
    ----------
    record : dict
        A sweep: units for several ``lr`` and for ``batch_norm`` true and false.
    metric : str
        Such as ``"test_accuracy"``, drawn in per cent.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current axes.
    **params
        Further parameters that choose the units, such as ``network="mlp"``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from bn import results

    ax = plt.gca() if ax is None else ax
    percent = metric.endswith("accuracy")
    rates = sorted({u["params"]["lr"] for u in record["units"]
                    if params.items() <= u["params"].items()})  # fmt: skip
    for batch_norm, style in ARMS.items():
        values = np.array(
            [results.final(record, metric, batch_norm=batch_norm, lr=lr, **params) for lr in rates]
        )
        values = 100 * values if percent else values
        ax.fill_between(rates, values.min(1), values.max(1), color=style["color"], alpha=0.22)
        ax.plot(rates, values.mean(1), **style)
    where, what = metric.split("_")
    ax.set(
        xscale="log", xlabel="learning rate", ylabel=f"{where} {what}" + (", %" if percent else "")
    )
    ax.set_xticks(rates, [f"{lr:g}" for lr in rates])
    ax.minorticks_off()
    return ax


def quantile_bands(record: dict, layer: str, ax=None, seed: int | None = None):
    """Draw quantiles of what goes into a nonlinearity by epoch: .15 to .85 as a band, the median.

    Parameters
    ----------
    record : dict
        From :func:`bn.results.load`, with ``preactivations``.
    layer : str
        The nonlinearity, such as ``"sigmoid3"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current axes.
    seed : int, optional
        Which run; by default the record's first seed.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = plt.gca() if ax is None else ax
    seed = record["seeds"][0] if seed is None else seed
    for unit in record["units"]:
        if unit["seed"] == seed:
            style = ARMS[unit["params"]["batch_norm"]]
            _, low, middle, high, _ = np.transpose(
                [row["preactivations"][layer]["quantiles"] for row in unit["epochs"]]
            )
            epochs = range(1, len(middle) + 1)
            ax.fill_between(epochs, low, high, color=style["color"], alpha=0.22)
            for edge in (low, high):
                ax.plot(epochs, edge, color=style["color"], linestyle=style["linestyle"], lw=0.8)
            ax.plot(epochs, middle, markersize=3.5, **style)
    ax.set(xlabel="epoch", ylabel=f"input of {layer}")
    return ax
