"""``import bn`` costs little and loads neither torch nor anything else that is heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "torch", "matplotlib", "sklearn", "scipy", "pandas", "anywidget", "ipywidgets", "joblib", "pooch", "tqdm"  # fmt: skip


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_bn_loads_nothing_heavy():
    loaded = python("import sys, bn; print(*sorted({m.split('.')[0] for m in sys.modules}))")
    assert not set(loaded.split()) & set(HEAVY)


def test_the_numpy_modules_load_nothing_heavy():
    loaded = python(
        "import sys, bn.functional, bn.chain; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    assert not set(loaded.split()) & set(HEAVY)


def test_import_bn_adds_few_modules_to_numpys():
    # A count, since a time would fail on a busy machine: numpy brings over a hundred.
    added = python(
        "import sys, numpy; n = len(sys.modules); import bn; print(len(sys.modules) - n)"
    )
    assert int(added) <= 5


def test_torch_comes_when_it_is_named():
    assert python("import sys, bn; bn.nn.BatchNorm1d(3); print('torch' in sys.modules)") == "True\n"


def test_an_unknown_name_is_an_attribute_error():
    assert "no attribute 'nope'" in python(
        "import bn\ntry: bn.nope\nexcept AttributeError as e: print(e)"
    )
