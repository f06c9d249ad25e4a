"""The numbers in the book's prose are what the code computes; and the check that says so works.

Each page runs once, in this file: what else is to be seen while it runs is tested here too.
"""

from __future__ import annotations

import functools
import html.parser

import numpy as np
import prose
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn import exercises

# ------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("path", prose.pages(), ids=lambda p: p.name)
def test_bound_numbers_agree(path):
    failures = prose.check_page(path).failures
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("path", prose.chapters(), ids=lambda p: p.name)
def test_no_loose_numbers(path):
    loose = prose.check_page(path).loose
    assert not loose, "bind these, value<!--= expression -->:\n" + "\n".join(loose)


@pytest.mark.parametrize("path", prose.chapters(), ids=lambda p: p.name)
def test_a_chapter_binds_its_results(path):
    assert prose.check_page(path).checked >= 10


# ------------------------------------------------------- the exercises' cells, as they ran


@functools.cache
def checks() -> list[prose.Check]:
    return [c for p in prose.pages() if p.suffix == ".ipynb" for c in prose.check_page(p).verdicts]


@pytest.mark.parametrize("name", exercises.names())
def test_a_notebook_holds_a_stub_and_a_solution_that_passes(name):
    mine = [c for c in checks() if c.exercise == name]
    solutions = [c.verdict for c in mine if "solution" in c.tags]
    assert any(c.verdict.state == "not attempted" for c in mine if "solution" not in c.tags)
    assert solutions, "no cell tagged 'solution' checks it"
    assert all(verdict.state == "passes" for verdict in solutions), repr(solutions)


# --------------------------------------------------------------------------- reading numbers


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("0.9047", 0.9047, 1e-4),
        (".002", 0.002, 1e-3),
        ("−3", -3, 1),
        ("-1021.5", -1021.5, 0.1),
        ("+0.5", 0.5, 0.1),
        ("1,797", 1797, 1),
        ("1{,}797", 1797, 1),
        ("12 345.6".replace(" ", "\u202f"), 12345.6, 0.1),
        ("1.8e57", 1.8e57, 1e56),
        ("1e-5", 1e-5, 1e-5),
        (r"1.8\times 10^{57}", 1.8e57, 1e56),
        (r"-5.7 \times 10^6", -5.7e6, 1e5),
        ("1.8 × 10⁻⁵", 1.8e-5, 1e-6),
        ("10^{-5}", 1e-5, 1e-5),
        ("97.3 %", 97.3, 0.1),
        ("7", 7, 1),
    ],
)
def test_reads_a_number(text, value, unit):
    (number,) = prose.numbers(text)
    assert float(number.value) == pytest.approx(value, rel=1e-12)
    assert float(number.unit) == pytest.approx(unit, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"w_1 = 0.5", [0.5]),
        (r"w_{10} + x^{2} = 3", [3]),
        (r"\sigma^{-2} = 4", [4]),
        ("5-10", [5, 10]),
        ("28×28", [28, 28]),
        ("(1,3,2)", [1, 3, 2]),
        ("ŷ−0.5", [0.5]),
        ("BatchNorm2d and h5py", []),
        ("It is 0.5.", [0.5]),
    ],
)
def test_tells_numbers_from_their_surroundings(text, expected):
    assert [float(n.value) for n in prose.numbers(text)] == expected


@given(
    st.floats(-1e12, 1e12, allow_nan=False),
    st.integers(0, 8),
    st.sampled_from(["-", "−"]),
)
def test_a_printed_number_agrees_with_what_it_was_printed_from(value, digits, minus):
    text = f"{value:,.{digits}f}".replace("-", minus)
    (number,) = prose.numbers(text)
    assert number.agrees(value)
    assert not number.agrees(value + 1.5 * 10.0**-digits + abs(value) * 1e-9)


@given(st.floats(1e-200, 1e200), st.integers(0, 6))
def test_scientific_notation_agrees(value, digits):
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    for text in (f"{mantissa}e{exponent}", rf"{mantissa}\times 10^{{{int(exponent)}}}"):
        (number,) = prose.numbers(text)
        assert number.agrees(value)
        assert not number.agrees(value * (1 + 3 * 10.0**-digits))


@pytest.mark.parametrize("text", ["0.12", "0.13"])
def test_a_tie_may_round_either_way(text):
    (number,) = prose.numbers(text)
    assert number.agrees(0.125)


# ------------------------------------------------------------------------------ the bindings


NAMESPACE = {"np": np, "y": 0.90470123, "big": -1021.5, "v": np.array([-1.336, 0.5, 2.336])}


