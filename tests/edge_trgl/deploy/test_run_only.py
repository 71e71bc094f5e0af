"""The package edge-trgl-run on a board: exported files run, and what is missing for training is named."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.test_packaging import built, requirements


def closure(wanted):
    """The packages that come with `wanted`, which are installed here."""
    queue, seen = list(wanted), set()
    while queue:
        one = queue.pop()
        if one.name in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        seen.add(one.name)
        queue += map(Requirement, distribution(one.name).requires or [])
    return seen


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Runs `edge-trgl` where nothing is installed but the wheel of `run_only` and what comes with it."""
    folder = tmp_path_factory.mktemp("board")
    site = folder / "site"
    zipfile.ZipFile(built(folder, "run_only")).extractall(site)
    for name in closure(requirements("run_only").values()):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(installed.locate_file(top))

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        # -S: without the packages of the environment that runs the tests.
        command = [sys.executable, "-S", "-m", "edge_trgl", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    run.folder = folder
    return run


@pytest.mark.slow
def test_a_board_without_torch_runs_exported_files(board, tiny):
    tiny.classifier(board.folder / "model.onnx")
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(board.folder / "photo.png")
    predicted = board("predict", "model.onnx", "photo.png")
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith("photo.png")
    benched = board("bench", "model.onnx", "--runs", "2")
    assert benched.returncode == 0, benched.stderr
    assert "samples/s" in benched.stdout
    assert board("--help").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "purpose"), [("train", "training"), ("plan", "planning")])
def test_a_board_without_torch_says_what_training_needs(board, verb, purpose):
    refused = board(verb)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"edge-trgl: {purpose} needs torch, which is not installed here",
        "  pip install edge-trgl, or edge-trgl-run for predict and bench alone.",
    ]
