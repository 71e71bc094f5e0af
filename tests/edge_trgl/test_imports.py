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


RUN = """
import sys
from edge_trgl.cli.app import main
from edge_trgl.pipeline import turns
from edge_trgl.runtime.errors import StoppedError, error_document

def run_job(call, listener):
    print("job", call.job)
    return turns.Ended(error=error_document(StoppedError("stopped")))

turns.run_job = run_job
sys.argv = ["edge-trgl", "train", "--run", "run", "--budget-mb", "100"]
try:
    main()
except SystemExit as end:
    print("ended with", end.code)
"""
"""A command whose first job is stopped."""


def test_what_stays_beside_the_jobs_is_small(tmp_path, monkeypatch):
    """Reading the command line, deciding and printing take up to 4 MiB each, and happen in other processes."""
    monkeypatch.chdir(tmp_path)
    loaded = loaded_by(RUN)
    libraries = {"click", "psutil", "sqlite3", "tomllib", "tomli_w", "xxhash", "hashlib", "numpy", "torch"}
    parts = {"ctypes", "difflib", "logging", "shutil", "subprocess", "threading", "traceback", "zlib"}
    assert not loaded & (libraries | parts)
    ours = {name for name in loaded if name.startswith("edge_trgl.")}
    rooms = {name.rpartition(".")[0] for name in ours} - {"edge_trgl"}
    assert "edge_trgl.pipeline.turns" in ours
    assert "edge_trgl.pipeline.dialogue" not in ours
    assert not ours & {"edge_trgl.run.facts", "edge_trgl.run.folder", "edge_trgl.config.sections"}
    assert not rooms & {"edge_trgl.jobs", "edge_trgl.runtime.planner", "edge_trgl.runtime.storage"}


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
