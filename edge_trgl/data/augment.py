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

    def apply(self, images: NDArray[Any], key: int) -> NDArray[Any]:
        """Augment a batch; each image draws its own shift and flip.

        Args:
            images: uint8 or float32 [B, H, W, C]; not changed.
            key: names the draw (`edge_trgl.keys.key`); equal keys give equal results.

        Returns:
            The same dtype and shape. `Augment(0, False)` returns `images` itself.
        """
        if self.crop_padding == 0 and not self.flip:
            return images
        num_images, height, width, _ = images.shape
        rows, columns = self._positions(num_images, height, width, key)
        index = np.arange(num_images)[:, None, None]
        return self._padded(images)[index, rows[:, :, None], columns[:, None, :]]

    def _positions(
        self, num_images: int, height: int, width: int, key: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows [B, H] and columns [B, W] of the padded image that each output pixel takes."""
        generator = np.random.Generator(np.random.PCG64(key))
        top, left = generator.integers(0, 2 * self.crop_padding + 1, size=(2, num_images, 1))
        mirrored = generator.random((num_images, 1)) < 0.5
        column = np.broadcast_to(np.arange(width), (num_images, width))
        if self.flip:
            column = np.where(mirrored, width - 1 - column, column)
        return top + np.arange(height), left + column

    def _padded(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.crop_padding == 0:
            return images
        edge = (self.crop_padding, self.crop_padding)
        return np.pad(images, ((0, 0), edge, edge, (0, 0)))
