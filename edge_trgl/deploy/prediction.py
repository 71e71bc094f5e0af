"""What a network says of samples: scores, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_trgl.deploy.providers import Provider
from edge_trgl.runtime.errors import InputError

CLASS_NAMES = "class_names"
SCALE, PIXELS = "scale", "255"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """`logits`: float32 [N, classes]."""

    logits: NDArray[np.float32]

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [N, classes]: the softmax of the logits."""
        return softmax(self.logits)

    @cached_property
    def labels(self) -> NDArray[np.intp]:
        """Integers [N]: the class with the largest logit."""
        found: NDArray[np.intp] = self.logits.argmax(axis=1)
        return found


@dataclass(frozen=True, kw_only=True)
class EarlyPrediction(Prediction):
    """A prediction that may have come before the end of the network.

    Args:
        exits: int64 [N]: the exit that each sample left by, from 1.
        compute_shares: float64 [N]: what was computed for it, as a share of the whole network's FLOPs.
    """

    exits: NDArray[np.int64]
    compute_shares: NDArray[np.float64]


class Classifier(Protocol):
    """What takes samples and gives predictions.

    `class_names` is empty where the file names none; `input_shape` is that of a sample, (C, H, W) or (C, L);
    `takes_pixels`: from 0 to 255, and not values in units of the training data's own.
    """

    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    takes_pixels: bool
    provider: Provider

    def predict(self, images: ArrayLike) -> Prediction: ...


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def as_batch(images: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 [N, *shape].

    Raises:
        ValueError: they are none, or of another shape.
    """
    batch = np.asarray(images, np.float32)
    if batch.shape[1:] != shape or not len(batch):
        raise ValueError(f"the network takes [N, {', '.join(map(str, shape))}], not {list(batch.shape)}")
    return batch


def named_classes(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The class names that a file brings along; none where it has none.

    Raises:
        InputError: they are not a JSON list of texts.
    """
    try:
        names = json.loads(metadata.get(CLASS_NAMES, "[]"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"the {CLASS_NAMES} of {path} are not a JSON list of names", hint="Export it again.")
    return tuple(names)


def takes_pixels(metadata: Mapping[str, str]) -> bool:
    """Whether a file says that its images go from 0 to 255; one that says nothing does."""
    return metadata.get(SCALE, PIXELS) == PIXELS


def check_classes(path: Path, names: tuple[str, ...], logits: NDArray[np.float32]) -> None:
    """Raise InputError where the logits are not [N, classes], of the classes that are named."""
    if logits.ndim != 2 or (names and logits.shape[1] != len(names)):
        raise InputError(
            f"{path} gives {list(logits.shape)} values and names {len(names)} classes", hint="Export it again."
        )
