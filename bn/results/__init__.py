"""What was measured: the records of the experiments, and the statistics read off them.

A record is one JSON file. Everything in it down to ``units`` is repeatable bit for bit on the
same machine with the same versions; ``seconds``, ``versions`` and ``hardware`` say where and how
long it ran. ``bn`` ships the records of the full runs; your own are written by ``bn run``.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bn import checkpoint

__all__ = [
    "Paired",
    "RecordError",
    "curves",
    "final",
    "interval",
    "load",
    "names",
    "paired",
    "save",
    "step_time",
]

SCHEMA = 1
FOLDER = Path(__file__).parent
REPEATABLE = ("schema", "experiment", "config", "seeds", "data", "code", "units")
KEYS = (*REPEATABLE, "verified", "seconds", "versions", "hardware")


class RecordError(ValueError):
    """A record cannot be used; the message says why, and what to do."""


def names(folder: str | os.PathLike | None = None) -> list[str]:
    """Return the names of the experiments that have a record.

    Parameters
    ----------
    folder : path, optional
        Where to look; by default among the records that `bn` ships.
    """
    return sorted(
        path.stem
        for path in Path(folder or FOLDER).glob("*.json")
        if '"units":' in path.read_text(encoding="utf-8")
    )


def load(name: str, folder: str | os.PathLike | None = None) -> dict:
    """Load a record.

    Parameters
    ----------
    name : str
        The experiment.
    folder : path, optional
        Where to look; by default among the records that `bn` ships.

    Returns
    -------
    dict
        ``schema``, ``experiment``, ``config``, ``seeds``, ``data`` (name and SHA-256), ``code``
        (SHA-256 of the code that determines the numbers), ``units``, ``verified``, ``seconds``,
        ``versions``, ``hardware``. A unit is one training: its ``params``, ``seed``, ``seconds``
        and ``epochs``, a list with what :func:`bn.train.train` yielded. A loss that was not
        finite is NaN.

    Raises
    ------
    RecordError
        There is no such record, or it is damaged or of another schema.

    Examples
    --------
    >>> import bn
    >>> record = bn.results.load("digits_mlp")
    >>> record["units"][0]["params"], len(record["units"][0]["epochs"])
    ({'batch_norm': True}, 30)
    """
    path = Path(folder or FOLDER) / f"{name}.json"
    if not path.exists():
        known = names(folder)
        close = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise RecordError(
            f"There is no record of {name!r} in {path.parent}.{hint} "
            f"There are: {', '.join(known) or 'none'}. To make one: bn run {name}"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a record ({type(error).__name__}: {error}). "
            "Delete it and run the experiment again."
        ) from error
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        raise RecordError(
            f"{path} has schema {schema!r}; this version of bn reads schema {SCHEMA}. "
            + ("Install a newer bn." if newer else "Run the experiment again.")
        )
    absent = [key for key in KEYS if key not in record]
    if absent:
        raise RecordError(f"{path} is not a whole record: it lacks {', '.join(absent)}.")
    for unit, seconds in zip(record["units"], record["seconds"], strict=True):
        unit["seconds"] = seconds
        unit["epochs"] = _with_nan(unit["epochs"])
    return record


def step_time() -> dict:
    """Return what a training step costs with and without batch norm, as measured for `bn`.

    Returns
    -------
    dict
        ``nets``: for each network ``with_ms`` and ``without_ms``, the median processor time of a
        step in milliseconds, their ``ratio`` (median over rounds that measure both in turns) and
        its ``quartiles``; ``config``, ``versions``, ``hardware``. Measured by
        ``python -m benchmarks.step_time --record``.

    Examples
    --------
    >>> import bn
    >>> sorted(bn.results.step_time()["nets"])
    ['convnet', 'lenet', 'mlp']
    """
    return json.loads((FOLDER / "step_time.json").read_text(encoding="utf-8"))


def save(record: dict, path: str | os.PathLike) -> None:
    """Write a record, atomically, one unit on a line, numbers that are not finite as null."""
    lines = []
    for key in KEYS:
        if key == "units":
            units = (
                {
                    "params": unit["params"],
                    "seed": unit["seed"],
                    "epochs": [finite(row) for row in unit["epochs"]],
                }
                for unit in record["units"]
            )
            value = "[\n  " + ",\n  ".join(_json(unit) for unit in units) + "\n ]"
        else:
            value = _json(record[key])
        lines.append(f' "{key}": {value}')
    checkpoint.write(path, "{\n" + ",\n".join(lines) + "\n}\n")


def finite(value):
    """Replace numbers that JSON cannot hold by None, in dicts and lists too."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value):
    """Undo :func:`finite`, but for the sign of an infinity."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def _json(value) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def curves(record: dict, metric: str, **params) -> np.ndarray:
    """Return a metric over the epochs, for every seed.

    Parameters
    ----------
    record : dict
        From :func:`load`.
    metric : str
        Such as ``"test_accuracy"``.
    **params
        The units wanted, such as ``batch_norm=True``.

    Returns
    -------
    ndarray of float64, shape (seeds, epochs)
        In the order of ``record["seeds"]``.

    Examples
    --------
    >>> import bn
    >>> record = bn.results.load("digits_mlp")
    >>> bn.results.curves(record, "test_loss", batch_norm=True).shape
    (5, 30)
    """
    chosen = {
        unit["seed"]: [row[metric] for row in unit["epochs"]]
        for unit in record["units"]
        if all(unit["params"].get(key) == value for key, value in params.items())
    }
    matches = sum(
        all(unit["params"].get(key) == value for key, value in params.items())
        for unit in record["units"]
    )
    if sorted(chosen) != sorted(record["seeds"]) or matches != len(chosen):
        known = {json.dumps(unit["params"]) for unit in record["units"]}
        raise RecordError(
            f"{params} chooses {matches} units of {record['experiment']}, not one for each of "
            f"the seeds {record['seeds']}. The units are: {', '.join(sorted(known))}"
        )
    return np.array([chosen[seed] for seed in record["seeds"]], dtype=np.float64)


def final(record: dict, metric: str, **params) -> np.ndarray:
    """Return a metric after the last epoch, for every seed; see :func:`curves`."""
    return curves(record, metric, **params)[:, -1]


class Paired(NamedTuple):
    """A paired difference over seeds.

    Attributes
    ----------
    mean : float
        Mean of the differences.
    low, high : float
        95 % confidence interval of the mean, from Student's t.
    differences : ndarray
        One for each seed.
    """

    mean: float
    low: float
    high: float
    differences: np.ndarray

    def points(self) -> str:
        """Return a difference of fractions in percentage points, with its interval."""
        mean, low, high = (100 * value for value in self[:3])
        return f"{mean:+.2f} points [{low:+.2f}, {high:+.2f}]"


def paired(
    record: dict,
    metric: str = "test_accuracy",
    *,
    a: dict | None = None,
    b: dict | None = None,
    epoch: int = -1,
) -> Paired:
    """Compare two arms seed by seed.

    Two trainings with the same seed start from the same weights and see the same batches, so
    that what varies from seed to seed cancels in their difference.

    Parameters
    ----------
    record : dict
        From :func:`load`.
    metric : str
        What to compare.
    a, b : dict
        Parameters of the two arms; by default with and without batch norm.
    epoch : int
        Index of the epoch; by default the last.

    Returns
    -------
    Paired
        Of `a` minus `b`. The interval supposes that the differences are roughly normal, which
        few seeds cannot show.

    Examples
    --------
    >>> import bn
    >>> gain = bn.results.paired(bn.results.load("digits_mlp"), "test_accuracy")
    >>> gain.low < gain.mean < gain.high
    True
    """
    a = {"batch_norm": True} if a is None else a
    b = {"batch_norm": False} if b is None else b
    differences = curves(record, metric, **a)[:, epoch] - curves(record, metric, **b)[:, epoch]
    return interval(differences)


def interval(differences) -> Paired:
    """Return the mean of paired differences and its 95 % interval.

    Parameters
    ----------
    differences : array_like, shape (seeds,)
        One for each seed: for what :func:`paired` cannot name, such as a median over steps.

    Returns
    -------
    Paired
        The ends are infinite for a single seed.

    Examples
    --------
    >>> gain = interval([1.0, 2.0, 3.0])
    >>> round(gain.low, 2), round(gain.high, 2)
    (-0.48, 4.48)
    """
    differences = np.asarray(differences, dtype=np.float64)
    n = len(differences)
    mean = float(differences.mean())
    if n < 2:
        return Paired(mean, -math.inf, math.inf, differences)
    from scipy.stats import t  # comes with scikit-learn

    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return Paired(mean, mean - half, mean + half, differences)
