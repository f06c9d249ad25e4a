"""Files that are either whole or not there: atomic writes, and the state of a training run."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

__all__ = ["load", "save", "write"]


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file so that, whenever the process dies, the old one or the new one is there.

    Parameters
    ----------
    path : path
        Its folder is made if need be.
    content : bytes or str
        The whole content; text is written as UTF-8.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save(path: str | os.PathLike | None, model, optimizer, history: list[dict]) -> None:
    """Save a training run after an epoch; do nothing without a path."""
    if path is None:
        return
    import torch

    buffer = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "history": history}, buffer)
    write(path, buffer.getvalue())


def load(path: str | os.PathLike | None, model, optimizer) -> list[dict]:
    """Load a training run into its model and optimizer; return the epochs it has done.

    Returns
    -------
    list of dict
        Empty, and nothing is loaded, without a path or without a file.

    Raises
    ------
    ValueError
        The file is damaged, or is of another network.
    """
    if path is None or not Path(path).exists():
        return []
    import torch

    try:
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["history"]
    except Exception as error:  # torch raises half a dozen kinds
        raise ValueError(
            f"{path} cannot be resumed from: it is damaged, or of another network "
            f"({type(error).__name__}). Delete it to begin anew."
        ) from error
