"""Runs scripts in fresh processes, to measure their memory: the suite's own process grows from test to test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def result_of(*arguments: str | Path, **environment: str) -> Any:
    """Run `python ARGUMENTS` and return the JSON that it prints; `environment` adds variables."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")])
    started = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, *arguments], env=started, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
