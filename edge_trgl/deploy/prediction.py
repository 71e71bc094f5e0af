"""Predictions: logits, and the probabilities and labels that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_trgl.config.data import Resize
from edge_trgl.deploy.providers import Provider
from edge_trgl.runtime.errors import InputError

CLASS_NAMES = "class_names"
SCALE, PIXELS = "scale", "255"
RESIZE = "resize"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for N samples.

    Args:
        logits: float32 [N, classes].
    """

    logits: NDArray[np.float32]

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """The softmax of the logits, float32 [N, classes]."""
        return softmax(self.logits)

    @cached_property
    def labels(self) -> NDArray[np.intp]:
        """The index of the class with the largest logit, integers [N]."""
        largest: NDArray[np.intp] = self.logits.argmax(axis=1)
        return largest


@dataclass(frozen=True, kw_only=True)
class EarlyPrediction(Prediction):
    """A prediction with early exit.

    Args:
        exits: the exit at which each sample left, counted from 1; int64 [N].
        compute_shares: FLOPs spent on each sample as a share of the whole network's; float64 [N].
    """

    exits: NDArray[np.int64]
    compute_shares: NDArray[np.float64]


class Classifier(Protocol):
    """A network that can predict the classes of samples.

    Attributes:
        class_names: empty if the file has none.
        input_shape: shape of one sample, (C, H, W) or (C, L).
        takes_pixels: whether inputs are pixel values from 0 to 255; else they are in the training data's units.
        resize: how an image of another size becomes an input.
        provider: the provider in use.
    """

    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    takes_pixels: bool
    resize: Resize
    provider: Provider

    def predict(self, images: ArrayLike) -> Prediction: ...


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the softmax over the last axis."""
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def as_batch(images: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Convert `images` to a float32 array [N, *shape] with N >= 1.

    Raises:
        ValueError: there is no sample, or the samples have another shape.
    """
    batch = np.asarray(images, np.float32)
    if batch.shape[1:] != shape or not len(batch):
        raise ValueError(f"the network takes [N, {', '.join(map(str, shape))}], not {list(batch.shape)}")
    return batch


def named_classes(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Read the class names from a file's metadata; empty if it has none.

    Raises:
        InputError: they are not a JSON list of strings.
    """
    try:
        names = json.loads(metadata.get(CLASS_NAMES, "[]"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"the {CLASS_NAMES} of {path} are not a JSON list of names", hint="Export it again.")
    return tuple(names)


def takes_pixels(metadata: Mapping[str, str]) -> bool:
    """Whether a file takes pixel values from 0 to 255; assumed if its metadata does not say."""
    return metadata.get(SCALE, PIXELS) == PIXELS


def resize_of(path: Path, metadata: Mapping[str, str]) -> Resize:
    """How images of another size were resized in training; "crop" if a file's metadata does not say.

    Raises:
        InputError: they name another way than these.
    """
    way = metadata.get(RESIZE, "crop")
    if way not in get_args(Resize):
        raise InputError(
            f"{path} says that images are resized by {way!r}, not by {', '.join(get_args(Resize))}",
            hint="Export it again.",
        )
    return cast("Resize", way)


def check_classes(path: Path, names: tuple[str, ...], logits: NDArray[np.float32]) -> None:
    """Check that the logits are [N, classes] with as many classes as there are names.

    Raises:
        InputError: they are not.
    """
    if logits.ndim != 2 or (names and logits.shape[1] != len(names)):
        raise InputError(
            f"{path} gives logits of shape {list(logits.shape)} but has names for {len(names)} classes",
            hint="Export it again.",
        )
