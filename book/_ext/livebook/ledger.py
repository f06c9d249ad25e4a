"""The ledger: a page with every claim that an experiment tests, and what became of it.

``python -m livebook ledger`` writes ``book/ledger.md`` from the declarations in
``bn.experiments`` and the records in ``bn.results``. Nothing on the page is typed in: a verdict is
what the experiment's own ``verdict`` says of the record. A test compares the page with what this
module would write.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from html import escape as escape_html
from pathlib import Path

import yaml

from bn import experiments, results
from bn.experiments import Verdict

PAGE = Path("book", "ledger.md")
OPEN = "not yet recorded"
# A sign of its own for each verdict, so that nothing hangs on a colour.
SIGNS = dict(
    zip(
        (*Verdict.WORDS, OPEN),
        [("✓", "holds"), ("◐", "caveat"), ("✕", "not"), ("…", "open")],
        strict=True,
    )
)

TEXT = """\
# The ledger

Every claim that this course puts to the test, who made it, what was measured, and the verdict.

{summary}

{tally}

*Each mark is one claim: ✓ holds, ◐ holds with a caveat, ✕ did not reproduce here. Press one to
go to it.*

## What a verdict means

Every experiment was declared before its full run: the claim with its source, the networks and the
data, the seeds, and a **criterion** in words and in code. The criterion is one or more tests. A
function applies it to the record of the run:

- ✓ **holds**: every test passed;
- ◐ **holds with a caveat**: some passed and some did not; the chapter says which;
- ✕ **did not reproduce here**: none passed.

Nobody types a verdict in. This page is written by a program from the declarations and the records,
and a test fails when the two disagree.

## What it does not mean

*Holds* is not *true everywhere*. It speaks of these networks, these data and these settings, and
the intervals cover what the seeds varied and nothing else. *Did not reproduce here* is not *false*:
two processor cores and small networks may be the wrong place to see an effect, and a few seeds
may be too few. An interval at 95 % misses its mean one time in twenty, and no correction is made
for how many there are on this page. Read the numbers, not the mark alone.

An **identity** is proved, not measured. Its verdict says that random cases agree with it to
rounding, as they would not with a wrong formula.

To doubt a verdict, repeat it. `bn verify NAME` runs one seed again and says what differs from the
record; `bn run NAME` runs them all and leaves a record of your own; `bn show NAME` reads a record
out. An experiment on MNIST fetches the data once.
"""


def write(root: Path) -> None:
    """Write the page."""
    (root / PAGE).write_text(page(root), encoding="utf-8")


def page(root: Path) -> str:
    """Return the page's text.

    Claims stand under the chapters that tell them, in the order of the table of contents. What is
    declared and has no record is listed as such, and so is a chapter that does not exist yet:
    while an experiment is being made this is useful, and a test sees to it that it is not
    published.
    """
    recorded = results.names()
    found = [experiments.get(name) for name in experiments.names()]
    records = {e.name: results.load(e.name) if e.name in recorded else None for e in found}
    verdicts = {e.name: e.verdict(records[e.name]) if records[e.name] else None for e in found}
    words = {name: verdict.word if verdict else OPEN for name, verdict in verdicts.items()}
    sources = works(root / "book" / "references.bib")

    tally, sections = [], []
    for part, chapters in contents(root, {e.chapter for e in found}).items():
        sections.append(f"## {part}")
        for chapter, title in chapters.items():
            told = [e for e in found if e.chapter == chapter]
            link = f"[{title}]({chapter}.ipynb)" if title else f"`{chapter}`"
            sections.append(f"### {link}")
            marks = "".join(_mark(e, words[e.name]) for e in told)
            tally.append(
                f"<li><span>{escape_html(title or chapter)}</span> <span>{marks}</span></li>"
            )
            sections += [_card(e, words[e.name], verdicts[e.name], records[e.name], sources)
                         for e in told]  # fmt: skip
    head = TEXT.format(
        summary=summary(words.values()),
        tally='<ul class="bn-tally">\n' + "\n".join(tally) + "\n</ul>",
    )
    return "\n\n".join([head.rstrip(), *sections]) + "\n"


def contents(root: Path, wanted: set[str]) -> dict[str, dict[str, str]]:
    """Return the chapters wanted and their titles, by part, in the order of the book."""
    parts = {}
    for part in yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]:
        files = (Path(entry["file"]).relative_to("book").as_posix() for entry in part["chapters"])
        chapters = {
            file: _title(root / "book" / f"{file}.ipynb") for file in files if file in wanted
        }
        if chapters:
            parts[part["caption"]] = chapters
    listed = {chapter for chapters in parts.values() for chapter in chapters}
    if wanted - listed:
        parts["Chapters to come"] = dict.fromkeys(sorted(wanted - listed), "")
    return parts


def _title(notebook: Path) -> str:
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    return "".join(first["source"]).partition("\n")[0].removeprefix("# ")


def summary(words) -> str:
    """Count the verdicts, in a sentence.

    Examples
    --------
    >>> summary(["holds", "holds", "did not reproduce here"])
    'Of 3 claims, **2 hold**, **0 hold with a caveat** and **1 did not reproduce here**.'
    """
    count = Counter(words)
    holds, caveat, neither = (count[word] for word in Verdict.WORDS)
    text = (
        f"Of {count.total()} claims, **{holds} {'holds' if holds == 1 else 'hold'}**, "
        f"**{caveat} {'holds' if caveat == 1 else 'hold'} with a caveat** and "
        f"**{neither} did not reproduce here**."
    )
    return text + (f" {OPEN.capitalize()}: {count[OPEN]}." if count[OPEN] else "")


def works(bibliography: Path) -> dict[tuple[str, str], str]:
    """Return the address of each work, by its first author's surname and its year."""
    found = {}
    for entry in re.split(r"(?m)^(?=@)", bibliography.read_text(encoding="utf-8"))[1:]:
        field = dict(re.findall(r"(?m)^\s*(author|year|url|doi) = \{(.*)\},?$", entry))
        address = field.get("url") or f"https://doi.org/{field['doi']}"
        found[field["author"].split(",")[0].strip("{}"), field["year"]] = address
    return found


