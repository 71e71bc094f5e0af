"""The machine that figures come from."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any


def machine(threads: int) -> dict[str, Any]:
    """What speeds and sizes depend on."""
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": version("torch"),
    }
