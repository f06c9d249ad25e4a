"""Links to the repository and to Colab, shown only if the repository is known.

It is known from ``BN_REPOSITORY`` (a full address) or, inside a GitHub workflow, from where the
workflow runs. It stands nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sphinx.application import Sphinx
from sphinx.config import Config

BRANCH = "colab"  # the notebooks of this branch begin with a set-up cell: see colab.py


def address(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the repository's address, or None.

    Examples
    --------
    >>> address({"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "ada/bn"})
    'https://github.com/ada/bn'
    >>> address({"BN_REPOSITORY": "https://git.example/ada/bn/"})
    'https://git.example/ada/bn'
    >>> address({})
    """
    if explicit := environ.get("BN_REPOSITORY"):
        return explicit.rstrip("/")
    if "GITHUB_REPOSITORY" in environ:
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{environ['GITHUB_REPOSITORY']}"
    return None


def set_buttons(app: Sphinx, config: Config) -> None:
    """Switch the theme's buttons on or off."""
    options = config.html_theme_options
    url = address()
    options["use_repository_button"] = url is not None
    options["repository_url"] = url or ""
    options["repository_branch"] = BRANCH
    on_github = url is not None and url.startswith("https://github.com/")
    options["launch_buttons"] = (
        {"colab_url": "https://colab.research.google.com"} if on_github else {}
    )


def setup(app: Sphinx) -> None:
    app.connect("config-inited", set_buttons)
