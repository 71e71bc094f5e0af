"""Run one check in its own process.

    python -m tools.cuda.one_check NAME JSON

JSON: the fields of a `Setting`. Prints one line of JSON: the check's result; for the name `machine`, what there is
to compute on.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tools.common.section import tell
from tools.cuda.checks import CHECKS, Result, Setting


def main() -> None:
    name, options = sys.argv[1], json.loads(sys.argv[2])
    if name == "machine":
        tell(machine())
        return
    setting = Setting(**{**options, "scratch": Path(options["scratch"])})
    module, _, function = CHECKS[name].function.partition(".")
    result: Result = getattr(importlib.import_module(f"tools.cuda.{module}"), function)(setting)
    tell(asdict(result))


def machine() -> dict[str, Any]:
    """The GPU, if there is one that torch can use, and what onnxruntime can compute with."""
    import torch

    found: dict[str, Any] = {"gpu": None, "cuda": torch.version.cuda, "providers": []}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    if find_spec("onnxruntime"):
        import onnxruntime

        found["providers"] = onnxruntime.get_available_providers()
    return found


if __name__ == "__main__":
    main()
