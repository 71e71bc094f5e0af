"""One image file: what it is, and its pixels."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_GREY = ("1", "L", "LA", "La")
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What a file's header says.

    Args:
        height, width: pixels, as a viewer shows it.
        grey: it has no colours.
    """

    height: int
    width: int
    grey: bool


def read_header(path: str) -> ImageHeader:
    """Look at a file without decoding it.

    Raises:
        InputError: it is not an image that can be read.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            width, height = height, width
        return ImageHeader(height=height, width=width, grey=_is_grey(image))


def decode(path: str, *, size: tuple[int, int] | None, channels: int) -> NDArray[np.uint8]:
    """The pixels of a file, turned as a viewer shows them.

    Args:
        path: any format that Pillow opens; transparency is dropped, 16-bit grey is scaled to 8.
        size: (H, W): cut what is too long to a centred part of this shape and resize it; None keeps the image.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 [H, W, channels].

    Raises:
        InputError: it is not an image that can be read.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(_eight_bit(image)).convert("L" if channels == 1 else "RGB")
        if size is not None and upright.size != size[::-1]:
            upright = ImageOps.fit(upright, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(upright).reshape(upright.height, upright.width, channels)


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    # Pillow's decoders raise all of these on damaged files, besides the errors of its own.
    try:
        with Image.open(path) as image:
            yield image
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        RuntimeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(
            f"{path} cannot be read as an image: {error}", hint="Mend it, or take it out of the folder."
        ) from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY or image.mode.startswith("I")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; Pillow's own conversion would clip it to white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    scaled = Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8))
    scaled.info.update(image.info)
    return scaled
