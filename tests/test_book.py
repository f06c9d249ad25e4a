"""The pages keep the book's form: anatomy of a chapter, links, references, nothing that leaks."""

from __future__ import annotations

import doctest
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import nbformat
import prose
import pytest
import yaml

import bn

ROOT, BOOK = prose.ROOT, prose.BOOK
PAGES = [p for p in prose.pages() if BOOK in p.parents]
NOTEBOOKS = [p for p in PAGES if p.suffix == ".ipynb"]
CHAPTERS = prose.chapters()
BIB = (BOOK / "references.bib").read_text(encoding="utf-8")

# Sections that frame the argument; every other one makes a point, and says it in a takeaway.
FRAME = re.compile(
    r"before you read|exercises|quiz|recap|what comes next|references|check yourself", re.I
)

every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def markdown(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def sections(path: Path) -> list[tuple[str, list]]:
    """(heading, cells) for each ``##`` section; a cell that holds several is cut."""
    found: list[tuple[str, list]] = []
    for cell in read(path).cells:
        pieces = (
            re.split(r"(?m)^(?=## )", cell.source)
            if cell.cell_type == "markdown"
            else [cell.source]
        )
        for piece in filter(str.strip, pieces):
            if cell.cell_type == "markdown" and piece.startswith("## "):
                found.append((piece.splitlines()[0][3:], []))
            if found:
                found[-1][1].append((cell.cell_type, cell, piece))
    return found


# --------------------------------------------------------------------- anatomy of a chapter


@every_chapter
def test_opens_with_title_promise_objectives_needs_and_time(path):
    opening = re.split(r"(?m)^## ", markdown(path))[0]
    title, promise, *_ = [block for block in opening.split("\n\n") if block.strip()]
    assert title.startswith("# ")
    assert promise.rstrip().endswith(".")
    assert len(promise.split()) < 60, "the promise is one sentence"
    objectives = opening.split("You will be able to", 1)[1].split("You need")[0]
    assert 3 <= len(re.findall(r"(?m)^[-*] ", objectives)) <= 5
    assert re.search(r"You need", opening)
    assert re.search(r"\]\([^)]+\.(?:ipynb|md)", opening.split("You need", 1)[1]), "link the needs"
    assert re.search(r"About \d+ minutes", opening)


@every_chapter
def test_asks_before_it_tells(path):
    text = markdown(path)
    answers = [m.start() for m in re.finditer(r"<summary>\s*Answer", text)]
    assert answers, "a question to answer before reading on: <summary>Answer</summary>"
    third = [m.start() for m in re.finditer(r"(?m)^## ", text)][2]
    assert answers[0] < third, "the first question comes before the third section"


@every_chapter
def test_every_section_ends_in_a_takeaway(path):
    missing = [
        heading
        for heading, cells in sections(path)
        if not FRAME.search(heading)
        and not any(
            re.search(r"\*\*Takeaway", piece)
            for kind, _, piece in [c for c in cells if c[0] == "markdown"][-1:]
        )
    ]
    assert not missing, f"these sections do not end in a '**Takeaway': {missing}"


@every_chapter
def test_has_a_living_figure(path):
    """A saved notebook holds a widget's repr and picture; a view would point at a dead kernel."""
    shown = [
        output.data.get("text/plain", "")
        for cell in read(path).cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/svg+xml" in output.get("data", {})
    ]
    kinds = "|".join(name for name in bn.widgets.__all__ if name not in ("Widget", "Quiz"))
    assert [text for text in shown if re.match(rf"(?:{kinds})\(", text)]


@every_chapter
def test_exercises_have_hint_and_collapsed_solution(path):
    (cells,) = [c for heading, c in sections(path) if heading.strip().lower() == "exercises"]
    text = "\n\n".join(piece for kind, _, piece in cells if kind == "markdown")
    titles = re.findall(r"(?m)^### .*$", text)
    hints = re.findall(r"<details>\s*<summary>\s*Hint.*?</summary>", text)
    folded = re.findall(r"<details>\s*<summary>\s*Solution.*?</summary>", text)
    coded = [
        c for kind, c, _ in cells if kind == "code" and "solution" in c.metadata.get("tags", [])
    ]
    assert len(titles) >= 3
    assert len(hints) >= len(titles)
    assert len(folded) + len({c.id for c in coded}) >= len(titles)
    assert folded, "at least one by hand"
    assert coded, "at least one in code"


@every_notebook
def test_a_solution_cell_is_folded_in_jupyter_and_on_the_site(path):
    for cell in read(path).cells:
        if "solution" in cell.metadata.get("tags", []):
            assert "hide-cell" in cell.metadata.tags
            assert cell.metadata.get("jupyter", {}).get("source_hidden") is True
            assert cell.source.startswith("# Solution")


@every_chapter
def test_has_a_quiz_of_three_to_six_questions(path):
    file = path.with_suffix("").with_suffix(".quiz.json")
    quiz = json.loads(file.read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "bn/widgets/quiz.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(quiz, schema)
    assert quiz["id"] == path.relative_to(BOOK).with_suffix("").as_posix()
    assert 3 <= len(quiz["questions"]) <= 6
    for question in quiz["questions"]:
        right = [o for o in question["options"] if o.get("correct")]
        assert len(right) == 1 or (question.get("multiple") and right)
        assert all(len(o["feedback"].split()) >= 4 for o in question["options"])
    assert any(f'Quiz("{file.name}")' in c.source for c in read(path).cells)


@every_chapter
def test_closes_with_recap_what_comes_next_and_references(path):
    headings = [heading.strip().lower() for heading, _ in sections(path)]
    assert "recap" in headings
    assert headings[-1] == "references"
    closing = re.split(r"(?m)^## Recap", markdown(path))[1]
    assert re.search(r"\]\([^)]+\.(?:ipynb|md)", closing), "the recap links to what comes next"
    references = closing.split("## References")[1]
    assert len(re.findall(r"(?m)^[-*] ", references)) >= 2


# -------------------------------------------------------------------------- every notebook


@every_notebook
def test_reads_well_where_myst_is_unknown(path):
    text = prose.without_code(markdown(path))
    raw = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    assert not re.search(r"(?m)^\s*`{3,}\{", raw), "a directive in backticks shows as code"
    assert not re.search(r"\{[a-z:]+\}`", raw), "a role shows as braces"
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"(?m)^<!--", cell.source), "a comment that begins a line"
    for inside in re.findall(r"(?s)<details>(.*?)</details>", text):
        assert re.search(r"</summary>\n\n", inside), "an empty line after the summary"
        assert inside.endswith("\n\n"), "an empty line before </details>"
    assert text.count("<details>") == text.count("</details>")


@every_notebook
def test_every_figure_has_a_caption_and_every_image_a_text(path):
    cells = read(path).cells
    for cell, after in itertools.pairwise([*cells, None]):
        if cell.cell_type != "code":
            continue
        drawn = any("image/svg+xml" in o.get("data", {}) or "image/png" in o.get("data", {})
                    for o in cell.outputs)  # fmt: skip
        if drawn:
            assert after is not None, cell.id
            assert after.cell_type == "markdown", f"{cell.id}: a caption follows"
            assert re.match(r"\*Figure", after.source), f"{cell.id}: '*Figure: …*' follows"
    assert not re.search(r"!\[\s*\]\(", markdown(path))


@every_page
def test_no_phrase_that_makes_a_reader_feel_small(path):
    found = re.findall(
        r"(?i)\b(?:obviously|trivially|needless to say|it is easy to see|as everyone knows)\b",
        markdown(path),
    )
    assert not found


@every_page
def test_a_row_of_a_table_has_as_many_cells_as_its_head(path):
    """What is too much is left out of the page without a word."""
    plain = re.sub(r"<!--.*?-->|`[^`\n]*`|\$[^$\n]*\$", "", markdown(path), flags=re.S)
    for table in re.findall(r"(?:^\|.*\|[ ]*\n?)+", plain, re.M):
        rows = table.strip().splitlines()
        assert {row.count("|") for row in rows} == {rows[0].count("|")}, table


# ------------------------------------------------------------------------- links and pages


def links(path: Path) -> list[str]:
    text = prose.without_code(markdown(path))
    return [target for target in re.findall(r"\]\(([^()\s]+(?:\([^)]*\))?[^()\s]*)\)", text)]


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_links_inside_the_repository_lead_somewhere(path):
    for target in links(path):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (path.parent / target.partition("#")[0]).exists(), target


@every_page
def test_every_cited_work_is_in_the_bibliography(path):
    for target in links(path):
        key = re.search(r"arxiv\.org/(?:abs|pdf)/([\d.]+\d)|doi\.org/(\S+)", target)
        if key:
            assert (key[1] or key[2]).lower() in BIB.lower(), target
    if path in CHAPTERS:
        references = markdown(path).split("## References")[1]
        for target in set(re.findall(r"https?://[^)\s]+", markdown(path))):
            if "arxiv.org" in target or "doi.org" in target:
                assert target in references, f"{target} is cited but not listed at the end"


def test_the_bibliography_is_whole():
    keys = re.findall(r"(?m)^@\w+\{([^,]+),", BIB)
    assert len(set(keys)) == len(keys)
    for entry in re.split(r"(?m)^(?=@)", BIB)[1:]:
        assert re.search(r"\byear\s*=", entry), entry
        assert re.search(r"\b(?:doi|url)\s*=", entry), entry


def test_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {toc["root"]} | {c["file"] for part in toc["parts"] for c in part["chapters"]}
    assert listed == {p.relative_to(ROOT).with_suffix("").as_posix() for p in PAGES}


def test_the_index_names_every_finished_chapter():
    assert {p.relative_to(BOOK).as_posix() for p in CHAPTERS} <= set(links(BOOK / "index.md"))


@every_chapter
def test_the_index_gives_a_chapters_title_and_time(path):
    title = markdown(path).split("\n")[0].removeprefix("# ")
    minutes = re.search(r"About (\d+) minutes", markdown(path))[1]
    href = re.escape(path.relative_to(BOOK).as_posix())
    entry = re.search(rf"(?s)\[([^\]]+)\]\({href}\)(.*?)(?=\n- |\n\n)", markdown(BOOK / "index.md"))
    assert entry[1] == title
    assert f"{minutes} minutes" in entry[2]


@every_page
def test_a_link_to_a_chapter_bears_its_title(path):
    for text, target in re.findall(r"\[([^\]]+)\]\(([\w./]+\.ipynb)\)", markdown(path)):
        chapter = (path.parent / target).resolve()
        if chapter in CHAPTERS:
            title = markdown(chapter).split("\n")[0].removeprefix("# ")
            assert text.lower() == title.lower(), f"{target} is called {title!r}"


# ------------------------------------------------------------------ what must not be there


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_data_file_is_committed():
    assert not [
        p for p in tracked() if re.search(r"idx[13]-ubyte|\.(?:gz|zip|npz|pt|pkl)$", p.name)
    ]
    assert not [p for p in tracked() if p.stat().st_size > 2_000_000]


def test_nothing_names_the_place_where_it_was_written():
    """No absolute path of a machine, no package registry's host."""
    place = re.compile(
        r"(?<![\w.])/(?:work|home/\w+|Users)/|pypi\.(?:org|python)|files\.pythonhosted|"
        r"registry\.npmjs|conda\.anaconda|\.\./shared"
    )
    allowed = {ROOT / ".ci/run", Path(__file__).resolve()}
    for path in set(tracked()) - allowed:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        match = place.search(text)
        assert match is None, f"{path.relative_to(ROOT)}: {match[0]}"


# --------------------------------------------------------- what README and CONTRIBUTING say


def commands(path: Path) -> list[list[str]]:
    """The command lines in fenced shell blocks and code spans."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```(?:bash|sh|shell|console)\n(.*?)^```", text)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    lines = [line.split("#")[0].strip() for b in blocks for line in b.splitlines()] + spans
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [shlex.split(line) for line in lines if re.match(r"(?:make|bn) ", line)]


MANUALS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


@pytest.mark.parametrize("path", MANUALS, ids=lambda p: p.name)
def test_every_make_target_exists(path):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    if path.suffix == ".ipynb":
        spans = re.findall(r"`make ([a-z]+)", markdown(path))
    else:
        spans = [words[1] for words in commands(path) if words[0] == "make"]
    assert set(spans) <= targets


@pytest.mark.parametrize("path", MANUALS[:2], ids=lambda p: p.name)
def test_every_bn_command_exists(path):
    for words in (w for w in commands(path) if w[0] == "bn"):
        help_text = subprocess.run(
            [sys.executable, "-m", "bn", words[1], "--help"], capture_output=True, text=True
        )
        assert help_text.returncode == 0, words
        for option in (w for w in words if w.startswith("--")):
            assert option in help_text.stdout, words
        if words[1] in ("run", "show", "verify"):
            named = {word for word in words[2:] if re.fullmatch("[a-z_]+", word)}
            assert named <= set(bn.experiments.names()), words


def test_the_example_in_the_readme_is_true():
    failed, attempted = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert attempted >= 4
    assert not failed


def test_every_file_that_the_manuals_name_exists():
    named = re.findall(
        r"(?<![/\w.])(?:bn|book|tests)/[\w/]+(?:\.\w+)+",
        "\n".join(p.read_text() for p in MANUALS[:2]),
    )
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists() or re.search("NAME|PART|CHAPTER", name), name


def test_readme_keeps_its_promises():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for needed in (
        "make book",
        "make test",
        "bn run mnist_mlp",
        "CITATION.cff",
        "MIT",
        "CC BY 4.0",
    ):
        assert needed in text, needed
    assert not re.search(r"github\.com/|github\.io", text), (
        "the address is known where it publishes"
    )
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (ROOT / image).stat().st_size < 400_000


# ---------------------------------------------------------------------------- page `start`


def test_start_shows_interactive_output(capsys):
    """Its cell is not run in the build, where no kernel could move its slider."""
    (cell,) = [c for c in read(BOOK / "start.ipynb").cells if c.id == "interactive-output"]
    shown = []
    namespace = {"display": lambda *args: shown.extend(args)}
    exec(cell.source, namespace)
    assert "10 weights" in capsys.readouterr().out
    shown[0].value = 20
    assert "20 weights of 1.1 multiplies its input by 6.727" in capsys.readouterr().out


def test_start_repeats_an_experiment_that_exists():
    (cell,) = [c for c in read(BOOK / "start.ipynb").cells if c.id == "run"]
    assert cell.source.startswith("!bn run ")
    assert cell.source.split()[-1] in bn.experiments.names()
