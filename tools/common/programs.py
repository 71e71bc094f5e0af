"""Paths of the project, and command lines that start one tool from another."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "results"


def program(name: str, *arguments: str) -> list[str]:
    """The command line of `python -m tools.NAME ARGUMENTS` under this interpreter."""
    return [sys.executable, "-m", f"tools.{name}", *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which the tools can be imported, and `more`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}
