"""Random crops and flips of a batch, keyed so that a resumed run draws the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Augment:
    """Pads with zeros, crops at random to the same size, and mirrors images.

    Args:
        crop_padding: pixels of zeros added on each side before the crop; 0 does not crop.
        flip: mirror each image left to right with probability one half.

    Raises:
        UsageError: `crop_padding` is negative.
    """

    crop_padding: int
    flip: bool

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise UsageError(
                f"data.crop_padding is {self.crop_padding}; it must be 0 or more",
                hint="Give the number of pixels to pad on each side, for example 4.",
            )

    def draws(self, num_images: int, key: int) -> NDArray[np.int64]:
        """Draw a crop and a flip for each image of a batch.

        Args:
            num_images: B; a batch of another size draws other values.
            key: names the draw (`edge_trgl.random_keys.key`); equal keys and sizes give equal values.

        Returns:
            int64 [B, 3]: row and column of the padded image where the crop begins, and 1 for mirrored.
        """
        generator = np.random.Generator(np.random.PCG64(key))
        top, left = generator.integers(0, 2 * self.crop_padding + 1, size=(2, num_images))
        mirrored = generator.random(num_images) < 0.5
        return np.stack([top, left, mirrored & self.flip], axis=1)

    def apply(self, images: NDArray[Any], draws: NDArray[np.int64]) -> NDArray[Any]:
        """Crop and flip a batch.

        Args:
            images: uint8 or float32 [B, H, W, C]; any shape if there is neither crop nor flip. Not changed.
            draws: int64 [B, 3], one row for each image, as `draws` returns them.

        Returns:
            An array of the same dtype and shape; `images` itself if there is neither crop nor flip.
        """
        if self.crop_padding == 0 and not self.flip:
            return images
        _, height, width, _ = images.shape
        top, left, mirrored = draws[:, :1], draws[:, 1:2], draws[:, 2:]
        column = np.arange(width)
        rows: NDArray[np.int64] = top + np.arange(height)
        columns: NDArray[np.int64] = left + np.where(mirrored, width - 1 - column, column)
        index = np.arange(len(images))[:, None, None]
        return self._padded(images)[index, rows[:, :, None], columns[:, None, :]]

    def _padded(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.crop_padding == 0:
            return images
        edge = (self.crop_padding, self.crop_padding)
        return np.pad(images, ((0, 0), edge, edge, (0, 0)))
