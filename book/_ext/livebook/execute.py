"""Execute a notebook from the top in a fresh kernel, and save it so that a diff shows what changed."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "jupyter", "mystnb"}
# Names a widget of a kernel that is gone: JupyterLab would show an error in place of the picture
# that stands beside it. Executing the notebook makes a new one.
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Keep only the metadata and outputs that mean the same tomorrow."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key in CELL_METADATA}
        )
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def execute(path: Path) -> None:
    """Execute the notebook at ``path`` in its own folder and save it in place, tidied.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed; the file stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        store_widget_state=False,
    ).execute()
    tidy(notebook)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
