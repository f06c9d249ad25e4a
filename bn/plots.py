"""Figures of one family: the palette, the style, and the plots that several chapters draw.

Needs matplotlib (``pip install "bn[book]"``).
"""

from __future__ import annotations

from importlib.resources import as_file, files

import matplotlib.pyplot as plt

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
