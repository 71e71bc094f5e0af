"""Tools as modules and as programs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    """Imports a module of tools by its name in there: "bench.regimes"."""
    return lambda name: importlib.import_module(f"tools.{name}")


@pytest.fixture
def run_tool():
    """Runs `python -m tools.NAME` with more of an environment; whatever it prints is kept."""

    def run(name, *arguments, cwd, **environment):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", f"tools.{name}", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def seen(tool, monkeypatch, tmp_path):
    """What a watched program runs to wait until it was seen: a file stands for each time, and goes once it was."""
    processes = tool("common.processes")
    sample = processes.Marks.sample

    def sampled(marks):
        waiting = list(tmp_path.glob("waits*"))
        marks.look()
        alive = sample(marks)
        for file in waiting:
            file.unlink()
        return alive

    monkeypatch.setattr(processes.Marks, "sample", sampled)
    return (
        "import os, pathlib, subprocess, sys, time\n"
        "def wait(number=0):\n"
        f"    file = pathlib.Path({str(tmp_path)!r}, f'waits-{{os.getpid()}}-{{number}}')\n"
        "    file.touch()\n"
        "    while file.exists(): time.sleep(0.01)\n"
    )
