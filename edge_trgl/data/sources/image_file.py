"""One image file: its header and its pixels. Training and `predict` read images here, and so see the same."""

from __future__ import annotations

import math
import struct
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge_trgl.config.data import Resize

ENDINGS = (
    *(".apng", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".psd", ".tga", ".tif", ".tiff", ".webp"),
)
"""Endings of names that promise an image which Pillow can read: what it cannot is damaged."""

UNSUPPORTED = (".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".orf", ".raf", ".svg")
"""Endings of images that Pillow may not read."""

_GREY = ("1", "L", "LA", "La")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation; from 5 on height and width are exchanged."""

_REDUCING_GAP = 2
"""A JPEG is decoded at this many times the wanted size or more: what is left to the filter hides the reduction."""


class UnreadableImageError(InputError):
    """A file cannot be read as an image.

    Args:
        path: of the file.
        reason: a phrase.
        is_image: whether it is an image, damaged or of an unsupported format; if not, it is another kind of file.
    """

    def __init__(self, path: str, reason: str, *, is_image: bool = True) -> None:
        super().__init__(
            f"{path} cannot be read as an image: {reason}", hint="Mend it, or take it out of the folder."
        )
        self.reason = reason
        self.is_image = is_image


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
        UnreadableImageError: the file is not an image that can be read.
    """
    with _open_image(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        return ImageHeader(height=height, width=width, grey=_is_grey(image))


def decode(
    path: str, *, size: tuple[int, int] | None, channels: int, resize: Resize = "crop"
) -> NDArray[np.uint8]:
    """Decode a file, turned the way a viewer shows it.

    Args:
        path: a file of any format that Pillow opens; transparency is dropped, 16-bit grey is scaled to 8 bits.
        size: (H, W) to resize to; None keeps the size. A JPEG much larger than that is decoded at a half, a
            quarter or an eighth of its size.
        channels: 1 for grey, 3 for RGB.
        resize: how an image of other proportions gets those of `size`. "crop" cuts off what is too long, "squash"
            stretches it, "pad" adds black on both sides.

    Returns:
        uint8 [H, W, channels].

    Raises:
        UnreadableImageError: the file is not an image that can be read.
    """
    with _open_image(path) as image:
        orientation = _orientation(image)
        if size is not None:
            _reduce(image, size, resize, turned=orientation >= 5)
        upright = _eight_bit(image)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        upright = upright.convert("L" if channels == 1 else "RGB")
        if size is not None and upright.size != size[::-1]:
            upright = _resized(upright, size[::-1], resize)
        return np.asarray(upright).reshape(upright.height, upright.width, channels)


def _reduce(image: Image.Image, size: tuple[int, int], resize: Resize, *, turned: bool) -> None:
    """Let the decoder of JPEG reduce an image that is much larger than wanted: less time and memory."""
    height, width = size
    if turned:
        height, width = width, height
    factors = width / image.width, height / image.height
    if resize != "squash":
        factors = (max(factors),) * 2 if resize == "crop" else (min(factors),) * 2
    wanted = tuple(
        math.ceil(_REDUCING_GAP * side * factor) for side, factor in zip(image.size, factors, strict=True)
    )
    image.draft(image.mode, (wanted[0], wanted[1]))


def _resized(image: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    """Resize to `size`, (W, H); Pillow's bilinear filter averages over all pixels that become one."""
    if resize == "squash":
        return image.resize(size, Image.Resampling.BILINEAR)
    if resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


@contextmanager
def _open_image(path: str) -> Iterator[Image.Image]:
    if not Path(path).is_file():  # opening a pipe would wait for its writer
        raise UnreadableImageError(path, "it is not a file", is_image=_promises_image(path))
    # The decoders of Pillow raise all of these on damaged files.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's opinion of metadata
            # It warns above 89 megapixels and refuses twice as many; a board lacks memory even for the former.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except UnidentifiedImageError as error:
        raise _unidentified(path) from error
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
        Image.DecompressionBombWarning,
    ) as error:
        raise UnreadableImageError(path, str(error) or type(error).__name__) from error


def _unidentified(path: str) -> UnreadableImageError:
    ending = Path(path).suffix.lower()
    if ending in UNSUPPORTED:
        return UnreadableImageError(path, f"{ending[1:].upper()} is not supported; convert it to JPEG or PNG")
    empty = Path(path).stat().st_size == 0
    return UnreadableImageError(
        path,
        "it is empty" if empty else "its beginning is not that of an image",
        is_image=_promises_image(path),
    )


def _promises_image(path: str) -> bool:
    ending = Path(path).suffix.lower()
    return ending in ENDINGS or ending in UNSUPPORTED


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, from 1 (upright) to 8.

    The method of the base class reads what stands before the pixels; that of PNG would decode them to look behind.
    """
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # damaged metadata say nothing of the pixels
    return value if isinstance(value, int) and value in _TURNS else 1


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY or image.mode.startswith("I")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip it to white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8))
