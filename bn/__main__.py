"""``python -m bn`` is the command ``bn``."""

from __future__ import annotations

import sys

from bn.cli import main

if __name__ == "__main__":
    sys.exit(main())
