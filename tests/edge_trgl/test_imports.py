"""What is loaded where: every MiB that the training process imports is taken from the user's budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import edge_trgl",
        "import edge_trgl.cli.app, edge_trgl.pipeline.pipeline",
        "import sys\nfrom edge_trgl.cli.command import cli\ncli(['train', '--help'], standalone_mode=False)",
        "import sys\nfrom edge_trgl.cli.command import cli\ncli(['predict', '--help'], standalone_mode=False)",
    ],
)
def test_the_parent_is_light(statement):
    heavy = {"torch", "numpy", "torchvision", "onnx", "onnxruntime", "matplotlib", "PIL", "jinja2"}
    openssl = {"_hashlib"}  # 3 MiB
    assert not loaded_by(statement) & (heavy | openssl)


@pytest.mark.slow
def test_the_training_process_is_minimal():
    unwanted = {"torch._dynamo", "sympy", "torchvision", "onnx", "matplotlib", "PIL", "jinja2", "click"}
    loaded = loaded_by("import edge_trgl.jobs.train")
    assert not loaded & unwanted
    assert "numpy.random" in loaded  # what numpy would otherwise load under the guard


@pytest.mark.slow
def test_whole_runs_never_load_dynamo(plan_run):
    """One after the other, in one process."""
    options = (
        {"loss__name": "cross-entropy"},
        {"loss__name": "predsim"},
        {"loss__name": "infopro-contrast"},
        {"train__optimizer": "adamw"},
    )
    common = {"model__name": "km-2-2", "train__regime": "multi-lap", "train__laps": 2}
    folders = [str(plan_run(f"run{n}", **common, **more).folder) for n, more in enumerate(options)]
    code = (
        "from pathlib import Path\nfrom edge_trgl.run.folder import Run\n"
        "from edge_trgl.engine import training\nfrom edge_trgl.jobs import count, probe, train\n"
        "from edge_trgl.runtime.memory.limits import Limits\n"
        f"for folder in {folders!r}:\n    training.run(Run(Path(folder)), Limits(budget_mb=1e5))"
    )
    assert not loaded_by(code) & {"torch._dynamo", "sympy"}


def test_running_what_was_exported_loads_little():
    """Neither torch nor onnx nor random numbers; Pillow comes with the first image, onnxruntime with the file."""
    heavy = {"torch", "torchvision", "onnx", "onnxruntime", "matplotlib", "numpy.random", "PIL", "click"}
    assert not loaded_by("import edge_trgl.deploy, edge_trgl.deploy.answering, edge_trgl.deploy.bench") & heavy


def test_preparing_loads_no_torch():
    assert "torch" not in loaded_by("import edge_trgl.jobs.prepare")


def test_arrows_run_down():
    """The contracts of setup.cfg hold (import-linter)."""
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
