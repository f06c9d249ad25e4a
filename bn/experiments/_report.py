"""What records say, for every experiment alike: tables, comparisons, a figure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bn import results

MANY = 10  # arms that a legend can still tell apart
STYLES = ("-", "--", ":", "-.")
MARKERS = "oDs^vP*Xdh"


def label(params: dict) -> str:
    """Name a unit's parameters in one line.

    Examples
    --------
    >>> label({"batch_norm": True, "lr": 0.1})
    'batch_norm=True, lr=0.1'
    """
    return ", ".join(f"{key}={value}" for key, value in params.items()) or "all"


def arms(record: dict) -> list[dict]:
    """Return the parameters of the units, each once."""
    found = {label(unit["params"]): unit["params"] for unit in record["units"]}
    return list(found.values())


def metrics(record: dict) -> tuple[list[str], list[str]]:
    """Return the names of what an experiment measures: the numbers, and the rest.

    Examples
    --------
    >>> import bn
    >>> metrics(bn.results.load("digits_mlp"))
    (['train_loss', 'train_accuracy', 'test_loss', 'test_accuracy'], ['preactivations'])
    """
    rows = [row for unit in record["units"] for row in unit["epochs"]]
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name != "epoch"]
    scalars = [name for name in names if all(_is_number(row.get(name)) for row in rows)]
    return scalars, [name for name in names if name not in scalars]


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def values(record: dict, metric: str, arm: dict) -> np.ndarray:
    """Return a metric of exactly this arm, of shape (seeds, epochs)."""
    return np.array([[row[metric] for row in unit["epochs"]]
                     for unit in record["units"] if unit["params"] == arm], float)  # fmt: skip


def table(record: dict, width: int = 100) -> Iterator[str]:
    """Yield the lines of a table: mean ± standard deviation over seeds after the last epoch."""
    names, others = metrics(record)
    rows = arms(record)
    first = max((len(label(arm)) for arm in rows), default=0)
    cells = {name: [_cell(values(record, name, arm)[:, -1]) for arm in rows] for name in names}
    widths = {name: max(map(len, [name, *cells[name]])) + 2 for name in names}
    while names:
        block = [names.pop(0)]
        while names and first + sum(widths[n] for n in [*block, names[0]]) <= width:
            block.append(names.pop(0))
        yield " " * first + "".join(f"{n.replace('_', ' '):>{widths[n]}}" for n in block)
        for i, arm in enumerate(rows):
            yield f"{label(arm):<{first}}" + "".join(f"{cells[n][i]:>{widths[n]}}" for n in block)
        yield ""
    if others:
        yield f"Recorded too, but not as one number: {', '.join(others)}"


def _cell(seeds: np.ndarray) -> str:
    if bad := np.count_nonzero(~np.isfinite(seeds)):
        return f"{bad} of {len(seeds)} not finite"
    spread = f"{seeds.std(ddof=1):#.2g}" if len(seeds) > 1 else "?"
    return f"{seeds.mean():#.4g} ± {spread}"


def compare(a: dict, b: dict) -> tuple[list[str], list[str], bool]:
    """Compare two records.

    Parameters
    ----------
    a, b : dict
        From :func:`bn.results.load`.

    Returns
    -------
    circumstances : list of str
        What was not the same: experiment, configuration, data, code, versions, machine, seeds,
        parameters.
    differences : list of str
        For each metric and parameters that differ after the last epoch, the mean of b − a over
        the seeds that both have, with its 95 % interval.
    identical : bool
        Whether all units are the same to the last bit.
    """
    circumstances = [
        f"{key}: {a[key]} and {b[key]}"
        for key in ("experiment", "config", "data", "code", "versions", "hardware", "seeds")
        if a[key] != b[key]
    ]
    seeds = sorted(set(a["seeds"]) & set(b["seeds"]))
    common = [arm for arm in arms(a) if arm in arms(b)]
    only = [f"{label(arm)} only in the {which}" for which, one in (("first", a), ("second", b))
            for arm in arms(one) if arm not in common]  # fmt: skip
    # One record in which the side is a parameter, so that pairs are pairs as everywhere.
    both = {"experiment": a["experiment"], "seeds": seeds, "units": [
        {**unit, "params": {"arm": label(unit["params"]), "side": side}}
        for side, one in (("a", a), ("b", b)) for unit in one["units"] if unit["seed"] in seeds
    ]}  # fmt: skip
    differences = []
    for name in [n for n in metrics(a)[0] if n in metrics(b)[0] and seeds]:
        for arm in common:
            first, second = ({"arm": label(arm), "side": side} for side in "ab")
            gap = results.paired(both, name, a=second, b=first)
            if not (gap.differences == 0).all():
                interval = "" if len(seeds) < 2 else f"  [{gap.low:+.3g}, {gap.high:+.3g}]"
                differences.append(f"{name}, {label(arm)}: {gap.mean:+.3g}{interval}")
    return circumstances + only, differences, _units(a) == _units(b)


def _units(record: dict) -> list:
    keys = ("params", "seed", "epochs")
    return [results.finite({key: unit[key] for key in keys}) for unit in record["units"]]


def figure(record: dict):
    """Draw each scalar metric by arm: over the epochs, or, with one epoch or many arms, its end.

    Over the epochs a line is the mean over seeds and a band reaches from the smallest to the
    largest; at the end each dot is a seed, and the stroke their mean.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    from bn import plots

    plots.use_style()
    names, _ = metrics(record)
    if not names:
        raise results.RecordError(f"{record['experiment']} measures no single numbers to draw")
    rows = arms(record)
    colors = [plots.COLORS[c] for c in ("with", "without", "third", "accent", "warn", "muted")]
    over_epochs = record["config"]["epochs"] > 1 and len(rows) <= MANY
    columns = min(len(names), 2)
    lines = -(-len(names) // columns)
    height = 3 if over_epochs else 1 + 0.28 * len(rows)
    fig = Figure(figsize=(5.5 * columns, height * lines + 0.6), layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False, sharey=not over_epochs).ravel()
    for ax, name in zip(axes, names, strict=False):
        for i, arm in enumerate(rows):
            color = colors[i % len(colors)]
            curves = values(record, name, arm)
            if over_epochs:
                epochs = range(1, curves.shape[1] + 1)
                ax.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.2)
                ax.plot(epochs, curves.mean(0), STYLES[i % len(STYLES)], color=color, markersize=3,
                        marker=MARKERS[i], label=label(arm))  # fmt: skip
            else:
                color = plots.COLORS["without" if arm.get("batch_norm") is False else "with"]
                ax.plot(curves[:, -1], [i] * len(curves), "o", mfc="none", color=color)
                ax.plot(curves[:, -1].mean(), i, "|", color=color, markersize=14)
        what = name.replace("_", " ")
        ax.set(**({"xlabel": "epoch", "ylabel": what} if over_epochs else {"xlabel": what}))
        if not over_epochs:
            ax.set_yticks(range(len(rows)), [label(arm) for arm in rows])
            ax.set_ylim(len(rows) - 0.5, -0.5)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    if over_epochs:
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=2)
    seeds = len(record["seeds"])
    end = "" if over_epochs else " after the last epoch"
    fig.suptitle(f"{record['experiment']}{end}, {seeds} seed{'s' * (seeds > 1)}")
    return fig
