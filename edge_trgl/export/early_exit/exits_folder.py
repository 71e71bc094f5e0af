"""The folder of a network in stages. Its manifest names the current files, so replacing it replaces them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edge_trgl.deploy.manifest import MANIFEST, Manifest
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.runtime.storage import files


def spans_of(ends: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last module of each stage, counted from 1, from the stages' last modules."""
    return [(before + 1, end) for before, end in zip((0, *ends), ends, strict=False)]


def free_paths(folder: Path, count: int) -> list[Path]:
    """Paths for `count` new stages that no file in `folder` uses."""
    used = {path.name for path in files.list_folder(folder)}
    series = 1
    while True:
        letter = "" if series == 1 else f"-{series}"
        names = [f"stage-{number}{letter}.onnx" for number in range(1, count + 1)]
        if used.isdisjoint(names):
            return [folder / name for name in names]
        series += 1


def publish(stages: Sequence[ModelFiles], folder: Path, manifest: Manifest) -> None:
    """Rename the stages to their final names, write manifest.json, then remove all other files in `folder`.

    The manifest is replaced atomically, so an interruption leaves either the old stages or the new ones.

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
