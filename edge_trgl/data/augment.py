"""Random crops and flips of one batch, keyed so that a resume draws them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Augment:
    """Zero-pad, crop at random to the same size, and mirror every second image on average.

    Args:
        crop_padding: pixels of zeros added on each side before the crop; 0 keeps the position.
        flip: mirror left to right with probability one half.
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
        """What each image of a batch draws: its shift, and whether it is mirrored.

        Args:
            num_images: B, on which every one of the draws depends.
            key: names the draw (`edge_trgl.random_keys.key`); equal keys give equal results.

        Returns:
            int64 [B, 3]: row and column of the padded image where the crop begins, and 1 for mirrored.
        """
        generator = np.random.Generator(np.random.PCG64(key))
        top, left = generator.integers(0, 2 * self.crop_padding + 1, size=(2, num_images))
        mirrored = generator.random(num_images) < 0.5
        return np.stack([top, left, mirrored & self.flip], axis=1)

    def apply(self, images: NDArray[Any], draws: NDArray[np.int64]) -> NDArray[Any]:
        """Augment a batch, each image as its own row of `draws` says.

        Args:
            images: uint8 or float32 [B, H, W, C], or of any shape where nothing is to be done; not changed.
            draws: int64 [B, 3], as `draws` gives them, in the order of the images.

        Returns:
            The same dtype and shape. `Augment(0, False)` returns `images` itself.
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
