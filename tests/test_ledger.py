"""The ledger says what the records say, of every claim, and every way out of it is open."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from livebook import ledger

from bn import experiments, results
from bn.experiments import Experiment, Verdict

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = (ROOT / ledger.PAGE).read_text(encoding="utf-8")
AGAIN = "write it anew: PYTHONPATH=book/_ext .venv/bin/python -m livebook ledger"


def cards(page: str) -> dict[str, str]:
    """Each claim's text, by the name of its experiment."""
    found = re.findall(r"(?ms)^:::\{div\} (.*?)^:::$", page)
    return {re.search(r"<code>(\w+)</code>", card)[1]: card for card in found}


# ----------------------------------------------------------------- the page that is committed


def test_the_page_and_the_records_agree():
    assert ledger.page(ROOT) == COMMITTED, AGAIN


@pytest.mark.parametrize("name", experiments.names())
def test_a_claim_has_a_record_a_verdict_and_a_chapter(name):
    experiment = experiments.get(name)
    assert name in results.names(), f"{name} is declared and was not run: bn run {name} --record"
    card = cards(COMMITTED)[name]
    word = experiment.verdict(results.load(name)).word
    assert f"**{ledger.SIGNS[word][0]} {word}**" in card
    assert f"../bn/results/{name}.json" in card
    assert "so far without" not in card
    listed = {
        chapter["file"]
        for part in yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
        for chapter in part["chapters"]
    }
    assert f"book/{experiment.chapter}" in listed, f"no chapter {experiment.chapter} in _toc.yml"


def test_every_claim_is_there_once():
    assert COMMITTED.count("\n:::{div} ") == len(cards(COMMITTED)) == len(experiments.names())
    assert ledger.OPEN not in COMMITTED
    marks = re.findall(r'href="#(claim-[\w-]+)"', COMMITTED)
    assert sorted(marks) == sorted(re.findall(r":name: (claim-[\w-]+)", COMMITTED))
    assert len(set(marks)) == len(marks) == len(experiments.names())


def test_the_counts_are_those_of_the_verdicts():
    words = [experiments.get(n).verdict(results.load(n)).word for n in experiments.names()]
    counted = [int(n) for n in re.findall(r"\*\*(\d+) (?:hold|did)", COMMITTED)]
    assert counted == [words.count(word) for word in Verdict.WORDS]
    assert f"Of {len(words)} claims" in COMMITTED


@pytest.mark.parametrize("name", experiments.names())
def test_every_work_that_a_source_names_is_linked(name):
    source = re.search(r"(?m)^\*Source:\* (.*)$", cards(COMMITTED)[name])[1]
    left = re.sub(r"\[[^\]]*\]\([^)]*\)", "", source)
    assert not re.search(r"\(\d{4}|https?:", left), (
        f"{left!r}: not in references.bib, or the year is another"
    )


def test_every_file_that_it_links_to_exists():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", COMMITTED)
    assert len(targets) > 2 * len(experiments.names())
    for target in targets:
        assert (ROOT / "book" / target).is_file(), target


# ------------------------------------------------------------------------------ the generator


def declared(name, chapter="evidence/mnist", reason="a gain of -0.5 [-1, 2*3], 2e-05", passed=()):
    return Experiment(
        name=name,
        claim=f"The claim of {name} | a < b.",
        source="Ioffe & Szegedy (2015, section 3), https://arxiv.org/abs/1502.03167; Nobody (1900)",
        chapter=chapter,
        run=declared,
        data=None,
        config={"epochs": 1},
        grid=({},),
        verdict=lambda record: Verdict.of([*passed, *record["passed"]], reason),
        criterion="It is so.",
    )


