"""The file `model.exits/manifest.json`, which describes a network in stages, each ending in a classifier.

    {"format": "edge-trgl exits", "version": 1, "class_names": ["cat", "dog"],
     "stages": [{"file": "stage-1.onnx", "flops": 1200000, "threshold": 0.9},
                {"file": "stage-2.onnx", "flops": 5000000, "threshold": null}]}

A stage is an ONNX file in the same folder. The first takes the image or window; each of the others takes, by name,
the outputs of the one before except `logits`. `flops` counts one sample through the stage, classifier included.
`threshold`, from 0 to 1: the stage's answer is final if its largest probability reaches it; null for the last
stage, whose answer is always final.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_trgl.runtime.errors import InputError

MANIFEST = "manifest.json"
FORMAT = "edge-trgl exits"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a cascade.

    Args:
        file: name of the ONNX file in the manifest's folder.
        flops: FLOPs of one sample, classifier included; above 0.
        threshold: 0 to 1; None for the last stage.

    Raises:
        ValueError: a value is invalid.
    """

    file: str
    flops: int
    threshold: float | None

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or self.file in ("", "..") or Path(self.file).name != self.file:
            raise ValueError(f"the file of a stage is {self.file!r}, not a name in the same folder")
        if not isinstance(self.flops, int) or self.flops <= 0:
            raise ValueError(f"flops of {self.file} is {self.flops!r}, not a whole number above 0")
        if self.threshold is not None and not _is_probability(self.threshold):
            raise ValueError(f"threshold of {self.file} is {self.threshold!r}, not a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The class names and the stages of a cascade, in order.

    Raises:
        ValueError: there is no stage, an early stage has no threshold, or the last one has a threshold.
    """

    class_names: tuple[str, ...]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("it has no stages")
        if [stage.threshold is None for stage in self.stages] != [False] * (len(self.stages) - 1) + [True]:
            raise ValueError("every stage except the last needs a threshold, and the last must have none")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            InputError: it is missing, damaged, or has another version.
        """
        path = folder / MANIFEST
        try:
            return cls._parsed(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", hint="Export the exits again.") from error
        except ValueError as error:
            raise InputError(
                f"{path} is not a manifest of exits: {error}", hint="Export the exits again."
            ) from error

    @classmethod
    def _parsed(cls, document: Any) -> Manifest:
        fields = _fields(document, "the document", {"format", "version", "class_names", "stages"})
        file_format, version = fields["format"], fields["version"]
        if (file_format, version) != (FORMAT, VERSION):
            raise ValueError(f"it is {file_format!r}, version {version!r}, not {FORMAT!r}, version {VERSION}")
        names, stages = fields["class_names"], fields["stages"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names is not a list of names")
        if not isinstance(stages, list):
            raise ValueError("stages is not a list")
        return cls(
            class_names=tuple(names),
            stages=tuple(Stage(**_fields(stage, "a stage", {"file", "flops", "threshold"})) for stage in stages),
        )

    def with_threshold(self, threshold: float) -> Manifest:
        """Copy the manifest with `threshold`, 0 to 1, for all stages except the last."""
        *early, last = self.stages
        return replace(self, stages=(*(replace(stage, threshold=threshold) for stage in early), last))

    def document(self) -> dict[str, Any]:
        """The content of the JSON file."""
        stages = [
            {"file": stage.file, "flops": stage.flops, "threshold": stage.threshold} for stage in self.stages
        ]
        return {"format": FORMAT, "version": VERSION, "class_names": list(self.class_names), "stages": stages}


def _fields(value: Any, what: str, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        raise ValueError(f"{what} must have {', '.join(sorted(names))} and nothing else")
    return value


def _is_probability(value: Any) -> bool:
    # bool is a subclass of int, so JSON's true would pass as 1.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
