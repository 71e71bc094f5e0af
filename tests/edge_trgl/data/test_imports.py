"""What importing the data package loads: every megabyte counts against the training budget."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "onnx", "matplotlib", "PIL")


def _loaded(code):
    """The modules of HEAVY that a fresh interpreter has loaded after `code`."""
    report = f"\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", ["", ".reader", ".augment", ".sampling", ".dataset"])
def test_the_parts_for_training_load_numpy_only(module):
    code = f"import edge_trgl.data{module}\nimport sys\nassert 'edge_trgl.data.sources' not in sys.modules"
    assert _loaded(code) == []


def test_preparing_arrays_loads_neither_torch_nor_pillow(tmp_path):
    code = (
        "from pathlib import Path\nfrom edge_trgl.data.prepare import prepare\n"
        f"prepare('sample', Path({str(tmp_path / 'data')!r}), seed=0, limit=20)"
    )
    assert _loaded(code) == []


def test_preparing_image_files_loads_pillow_but_no_torch(tmp_path, sets):
    sets.image_folder(tmp_path / "set", {"": sets.labelled(20, (4, 4, 3), 2)})
    code = (
        "from pathlib import Path\nfrom edge_trgl.data.prepare import prepare\n"
        f"prepare({str(tmp_path / 'set')!r}, Path({str(tmp_path / 'data')!r}), seed=0)"
    )
    assert _loaded(code) == ["PIL"]
