"""Date, commit and machine of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from tools.common.programs import ROOT


def origin(threads: int) -> dict[str, Any]:
    """What every document of results begins with: the date, and the machine."""
    return {"date": today(), "machine": machine(threads)}


def today() -> str:
    """The date, UTC, as 2026-11-30."""
    return datetime.now(timezone.utc).date().isoformat()


def machine(threads: int) -> dict[str, Any]:
    """What speeds and sizes depend on, with the version that was measured."""
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": version("torch"),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit that is measured, with a `+` where files differ from it; None where git knows of none."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
