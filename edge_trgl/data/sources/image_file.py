"""One image file: its header and its pixels."""

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
_QUARTER_TURNS = (5, 6, 7, 8)
"""Values of the EXIF orientation that exchange height and width."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the header of a file says.

    Args:
        height, width: pixels, of the image as a viewer shows it.
        grey: whether it has no colours.
    """

    height: int
    width: int
    grey: bool


def read_header(path: str) -> ImageHeader:
    """Read the header of a file without decoding its pixels.

    Raises:
        InputError: the file is not an image that can be read.
    """
    with _open_image(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS:
            width, height = height, width
        return ImageHeader(height=height, width=width, grey=_is_grey(image))


def decode(path: str, *, size: tuple[int, int] | None, channels: int) -> NDArray[np.uint8]:
    """Decode a file, turned the way a viewer shows it.

    Args:
        path: a file of any format that Pillow opens; transparency is dropped, 16-bit grey is scaled to 8 bits.
        size: (H, W) to crop to the aspect ratio of, around the centre, and to resize to; None keeps the size.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 [H, W, channels].

    Raises:
        InputError: the file is not an image that can be read.
    """
    with _open_image(path) as image:
        upright = ImageOps.exif_transpose(_eight_bit(image)).convert("L" if channels == 1 else "RGB")
        if size is not None and upright.size != size[::-1]:
            upright = ImageOps.fit(upright, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(upright).reshape(upright.height, upright.width, channels)


@contextmanager
def _open_image(path: str) -> Iterator[Image.Image]:
    # The decoders of Pillow raise all of these on damaged files.
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
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip it to white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    scaled = Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8))
    scaled.info.update(image.info)
    return scaled