def cite(source: str, works: dict[tuple[str, str], str]) -> str:
    """Link every work that a source names; an address of its own is then not needed.

    Examples
    --------
    >>> cite("Ada & Bo (1843, note G), https://ada.example", {("Ada", "1843"): "https://ada.example"})
    '[Ada & Bo (1843, note G)](https://ada.example)'
    """
    text = _plain(re.sub(r",? https?://[^\s,;]+", "", source))
    for (surname, year), address in works.items():
        text = re.sub(
            rf"(?<![\w\[]){surname}\b[^();]*?\({year}\b[^)]*\)", rf"[\g<0>]({address})", text
        )
    return text


def _card(experiment, word, verdict, record, sources) -> str:
    sign, kind = SIGNS[word]
    name, module = experiment.name, Path(inspect.getfile(experiment.run)).name
    lines = [
        f":::{{div}} bn-claim bn-{kind}",
        f":name: {_anchor(experiment)}",
        "",
        f"**{sign} {word}**",
        "",
        _plain(experiment.claim),
        "",
        f"*Source:* {cite(experiment.source, sources)}.".replace("?.", "?"),
    ]
    if record:
        lines += ["", _measured(verdict.reason)]
    lines += [
        "",
        f"<details><summary>Criterion and record: <code>{name}</code></summary>",
        "",
        f"*Criterion, fixed before the run:* {_plain(experiment.criterion)}",
        "",
        f"*Declared in* [{module}](../bn/experiments/{module})",
    ]
    if record:
        lines[-1] += (
            f", *recorded in* [{name}.json](../bn/results/{name}.json), "
            f"{len(record['units'])} runs with {_seeds(record['seeds'])}"
        )
        if absent := sorted({*experiment.seeds} - {*record["seeds"]}):
            lines[-1] += f", so far without {_seeds(absent)}"
    lines[-1] += "."
    if record:
        lines += ["", "```bash", f"bn verify {name}", f"bn run {name}", "```"]
    return "\n".join([*lines, "", "</details>", "", ":::"])


def _measured(reason: str) -> str:
    """Write the numbers behind a verdict, those with many parts as a list."""
    parts = f"{_plain(reason)}.".split("; ")
    return "*Measured:*" + (
        " " + "; ".join(parts) if len(parts) < 3 else "\n\n- " + ";\n- ".join(parts)
    )


def _mark(experiment, word) -> str:
    sign, kind = SIGNS[word]
    return (
        f'<a class="bn-verdict bn-{kind}" href="#{_anchor(experiment)}" '
        f'title="{escape_html(experiment.claim)}" aria-label="{experiment.name}: {word}">{sign}</a>'
    )


def _anchor(experiment) -> str:
    return "claim-" + experiment.name.replace("_", "-")


def _seeds(seeds: list[int]) -> str:
    """Say which seeds.

    Examples
    --------
    >>> _seeds([0, 1, 2]), _seeds([0, 4])
    ('seeds 0 to 2', 'seeds 0, 4')
    """
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _plain(text: str) -> str:
    r"""Write text so that Markdown shows it as it is, with its numbers as in print.

    Examples
    --------
    >>> print(_plain("a_b: -0.5 [-1, 2], 3e-15, 7%"))
    a\_b: −0.5 \[−1, 2\], 3·10⁻¹⁵, 7 %
    """
    text = re.sub(r"([\\`*_\[\]<>$|#])", r"\\\1", text)
    text = re.sub(
        r"(?<=\d)e([+-]\d+)",
        lambda power: (
            "·10" + str(int(power[1])).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        ),
        text,
    )
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", re.sub(r"(?<=\d)%", "\u00a0%", text))
