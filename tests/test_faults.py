"""Every fault of ``faults.py`` can still be made: code that moved on takes its faults along."""

from __future__ import annotations

import pytest
from faults import FAULTS, ROOT


@pytest.mark.parametrize(
    "fault", [fault for fault, _ in FAULTS], ids=lambda f: f"{f.file}: {f.why}"
)
def test_fault_can_be_made(fault):
    source = (ROOT / fault.file).read_text(encoding="utf-8")
    assert source.count(fault.old) == 1
    compile(source.replace(fault.old, fault.new), fault.file, "exec")
