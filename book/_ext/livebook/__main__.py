"""Work on the book: ``python -m livebook build | serve | execute NOTEBOOK… | ledger | colab FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import build, colab, execute

ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    parser = argparse.ArgumentParser(prog="livebook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the site into _build/html")
    serve = commands.add_parser("serve", help="serve the site, build it anew on every change")
    serve.add_argument("--port", type=int, default=8000)
    execute_parser = commands.add_parser("execute", help="execute notebooks, save them tidied")
    execute_parser.add_argument("notebooks", type=Path, nargs="+", metavar="NOTEBOOK")
    commands.add_parser("ledger", help="write the page of all claims from the records")
    colab_parser = commands.add_parser("colab", help="write the notebooks for Colab")
    colab_parser.add_argument(
        "folder", type=Path, help="a copy of the repository, changed in place"
    )
    colab_parser.add_argument("--repository", required=True, help="the repository's address")
    arguments = parser.parse_args()
    if arguments.command == "build":
        return build.build(ROOT)
    if arguments.command == "serve":
        return build.serve(ROOT, arguments.port)
    if arguments.command == "execute":
        for path in arguments.notebooks:
            execute.execute(path)
        return 0
    if arguments.command == "ledger":
        from . import ledger  # it needs all of bn, which takes seconds; no other command does

        ledger.write(ROOT)
        return 0
    colab.write(arguments.folder, arguments.repository)
    return 0


if __name__ == "__main__":
    sys.exit(main())
