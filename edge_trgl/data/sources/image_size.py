"""Which size the images of a folder get, and how they are resized to it, where the user does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.source import MAX_IMAGE_BYTES
from edge_trgl.run.data_summary import Sizes
from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_trgl.config.data import AskedResize, Resize
    from edge_trgl.run.data_summary import SizeFrom

LARGEST_SIDE = 224
"""Pixels: what most networks were made for. More is chosen by the user, who has the memory for it."""

MILD = 4 / 3
"""Images whose sides differ by no more than this lose little when they are squashed to a square."""

MILD_SHARE = 0.9
"""The share of the images that must be of such proportions."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What becomes of the images of a folder.

    Args:
        size: (H, W) that every image gets.
        resize: how.
        size_from: where the size comes from.
    """

    size: tuple[int, int]
    resize: Resize
    size_from: SizeFrom


def choose_fitting(
    sizes: NDArray[np.int64], *, image_size: int | None, resize: AskedResize | None, channels: int
) -> Fitting:
    """Choose the size and the way to it.

    Images that have one size keep it if its shorter side is at most 224 pixels, or on request. Others become
    squares: their side is the median of the shorter sides, rounded, and at most 224 pixels.

    Args:
        sizes: int64 [N, 2], height and width of each image, with N >= 1.
        image_size: the side in pixels that the user wants; None to choose.
        resize: the way that the user wants; None to choose.
        channels: of every image.

    Raises:
        UsageError: the images are to keep their size, and have several or are too large.
    """
    height, width = sizes[0].tolist()
    of_one_size = bool((sizes == sizes[0]).all())
    if resize == "none":
        _check_kept(sizes_of(sizes), channels)
        return Fitting(size=(height, width), resize="crop", size_from="files")
    if of_one_size and image_size is None and min(height, width) <= LARGEST_SIDE:
        return Fitting(size=(height, width), resize=resize or "crop", size_from="files")
    side = _side(float(np.median(sizes.min(axis=1)))) if image_size is None else image_size
    way = resize or ("squash" if _are_mild(sizes) else "pad")
    return Fitting(size=(side, side), resize=way, size_from="choice" if image_size is None else "option")


def _check_kept(sizes: Sizes, channels: int) -> None:
    if sizes.distinct > 1:
        raise UsageError(
            f"--resize none keeps the size of the photos, but they have {sizes.distinct} sizes",
            hint="Leave it out, or give crop, squash or pad.",
        )
    if math.prod(sizes.largest) * channels > MAX_IMAGE_BYTES:
        raise UsageError(
            f"--resize none keeps the size of the photos, but one may take {MAX_IMAGE_BYTES} bytes at most",
            hint="Leave it out, or give --image-size N.",
        )


def sizes_of(sizes: NDArray[np.int64]) -> Sizes:
    """Describe int64 [N, 2] sizes, N >= 1."""
    pixels = sizes.prod(axis=1)
    return Sizes(
        smallest=_as_size(sizes[pixels.argmin()]),
        median=_as_size(np.median(sizes, axis=0)),
        largest=_as_size(sizes[pixels.argmax()]),
        distinct=len(np.unique(sizes, axis=0)),
    )


def _side(median: float) -> int:
    """Round to what divides well: a network halves its maps several times."""
    multiple = 32 if median >= 64 else 8
    return min(max(multiple, round(median / multiple) * multiple), LARGEST_SIDE)


def _are_mild(sizes: NDArray[np.int64]) -> bool:
    proportions = sizes.max(axis=1) / sizes.min(axis=1)
    return float((proportions <= MILD).mean()) >= MILD_SHARE


def _as_size(size: NDArray[np.int64] | NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(side) for side in size)