@pytest.fixture
def made_up(monkeypatch):
    """Three experiments with a record and one without, and one whose chapter is not there."""
    found = {
        e.name: e
        for e in (
            declared("all"), declared("none_of_it"), declared("some", "layer/backward"),
            declared("not_run"), declared("homeless", "evidence/nowhere"),
        )
    }  # fmt: skip
    passed = {"all": [True], "none_of_it": [False], "some": [True, False], "homeless": [True]}
    monkeypatch.setattr(experiments, "names", lambda: list(found))
    monkeypatch.setattr(experiments, "get", found.get)
    monkeypatch.setattr(results, "names", lambda: sorted(passed))
    record = {"units": 6 * [{}], "seeds": [0, 1, 2]}
    monkeypatch.setattr(results, "load", lambda name: {**record, "passed": passed[name]})
    return passed


def test_a_verdict_is_what_the_criterion_makes_of_the_record(made_up):
    before = ledger.page(ROOT)
    card = cards(before)
    assert "**✓ holds**" in card["all"]
    assert "**◐ holds with a caveat**" in card["some"]
    assert "**✕ did not reproduce here**" in card["none_of_it"]
    assert "**… not yet recorded**" in card["not_run"]
    assert "6 runs with seeds 0 to 2, so far without seeds 3 to 4." in card["all"]
    assert "Measured" not in card["not_run"]
    assert "bn run" not in card["not_run"]
    assert "**2 hold**, **1 holds with a caveat** and **1 did not" in before
    assert "Not yet recorded: 1." in before
    made_up["all"] = [False]
    after = ledger.page(ROOT)
    assert "**✕ did not reproduce here**" in cards(after)["all"]
    assert "**1 holds**" in after


def test_claims_stand_under_their_chapters_in_the_order_of_the_book(made_up):
    text = ledger.page(ROOT)
    order = [
        "## Part II · The layer", "### [The backward pass](layer/backward.ipynb)", "claim-some",
        "## Part III · The evidence", "### [MNIST, with and without batch norm](evidence/mnist.ipynb)",
        "claim-all", "claim-none-of-it", "claim-not-run",
        "## Chapters to come", "### `evidence/nowhere`", "claim-homeless",
    ]  # fmt: skip
    places = [text.rindex(what) for what in order]
    assert places == sorted(places)


def test_text_is_shown_as_it_is_written(made_up):
    card = cards(ledger.page(ROOT))["none_of_it"]
    assert r"The claim of none\_of\_it \| a \< b." in card
    assert r"a gain of −0.5 \[−1, 2\*3\], 2·10⁻⁵." in card
    linked = "*Source:* [Ioffe & Szegedy (2015, section 3)](https://arxiv.org/abs/1502.03167); "
    assert f"{linked}Nobody (1900)." in card


def test_what_was_measured_in_many_parts_is_a_list():
    assert ledger._measured("one; two") == "*Measured:* one; two."
    assert ledger._measured("5%; two; three") == "*Measured:*\n\n- 5\u00a0%;\n- two;\n- three."


def test_works_are_found_by_author_and_year():
    works = ledger.works(ROOT / "book" / "references.bib")
    assert works["van Laarhoven", "2017"] == "https://arxiv.org/abs/1706.05350"
    assert works["Samuelson", "1968"] == "https://doi.org/10.1080/01621459.1968.10480944"
    assert ledger.cite("by Li & Arora (2020) and Li et al. (1066)", works) == (
        "by [Li & Arora (2020)](https://arxiv.org/abs/1910.07454) and Li et al. (1066)"
    )


def test_the_command_writes_the_page(tmp_path, monkeypatch):
    from livebook import __main__ as command

    shutil.copy(ROOT / "_toc.yml", tmp_path)
    (tmp_path / "book").mkdir()
    for path in (ROOT / "book").iterdir():
        if path.name != ledger.PAGE.name:
            (tmp_path / "book" / path.name).symlink_to(path)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["livebook", "ledger"])
    assert command.main() == 0
    assert (tmp_path / ledger.PAGE).read_text(encoding="utf-8") == ledger.page(ROOT)
