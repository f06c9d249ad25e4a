"""Every notebook is committed as strict nbval needs it: executed, in order, nothing left over.

nbval runs a cell whose execution count is missing but compares nothing: a stripped notebook would
pass in silence. These tests close that gap; ``pytest --nbval`` (set in pyproject.toml) does the
rest.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from livebook.execute import CELL_METADATA, METADATA, WIDGET_VIEW, execute

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
NOT_RUN = {"skip-execution", "nbval-skip"}
MACHINE = re.compile(r"/home/\S*|/root/\S*|/tmp/\S*|0x[0-9a-f]{7,}")


def problems(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Say what keeps a notebook from being compared, or changes at every save."""
    if notebook.metadata != METADATA:
        yield f"metadata beyond {METADATA}: {dict(notebook.metadata)}"
    ids = [cell.id for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        yield "two cells have one id"
    if drawn := [name for name in ids if re.fullmatch(r"[0-9a-f]{8}", name)]:
        yield f"ids drawn at random change when a cell is made anew: {drawn}"
    expected = 1
    for cell in notebook.cells:
        if extra := set(cell.metadata) - CELL_METADATA:
            yield f"cell {cell.id}: metadata {sorted(extra)}"
        if cell.cell_type != "code":
            continue
        tags = set(cell.metadata.get("tags", []))
        if tags & NOT_RUN:
            if not tags >= NOT_RUN:
                yield f"cell {cell.id}: one of {sorted(NOT_RUN)} without the other"
            if cell.outputs:
                yield f"cell {cell.id}: is not run, but has outputs"
            continue
        if cell.execution_count is None:
            yield f"cell {cell.id}: was never executed, so nothing is compared"
        elif cell.execution_count != expected:
            yield f"cell {cell.id}: has count {cell.execution_count}, expected {expected}"
        expected += 1
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.id}: ends in {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {cell.id}: writes to stderr: {output.text[:80]!r}"
            if WIDGET_VIEW in output.get("data", {}):
                yield f"cell {cell.id}: names a widget of a kernel that is gone"
            shown = output.get("text") or str(output.get("data", {}).get("text/plain", ""))
            if found := MACHINE.search(shown):
                yield f"cell {cell.id}: its output is this machine's: {found[0]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_executed_and_clean(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert list(problems(notebook)) == []


def good() -> nbformat.NotebookNode:
    """Return a notebook without a problem."""
    cells = [nbformat.v4.new_markdown_cell("# Title"), *map(nbformat.v4.new_code_cell, "ab")]
    for count, cell in enumerate(cells):
        cell.id = f"cell-{count}"
        if count:
            cell.execution_count = count
    return nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))


def test_a_good_notebook_has_no_problem():
    assert list(problems(good())) == []


BREAKAGES = {
    "never executed": lambda nb: nb.cells[1].update(execution_count=None),
    "expected 1": lambda nb: nb.cells[1].update(execution_count=2),
    "expected 2": lambda nb: nb.cells[2].update(execution_count=7),
    "metadata beyond": lambda nb: nb.metadata.update(widgets={}),
    "metadata ['ExecuteTime']": lambda nb: nb.cells[1].metadata.update(ExecuteTime=1),
    "without the other": lambda nb: nb.cells[2].metadata.update(tags=["nbval-skip"]),
    "is not run, but": lambda nb: nb.cells[2].update(
        metadata={"tags": sorted(NOT_RUN)}, outputs=[nbformat.v4.new_output("stream", text="1")]
    ),
    "ends in ValueError": lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
    ),
    "writes to stderr": lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="warning")
    ),
    "two cells have": lambda nb: nb.cells[1].update(id=nb.cells[2].id),
    "drawn at random": lambda nb: nb.cells[1].update(id="0123abcd"),
    "kernel that is gone": lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("display_data", {WIDGET_VIEW: {"model_id": "1"}})
    ),
    "this machine's": lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("execute_result", {"text/plain": "<A object at 0x7f00000000>"})
    ),
}


@pytest.mark.parametrize("message", BREAKAGES)
def test_each_problem_is_found(message):
    notebook = good()
    BREAKAGES[message](notebook)
    assert any(message in problem for problem in problems(notebook)), list(problems(notebook))


def test_executing_leaves_a_notebook_without_a_problem(tmp_path):
    notebook = good()
    notebook.cells[1].source = "from ipywidgets import IntSlider\nIntSlider()"
    notebook.cells[2].source = "1 + 1"
    notebook.cells[2].execution_count = 9
    notebook.cells[2].metadata["collapsed"] = True
    notebook.metadata["widgets"] = {}
    path = tmp_path / "page.ipynb"
    nbformat.write(notebook, path)
    execute(path)
    after = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert list(problems(after)) == []
    assert "IntSlider" in after.cells[1].outputs[0].data["text/plain"]
    assert after.cells[2].outputs[0].data["text/plain"] == "2"


def test_nbval_compares_every_notebook(pytestconfig):
    """Lax mode, or a sanitising file, would let an output drift."""
    options = pytestconfig.getini("addopts")
    assert "--nbval" in options
    assert not [o for o in options if o.startswith(("--nbval-lax", "--nbval-sanitize"))]
