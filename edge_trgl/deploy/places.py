"""Where the files of an exported network lie."""

from __future__ import annotations

from pathlib import Path

from edge_trgl.config.export_request import MODEL_FILE
from edge_trgl.deploy.manifest import MANIFEST
from edge_trgl.runtime.errors import UsageError

EXITS = ".exits"


def model_file(path: Path) -> Path:
    """The ONNX file that is meant: `path`, or model.onnx in the folder of a run.

    Raises:
        UsageError: a folder has no such file.
    """
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file():
        raise UsageError(
            f"{path} has no {MODEL_FILE}", hint=f"`edge-trgl export {path}` writes it, if it is a run."
        )
    return path / MODEL_FILE


def is_exits_folder(path: Path) -> bool:
    """Whether `path` is itself a folder of stages, with their manifest."""
    return (path / MANIFEST).is_file()


def exits_folder(path: Path) -> Path:
    """The folder of stages that is meant: `path`, the one beside an ONNX file, or model.exits of a run.

    Raises:
        UsageError: there is none.
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