@pytest.mark.parametrize(
    "text",
    [
        "It gives 0.9047<!--= y --> here.",
        "It gives **0.9047**<!--= y --> here.",
        "It gives $-1021.5$<!--= big --> here.",
        r"It gives $\hat y_1 = -1.02\times 10^{3}$<!--= big -->.",
        "Close to 90 %<!--= 100 * y -->, and 90.5%<!--= 100 * y -->.",
        "The row $(-1.336, 0.5, 2.336)$<!--= v -->.",
        "| a | −1.336 | 0.5 | 2.336 <!--= v --> |",
        "One 0.90<!--= y --> and two 0.905<!--= y -->.",
        "$$\n-1.336 & 0.5 & 2.336 \\\\ % <!--= v -->\n$$",
        "An integer, 1,797<!--= 1797 -->.",
        "Written `0.3<!--= y -->` in code, it is not looked at.",
        "```\n0.3<!--= y -->\n```",
        "It is 0.9047… <!--= y --> for short, 0.904…<!--= y --> for shorter.",
        "$$\n\\sqrt{0.8} = 0.904\\ldots % <!--= y -->\n$$".replace("0.8", "2"),
        "<details>\n\nIt is 0.9<!--= y -->.\n\n</details>",
    ],
)
def test_right_numbers_pass(text):
    page = prose.check_text(text, NAMESPACE)
    assert not page.failures
    assert not page.loose


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It gives 0.9048<!--= y --> here.", "prints 0.9048, computed is 0.90470123"),
        ("It gives 0.9047<!--= -y --> here.", "computed is -0.90470123"),
        ("It gives $1021.5$<!--= big -->.", "prints 1021.5, computed is -1021.5"),
        ("It gives 1e3<!--= -big*2 -->.", "computed is 2043"),
        ("No number<!--= y --> here.", "no number directly before"),
        ("A 0.9047 too far away<!--= y -->.", "no number directly before"),
        ("$\\hat y$<!--= y -->", "no number directly before"),
        ("0.9<!--= y", None),
        ("0.9<!--= y + -->", "SyntaxError"),
        ("0.9<!--= nobody -->", "NameError"),
        ("0.9<!--= 'y' -->", "not a number"),
        ("0.9<!--= True -->", "not a number"),
        ("0.9<!--= float('nan') -->", "nan"),
        ("0.9<!--= 1/0 -->", "ZeroDivisionError"),
        ("0.9<!--= y --1 -->", "'--' ends"),
        ("Only 0.5, 2.336<!--= v -->.", "3 values for 2 numbers"),
        ("$(-1.336, 0.6, 2.336)$<!--= v -->", "prints 0.6, computed is 0.5"),
        ("0.905…<!--= y -->", "prints 0.905, computed is 0.9047"),
        ("1,798<!--= 1797 -->", "prints 1,798"),
    ],
)
def test_wrong_numbers_fail_in_words(text, words):
    page = prose.check_text(text, NAMESPACE)
    if words is None:  # an unfinished comment binds nothing, so that its number is loose
        assert page.loose
        return
    assert len(page.failures) == 1
    assert words in page.failures[0]
    assert "text.md" in page.failures[0]


@pytest.mark.parametrize(
    "text",
    [
        "Accuracy is 0.91 here.",
        "It falls to $-1021.5$.",
        "Here $\\hat y = 0.9$.",
        "About 97.3 % of them.",
        "A first 0.2, then 0.9<!--= y -->.",
        "$$\n\\hat y = 0.9\n$$",
        "$\\hat x = 0.9$",
        "$x = 0.9 \\cdot 2 = 1.8$",
        "$L = 0.25$",
        "$\\eta = 0.1$ gives $\\hat y_2 = 3.5$",
    ],
)
def test_loose_numbers_are_found(text):
    assert prose.check_text(text, NAMESPACE).loose


@pytest.mark.parametrize(
    "text",
    [
        "With $\\eta = 0.002$ and $w_i = 1.1$.",
        "$$\n\\gamma = (1.5,\\ 1,\\ 0.5), \\qquad \\beta = (0.5,\\ 0,\\ -0.5)\n$$",
        "In prose, η = 0.002 and w = 1.1.",
        "# Release 0.1",
        "See [version 2.5](https://example.org/1.5).",
        "Python 3.11 or newer, Section 8.7.1 and Fig. 1.2.",
        "Set `eps=0.1`.",
        "All 12 layers, 5 seeds.",
        "A constant, 0.1<!--= 0.1 -->.",
    ],
)
def test_what_is_not_a_result_is_left_alone(text):
    assert not prose.check_text(text, NAMESPACE).loose


def notebook(tmp_path, *cells):
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    make = {"md": new_markdown_cell, "py": new_code_cell}
    book = new_notebook(cells=[make[kind](text) for kind, text in cells])
    path = tmp_path / "drift.ipynb"
    nbformat.write(book, path)
    return path


def test_a_notebook_is_checked_at_the_point_of_each_cell(tmp_path):
    path = notebook(
        tmp_path,
        ("md", "Later we find 3.5<!--= b -->."),
        ("py", "a = 1.5"),
        ("md", "It is 1.5<!--= a -->."),
        ("py", "a = 2.5\nb = 3.5"),
        ("md", "It was 1.5<!--= a -->, now 2.5<!--= a -->."),
    )
    page = prose.check_page(path)
    assert page.checked == 4
    assert len(page.failures) == 1
    assert "drift.ipynb, cell 4" in page.failures[0]
    assert "prints 1.5, computed is 2.5" in page.failures[0]


def test_a_cell_that_fails_is_named(tmp_path):
    path = notebook(tmp_path, ("md", "0.5<!--= a -->"), ("py", "a = 0.5"), ("py", "b = 1\n1 / 0"))
    assert prose.check_page(path).failures == [
        "drift.ipynb, cell 2 fails: ZeroDivisionError: division by zero in: 1 / 0"
    ]


def test_a_notebook_runs_in_its_own_folder(tmp_path):
    (tmp_path / "beside.txt").write_text("0.25")
    path = notebook(
        tmp_path, ("py", "a = float(open('beside.txt').read())"), ("md", "0.25<!--= a -->")
    )
    assert not prose.check_page(path).failures


# -------------------------------------------------------------------- invisible to the reader


class _Visible(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.text = ""

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "text",
    [
        "It gives 0.9047<!--= computed(y < 3 and y > 0) --> here.",
        "It gives $-1021.5$<!--= computed --> here.",
        "| a |\n|---|\n| 0.9 <!--= computed --> |",
        "- 0.9<!--= computed -->",
    ],
)
def test_no_reader_sees_the_comment(text):
    """As MyST renders it, with the extensions the book uses."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    page = _Visible()
    page.feed(MarkdownIt("commonmark").enable("table").use(dollarmath_plugin).render(text))
    assert "<!--" not in page.text
    assert "computed" not in page.text
