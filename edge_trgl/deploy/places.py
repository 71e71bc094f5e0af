"""Find the files of an exported network."""

from __future__ import annotations

from pathlib import Path

from edge_trgl.config.export_request import MODEL_FILE
from edge_trgl.deploy.manifest import MANIFEST
from edge_trgl.runtime.errors import UsageError, command

EXITS = ".exits"


def model_file(path: Path) -> Path:
    """Find the ONNX file that `path` stands for: itself, or model.onnx if it is a run's folder.

    Raises:
        UsageError: `path` is a folder without model.onnx.
    """
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file():
        raise UsageError(
            f"{path} has no {MODEL_FILE}",
            hint=f"If it is a run, write it: {command('export', path)}",
        )
    return path / MODEL_FILE


def is_exits_folder(path: Path) -> bool:
    """Whether `path` is a folder of stages, that is, holds a manifest."""
    return (path / MANIFEST).is_file()


def exits_folder(path: Path) -> Path:
    """Find the folder of stages that `path` stands for.

    That is `path` itself, the folder beside an ONNX file, or model.exits in a run's folder.

    Raises:
        UsageError: there is no such folder.
    """
    if is_exits_folder(path):
        return path
    folder = (path / MODEL_FILE if path.is_dir() else path).with_suffix(EXITS)
    if not is_exits_folder(folder):
        raise UsageError(
            f"there are no exits in {folder}: it has no {MANIFEST}",
            hint="Without --exits, the whole network is used for every file.",
        )
    return folder
