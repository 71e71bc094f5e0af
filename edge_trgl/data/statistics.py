"""Mean and standard deviation of each channel, accumulated while images stream by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ChannelStatistics(Protocol):
    """Statistics of each channel over all images added so far."""

    def add(self, images: NDArray[Any]) -> None:
        """Add a batch [B, ..., C]."""

    def mean(self) -> tuple[float, ...]:
        """Return the mean of each channel."""

    def std(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel; 1 where all pixels are equal, to be safe to divide by."""


class ByteStatistics:
    """Statistics of uint8 images on a scale of 0–1; exact, and so independent of the batches."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums = [0] * channels
        self._squares = [0] * channels

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add a batch [B, ..., C]."""
        pixels = images.reshape(-1, images.shape[-1])
        self._count += len(pixels)
        for channel in range(pixels.shape[1]):
            values = pixels[:, channel]
            self._sums[channel] += int(values.sum(dtype=np.int64))
            # 255² fits 16 bits: exact squares take twice the memory of the batch, not eight times.
            self._squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))

    def mean(self) -> tuple[float, ...]:
        """Return the mean of each channel."""
        return tuple(total / (255 * self._count) for total in self._sums)

    def std(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel; 1 where all pixels are equal."""
        pairs = zip(self._sums, self._squares, strict=True)
        spreads = [self._count * square - total * total for total, square in pairs]
        return tuple(math.sqrt(spread) / (255 * self._count) or 1.0 for spread in spreads)


class FloatStatistics:
    """Statistics of float32 images in their own units.

    Batches are merged by the update of Chan, Golub and LeVeque (1979), which avoids cancellation.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._mean = np.zeros(channels)
        self._spread = np.zeros(channels)

    def add(self, images: NDArray[np.float32]) -> None:
        """Add a batch [B, ..., C]."""
        pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
        batch_mean = pixels.mean(axis=0)
        total = self._count + len(pixels)
        shift = batch_mean - self._mean
        self._spread += np.square(pixels - batch_mean).sum(axis=0)
        self._spread += np.square(shift) * (self._count * len(pixels) / total)
        self._mean += shift * (len(pixels) / total)
        self._count = total

    def mean(self) -> tuple[float, ...]:
        """Return the mean of each channel."""
        return tuple(self._mean.tolist())

    def std(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel; 1 where all pixels are equal."""
        return tuple(float(value) or 1.0 for value in np.sqrt(self._spread / self._count))


def channel_statistics(dtype: str, channels: int) -> ChannelStatistics:
    """Return the statistics for images of `dtype`, "uint8" or "float32"."""
    return ByteStatistics(channels) if dtype == "uint8" else FloatStatistics(channels)
