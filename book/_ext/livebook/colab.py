"""The notebooks as Colab needs them: each begins with a cell that sets Colab up.

Colab opens a notebook alone. The publishing workflow therefore pushes a branch whose notebooks
install ``bn`` and fetch the files that lie beside the chapter; the notebooks of the main branch
stay as they are read.
"""

from __future__ import annotations

from pathlib import Path

import nbformat

SETUP = """\
# Set up Colab: install bn and fetch the files beside this chapter (about a minute).
%pip install --quiet "bn[book] @ git+{repository}"
!git clone --quiet --depth 1 {repository} /content/course 2>/dev/null || git -C /content/course pull --quiet
%cd -q /content/course/{folder}"""


def with_setup(notebook: nbformat.NotebookNode, folder: str, repository: str) -> None:
    """Put the set-up cell in front of a notebook, in place."""
    cell = nbformat.v4.new_code_cell(SETUP.format(repository=repository, folder=folder))
    cell.id = "colab-setup"
    notebook.cells.insert(0, cell)


def write(root: Path, repository: str) -> list[Path]:
    """Change every notebook of a copy of the repository, in place; return their paths."""
    paths = sorted(
        path for path in (root / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    )
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if notebook.cells and notebook.cells[0].id == "colab-setup":
            continue
        with_setup(notebook, path.parent.relative_to(root).as_posix(), repository)
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
    return paths
