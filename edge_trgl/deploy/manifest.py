"""What `model.exits/manifest.json` says: a network in stages, each with a classifier where it may end.

    {"format": "edge-trgl exits", "version": 1, "class_names": ["cat", "dog"],
     "stages": [{"file": "stage-1.onnx", "flops": 1200000, "threshold": 0.9},
                {"file": "stage-2.onnx", "flops": 5000000, "threshold": null}]}

A stage is an ONNX file in the same folder. The first takes the image or window; each of the others takes, by name,
what the one before gives beside `logits`. `flops`: of one sample through the stage, classifier included.
`threshold`: the largest probability from which on the stage's answer counts, 0 to 1; null in the last one, whose
answer always does.
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
    """One file of a cascade.

    Args:
        file: its name in the folder.
        flops: of one sample, classifier included; above 0.
        threshold: 0 to 1, or None in the last stage.

    Raises:
        ValueError: one of them is something else.
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
    """The stages of a cascade, the first one first, and the names of its classes.

    Raises:
        ValueError: there is no stage, or not just the last one is without a threshold.
    """

    class_names: tuple[str, ...]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("it has no stages")
        if [stage.threshold is None for stage in self.stages] != [False] * (len(self.stages) - 1) + [True]:
            raise ValueError("every stage but the last needs a threshold, and the last has none")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            InputError: it is missing, damaged, or of another version.
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
        found = _fields(document, "the document", {"format", "version", "class_names", "stages"})
        if (found["format"], found["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {found['format']!r}, version {found['version']!r}, not {FORMAT!r}, {VERSION}")
        names, stages = found["class_names"], found["stages"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names is not a list of names")
        if not isinstance(stages, list):
            raise ValueError("stages is not a list")
        return cls(
            class_names=tuple(names),
            stages=tuple(Stage(**_fields(stage, "a stage", {"file", "flops", "threshold"})) for stage in stages),
        )

    def with_threshold(self, threshold: float) -> Manifest:
        """The same stages, all but the last with this threshold, 0 to 1."""
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
    # To Python, true is the number 1.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
