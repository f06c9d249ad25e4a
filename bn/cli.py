"""The command ``bn``: list, run, show and verify the experiments; look after the data."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import textwrap
from pathlib import Path

from bn import data, experiments, results

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.

    Returns
    -------
    int
        0, or 1 when something did not work or ``verify`` found a difference, or 130 when
        interrupted. A wrong option leaves with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (data.DataError, experiments.ExperimentError, results.RecordError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = "this needs PyTorch: pip install 'bn[torch]'"
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = " Make room and run the same command again: what is done is kept." if full else ""
        message = f"{error}.{hint}"
    print(f"bn: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bn", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, function, help):
        sub = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        sub.set_defaults(command=function)
        return sub

    def folder(sub, default):
        sub.add_argument("--folder", type=Path, help=f"where the records are ({default})")

    own = "default: $BN_RESULTS_DIR, or ./bn-runs"
    shipped = "default: those that bn ships"

    command("list", _list, "list the experiments")

    run = command("run", _run, "run an experiment, or go on with one that was stopped")
    run.add_argument("name", help="see: bn list")
    run.add_argument("--seeds", type=_seeds, metavar="0-4,7", help="default: as declared")
    run.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    run.add_argument("--dask", metavar="ADDRESS", help="send the work to this Dask scheduler")
    run.add_argument("--quick", action="store_true", help="one epoch only, to see that it works")
    folder(run, own)
    run.add_argument("--record", action="store_true",
                     help="put the record among those that bn ships (for maintainers)")  # fmt: skip

    show = command("show", _show, "show what a record says")
    show.add_argument("name", help="see: bn list")
    folder(show, shipped)

    verify = command("verify", _verify, "run one seed of a record again and compare")
    verify.add_argument("name", help="see: bn list")
    verify.add_argument("--seed", type=int, metavar="S", help="default: the record's first")
    verify.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    verify.add_argument("--quick", action="store_true", help="compare the first epoch only")
    folder(verify, shipped)
    verify.add_argument("--stamp", action="store_true",
                        help="if all agrees, note in the record that this code reproduces it")  # fmt: skip

    files = command("data", _data, "download MNIST, or what is missing of it; say where it is")
    files.add_argument("--check", action="store_true", help="only look, without a download")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    """Parse ``0-4,7``."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a seed or a range of seeds; write for instance 0-4,7"
            )
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise argparse.ArgumentTypeError(f"the range {part!r} is empty: the smaller one first")
        if len(numbers) > 1000:
            raise argparse.ArgumentTypeError(f"{part!r} are {len(numbers):,} seeds")
        seeds.extend(numbers)
    return tuple(seeds)


def _list(options) -> None:
    recorded = results.names()
    for name in experiments.names():
        e = experiments.get(name)
        units = len(e.grid) * len(e.seeds)
        minutes = e.core_minutes / (os.cpu_count() or 1)
        print(f"{name}{'' if name in recorded else '  (not recorded yet)'}")
        print(_wrap(f"{e.claim} ({e.source})"))
        print(f"    {e.data}, {units} trainings of {e.config['epochs']} epochs, "
              f"about {_time(60 * minutes)} here")  # fmt: skip


def _run(options) -> int:
    try:
        record = experiments.run(
            options.name,
            seeds=options.seeds,
            workers=options.workers,
            dask=options.dask,
            quick=options.quick,
            folder=options.folder,
        )
    except KeyboardInterrupt:
        print("\nInterrupted. The epochs that are done are kept; the same command goes on from "
              "there.", file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    name = f"{options.name}.quick" if options.quick else options.name
    folder = options.folder or experiments.user_folder()
    if options.record:
        if options.quick:
            raise experiments.ExperimentError("a quick run is no record: leave out --quick")
        folder = results.FOLDER
        results.save(record, folder / f"{name}.json")
    _describe(record)
    print(f"Written to {folder / f'{name}.json'}")
    return 0


def _show(options) -> None:
    _describe(results.load(options.name, options.folder))


def _describe(record: dict) -> None:
    e = experiments.get(record["experiment"])
    print(record["experiment"])
    print(_wrap(f"Claim: {e.claim} ({e.source})"))
    print(_wrap(f"Criterion: {e.criterion}"))
    if record["seeds"] and record["config"]["epochs"] == e.config["epochs"]:
        verdict = e.verdict(record)
        print(_wrap(f"Verdict: {verdict.word}: {verdict.reason}."))
    else:
        print("    Verdict: none; the run is not a full one.")
    metrics = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    epochs = record["config"]["epochs"]
    print(f"\nAfter {epochs} epoch{'s' * (epochs > 1)}, mean ± standard deviation over seeds "
          f"{', '.join(map(str, record['seeds']))}:")  # fmt: skip
    arms = [u["params"] for u in record["units"] if u["seed"] == record["seeds"][0]]
    labels = [", ".join(f"{k}={v}" for k, v in arm.items()) for arm in arms]
    width = max(map(len, labels), default=0)
    print(" " * width, *(f"{m.replace('_', ' '):>17}" for m in metrics))
    for arm, label in zip(arms, labels, strict=True):
        cells = []
        for metric in metrics:
            values = results.final(record, metric, **arm)
            spread = values.std(ddof=1) if len(values) > 1 else float("nan")
            cells.append(f"{values.mean():>8.4f} ± {spread:.4f}")
        print(f"{label:<{width}}", *(f"{cell:>17}" for cell in cells))
    print(f"\nTrainings, added up: {_time(sum(record['seconds']))} of wall time, one thread each")
    print("Machine:", ", ".join(f"{k} {v}" for k, v in record["hardware"].items()))
    print("Versions:", ", ".join(f"{k} {v}" for k, v in record["versions"].items()))
    for line in experiments.circumstances(e, record):
        print(_wrap(f"Not as it was: {line}"))


def _verify(options) -> int:
    differences, changed = experiments.verify(
        options.name,
        seed=options.seed,
        quick=options.quick,
        folder=options.folder,
        workers=options.workers,
        stamp=options.stamp,
    )
    for line in changed:
        print(_wrap(f"Not as it was: {line}"))
    if not differences:
        print("Reproduced, bit for bit.")
        return 0
    print(f"{len(differences)} numbers differ. The largest difference of each metric:")
    for metric in dict.fromkeys(d["metric"] for d in differences):
        gaps = [(_gap(d), d) for d in differences if d["metric"] == metric]
        gap, worst = max(gaps, key=lambda pair: pair[0])
        place = ", ".join(f"{k}={v}" for k, v in worst["params"].items())
        if isinstance(worst["recorded"], dict):
            print(f"  {metric}: not the same; {place}, epoch {worst['epoch']}")
        else:
            print(f"  {metric}: {worst['recorded']} recorded, {worst['found']} found "
                  f"(by {gap:.2g}; {place}, epoch {worst['epoch']})")  # fmt: skip
    return 1


def _gap(difference: dict) -> float:
    recorded, found = difference["recorded"], difference["found"]
    numbers = all(isinstance(v, int | float) for v in (recorded, found))
    return abs(found - recorded) if numbers else float("inf")


def _data(options) -> int:
    if not options.check:
        data.mnist()
    problems = data.missing()
    print(f"MNIST in {data.folder()}:")
    for name, sha in data.FILES.items():
        print(f"  {name}  {problems.get(name, 'is there')}")
        if name in problems:
            print(f"    the official one has SHA-256 {sha}")
    if problems:
        print("Get it with: bn data")
    return 1 if problems else 0


def _wrap(text: str) -> str:
    return textwrap.fill(text, 92, initial_indent="    ", subsequent_indent="    ")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
