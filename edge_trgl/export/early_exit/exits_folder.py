"""The folder of a network in stages: its files change all at once, with the manifest that names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edge_trgl.deploy.manifest import MANIFEST, Manifest
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.runtime.storage import files


def spans_of(ends: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last module, from 1, of each stage."""
    return [(before + 1, end) for before, end in zip((0, *ends), ends, strict=False)]


def free_paths(folder: Path, count: int) -> list[Path]:
    """Where `count` stages can be published without touching those that are."""
    used = {path.name for path in files.list_folder(folder)}
    series = 1
    while True:
        letter = "" if series == 1 else f"-{series}"
        names = [f"stage-{number}{letter}.onnx" for number in range(1, count + 1)]
        if used.isdisjoint(names):
            return [folder / name for name in names]
        series += 1


def publish(stages: Sequence[ModelFiles], folder: Path, manifest: Manifest) -> None:
    """Give the stages their names, then name them in manifest.json, then remove what else is in `folder`.

    An interruption leaves the old stages or the new ones: the manifest is renamed, and says which.

    Raises:
        StorageError: the disk is full or fails.
    """
    for stage in stages:
        onnx_file.publish(stage)
    path_of_manifest = folder / MANIFEST
    files.write_durable(path_of_manifest, [json.dumps(manifest.document(), indent=2).encode() + b"\n"])
    paths = (path for stage in stages for path in (stage.model, stage.data) if path is not None)
    named = {path_of_manifest, *paths}
    for path in files.list_folder(folder):
        if path not in named:
            files.remove(path)
