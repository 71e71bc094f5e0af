"""Mean and standard deviation of each channel, gathered while images stream by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ChannelStatistics(Protocol):
    """Statistics per channel of all images added so far."""

    def add(self, images: NDArray[Any]) -> None:
        """Count in a batch [B, ..., C]."""

    def mean(self) -> tuple[float, ...]:
        """One value a channel."""

    def std(self) -> tuple[float, ...]:
        """One value a channel; 1 where all pixels are equal, so that dividing by it is harmless."""


class ByteStatistics:
    """Of uint8 images, on a scale of 0–1; exact, whatever the batches were."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums = [0] * channels
        self._squares = [0] * channels

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count in a batch [B, ..., C]."""
        pixels = images.reshape(-1, images.shape[-1])
        self._count += len(pixels)
        for channel in range(pixels.shape[1]):
            values = pixels[:, channel]
            self._sums[channel] += int(values.sum(dtype=np.int64))
            # 255² just fits 16 bits: an exact square at twice the batch's size, not eight times.
            self._squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))

    def mean(self) -> tuple[float, ...]:
        """One value a channel."""
        return tuple(total / (255 * self._count) for total in self._sums)

    def std(self) -> tuple[float, ...]:
        """One value a channel; 1 where all pixels are equal."""
        pairs = zip(self._sums, self._squares, strict=True)
        spreads = [self._count * square - total * total for total, square in pairs]
        return tuple(math.sqrt(spread) / (255 * self._count) or 1.0 for spread in spreads)


class FloatStatistics:
    """Of float32 images, in their own units; batches are merged by Chan's update, which does not cancel."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._mean = np.zeros(channels)
        self._spread = np.zeros(channels)

    def add(self, images: NDArray[np.float32]) -> None:
        """Count in a batch [B, ..., C]."""
        pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
        batch_mean = pixels.mean(axis=0)
        total = self._count + len(pixels)
        shift = batch_mean - self._mean
        self._spread += np.square(pixels - batch_mean).sum(axis=0)
        self._spread += np.square(shift) * (self._count * len(pixels) / total)
        self._mean += shift * (len(pixels) / total)
        self._count = total

    def mean(self) -> tuple[float, ...]:
        """One value a channel."""
        return tuple(self._mean.tolist())

    def std(self) -> tuple[float, ...]:
        """One value a channel; 1 where all pixels are equal."""
        return tuple(float(value) or 1.0 for value in np.sqrt(self._spread / self._count))


def channel_statistics(dtype: str, channels: int) -> ChannelStatistics:
    """The right kind for images of `dtype`."""
    return ByteStatistics(channels) if dtype == "uint8" else FloatStatistics(channels)
