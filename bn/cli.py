"""The command ``bn``: list, run, show, verify and compare the experiments; look after the data."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import textwrap
from pathlib import Path

from bn import data, experiments, results
from bn.experiments import _report

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
        interrupted. ``compare`` is like ``diff``: 1 when the records differ, 2 when they cannot
        be compared. A wrong option leaves with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who reads the output has had enough, as in `bn list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except EXPECTED as error:
        print(f"bn: {_explain(error)}", file=sys.stderr)
    return 2 if options.command is _compare else 1


EXPECTED = (data.DataError, experiments.ExperimentError, experiments.UnitError,
            results.RecordError, ModuleNotFoundError, OSError)  # fmt: skip


def _explain(error: Exception) -> str:
    """Say in a line what went wrong; the traceback of a training that failed stands above it."""
    extras = {"torch": ("PyTorch", "torch"), "matplotlib": ("matplotlib", "book")}
    missing = getattr(error, "name", None) or ""  # of an ImportError
    if missing.partition(".")[0] in extras:
        package, extra = extras[missing.partition(".")[0]]
        return f"this needs {package}: pip install 'bn[{extra}]'"
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = " Make room and run the same command again: what is done is kept." if full else ""
        return f"{error}.{hint}"
    for note in getattr(error, "__notes__", []):
        print(note, file=sys.stderr)
    return str(error)


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

    def named(sub, everything):
        sub.add_argument("names", nargs="*", metavar="NAME", help="see: bn list")
        sub.add_argument("--all", action="store_true", help=everything)

    command("list", _list, "list the experiments")

    run = command("run", _run, "run experiments, or go on with what was stopped")
    named(run, "all experiments, in one pool of workers")
    run.add_argument("--seeds", type=_seeds, metavar="0-4,7", help="default: as declared")
    run.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    run.add_argument("--dask", metavar="ADDRESS", help="send the work to this Dask scheduler")
    run.add_argument(
        "--quick", action="store_true", help="one seed, fewer steps, to see that it works"
    )
    folder(run, own)
    run.add_argument("--record", action="store_true",
                     help="put the record among those that bn ships (for maintainers)")  # fmt: skip

    status = command("status", _status, "say what is recorded and what is left to run")
    folder(status, own)

    show = command("show", _show, "show what a record says")
    show.add_argument("name", help="see: bn list")
    folder(show, shipped)
    show.add_argument("--plot", type=Path, nargs="?", const="", metavar="FILE",
                      help="draw it too, into FILE (default: NAME.png)")  # fmt: skip

    compare = command("compare", _compare, "compare two records, number by number")
    for which in ("first", "second"):
        compare.add_argument(which, help="a name (of a record that bn ships), or a JSON file")

    verify = command("verify", _verify, "run seeds of records again, in another order, and compare")
    named(verify, "all records, in one pool of workers")
    verify.add_argument("--seeds", type=_seeds, metavar="0-4,7", help="default: the record's last")
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
        epochs = f" of {e.config['epochs']} epochs" if e.config["epochs"] > 1 else ""
        print(f"    {e.data or 'needs no data'}, {units} runs{epochs}, "
              f"about {_time(60 * minutes)} here")  # fmt: skip


def _chosen(options, everything: list[str]) -> list[str]:
    if options.all == bool(options.names):
        raise experiments.ExperimentError("name experiments (see: bn list), or say --all; not both")
    return everything if options.all else list(dict.fromkeys(options.names))


def _run(options) -> int:
    if options.record and options.quick:
        raise experiments.ExperimentError("a quick run is no record: leave out --quick")
    names = _chosen(options, experiments.names())
    folder = options.folder or experiments.user_folder()
    failed = {}
    try:
        for name, outcome in experiments.run_many(
            names,
            seeds=options.seeds,
            workers=options.workers,
            dask=options.dask,
            quick=options.quick,
            folder=options.folder,
        ):
            if isinstance(outcome, Exception):
                failed[name] = outcome
                continue
            path = folder / f"{name}{'.quick' * options.quick}.json"
            if options.record:
                path = results.FOLDER / f"{name}.json"
                results.save(outcome, path)
            with _beside_the_bars():
                if len(names) == 1:
                    _describe(outcome)
                print(f"{name}: {_verdict(outcome)}" * (len(names) > 1) + f"Written to {path}")
    except KeyboardInterrupt:
        print("\nInterrupted. The epochs that are done are kept; the same command goes on from "
              "there.", file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    return _report_failures(failed, names)


def _beside_the_bars():
    """Print between the bars of what is still at work."""
    from tqdm.auto import tqdm

    return tqdm.external_write_mode()


def _report_failures(failed: dict[str, Exception], names: list[str]) -> int:
    for name, error in failed.items():
        if not isinstance(error, EXPECTED):
            raise error
        print(f"bn: {f'{name}: ' * (len(names) > 1)}{_explain(error)}", file=sys.stderr)
    return 1 if failed else 0


def _status(options) -> None:
    rows, left = [], 0.0
    for name in experiments.names():
        found = experiments.status(name, options.folder)
        left += found["seconds"]
        record = "none"
        if found["seeds"]:
            record = f"seeds {_ranges(found['seeds'])}{', but' * bool(found['changed'])}"
        run = f"{found['units']} of {found['of']}" if found["units"] else "-"
        run = "?" if found["units"] is None else run
        needed = _time(found["seconds"]) if found["seconds"] else "-"
        rows.append((name, record, run, needed, found["changed"]))
    head = ("", "record", "run here", "left, on one core", [])
    widths = [max(len(row[i]) for row in [head, *rows]) + 2 for i in range(4)]
    for *row, notes in [head, *rows]:
        print("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        for note in notes:
            print(_wrap(note))
    print(f"\nLeft in all: {_time(left)} on one core. Runs in "
          f"{options.folder or experiments.user_folder()}.")  # fmt: skip
    if any(row[2] == "?" for row in rows):
        print("?: MNIST is not here, so its runs cannot be told. Get it with: bn data")


def _ranges(seeds: list[int]) -> str:
    """Write ``[0, 1, 2, 7]`` as ``0-2,7``."""
    first = [s for s in seeds if s - 1 not in seeds]
    last = [s for s in seeds if s + 1 not in seeds]
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(first, last, strict=True))


def _show(options) -> None:
    record = results.load(options.name, options.folder)
    if options.plot is not None:
        path = options.plot if options.plot.name else Path(f"{options.name}.png")
        _report.figure(record).savefig(path)
    _describe(record)
    if options.plot is not None:
        print(f"Drawn in {path}")


def _verdict(record: dict) -> str:
    e = experiments.get(record["experiment"])
    if record["seeds"] and record["config"] == e.config:
        verdict = e.verdict(record)
        absent = sorted(set(e.seeds) - set(record["seeds"]))
        but = f" (without the seeds {_ranges(absent)} of a full run)" if absent else ""
        return f"{verdict.word}: {verdict.reason}{but}. "
    return "none; the run is not a full one. "


def _describe(record: dict) -> None:
    e = experiments.get(record["experiment"])
    print(record["experiment"])
    print(_wrap(f"Claim: {e.claim} ({e.source})"))
    print(_wrap(f"Criterion: {e.criterion}"))
    print(_wrap(f"Verdict: {_verdict(record)}"))
    epochs = record["config"]["epochs"]
    print(f"\nAfter {epochs} epoch{'s' * (epochs > 1)}, mean ± standard deviation over seeds "
          f"{_ranges(record['seeds'])}:")  # fmt: skip
    print("\n".join(_report.table(record)))
    print(f"\nTrainings, added up: {_time(sum(record['seconds']))} of wall time, one thread each")
    print("Machine:", ", ".join(f"{k} {v}" for k, v in record["hardware"].items()))
    print("Versions:", ", ".join(f"{k} {v}" for k, v in record["versions"].items()))
    for line in experiments.circumstances(e, record):
        print(_wrap(f"Not as it was: {line}"))


def _compare(options) -> int:
    records = []
    for name in (options.first, options.second):
        path = Path(name)
        is_file = path.suffix == ".json"
        records.append(results.load(path.stem, path.parent) if is_file else results.load(name))
    circumstances, differences, identical = _report.compare(*records)
    for line in circumstances:
        print(_wrap(f"Not the same: {line}"))
    if identical:
        print("Identical: every number of every unit, to the last bit.")
        return 0
    print("The second minus the first, after the last epoch: the mean over the seeds that both "
          "have, and its 95 % interval.")  # fmt: skip
    for line in differences:
        print(_wrap(line))
    if not differences:
        print(_wrap("no single number that both measured differs there"))
    return 1


def _verify(options) -> int:
    names = _chosen(options, results.names(options.folder))
    failed, agree = {}, True
    for name, outcome in experiments.verify_many(
        names,
        seeds=options.seeds,
        quick=options.quick,
        folder=options.folder,
        workers=options.workers,
        stamp=options.stamp,
    ):
        if isinstance(outcome, Exception):
            failed[name] = outcome
            continue
        with _beside_the_bars():
            print(f"{name}: ", end="")
            agree &= _agreement(*outcome)
    return _report_failures(failed, names) or int(not agree)


def _agreement(differences: list[dict], changed: list[str]) -> bool:
    if not differences:
        print("reproduced, bit for bit.")
    else:
        print(f"{len(differences)} numbers differ. The largest difference of each metric:")
    for metric in dict.fromkeys(d["metric"] for d in differences):
        gaps = [(_gap(d), d) for d in differences if d["metric"] == metric]
        gap, worst = max(gaps, key=lambda pair: pair[0])
        place = f"{_report.label(worst['params'])}, seed {worst['seed']}, epoch {worst['epoch']}"
        if isinstance(worst["recorded"], dict | list):
            print(f"  {metric}: not the same; {place}")
        else:
            print(f"  {metric}: {worst['recorded']} recorded, {worst['found']} found "
                  f"(by {gap:.2g}; {place})")  # fmt: skip
    for line in changed:
        print(_wrap(f"Not as it was: {line}"))
    return not differences


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
