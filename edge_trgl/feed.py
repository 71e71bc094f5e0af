"""Images as the first module reads them: records from disk, augmented, normalised, on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_trgl.data import Augment, DatasetInfo, RecordReader, epoch_order
from edge_trgl.keys import key
from edge_trgl.schedule import Span


class Feed:
    """One split of a prepared data set as batches of a span.

    `device`: where the tensors go. `augment` applies to spans that ask for it.
    """

    def __init__(
        self,
        folder: Path,
        info: DatasetInfo,
        split: str,
        *,
        augment: Augment,
        batch_size: int,
        seed: int,
        device: str,
    ) -> None:
        self._reader = RecordReader(folder, split, info)
        self._augment = augment
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._scale = info.scale
        self._mean = torch.tensor(info.mean, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
        self._std = torch.tensor(info.std, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
        self._labels = torch.from_numpy(self._reader.labels)
        self._order: tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = (
            -1,
            np.arange(len(self._reader)),
        )

    def __len__(self) -> int:
        return len(self._reader)

    def samples(self, span: Span, batch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The sample numbers, int64 [B], of one batch of `span`; only the last of a pass may be short."""
        start = batch * self._batch_size
        if not span.shuffled:
            return np.arange(start, min(start + self._batch_size, len(self)), dtype=np.int64)
        if self._order[0] != span.epoch:
            self._order = (span.epoch, epoch_order(len(self), self._seed, span.epoch))
        return self._order[1][start : start + self._batch_size]

    def labels(self, samples: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """int64 [B]."""
        return self._labels[torch.from_numpy(samples)].to(self._device)

    def to_device(self, values: Tensor) -> Tensor:
        """Boundary values, where the modules are. Nothing computes in float16: it is for storage, and widened."""
        return values.to(self._device, torch.float32 if values.dtype == torch.float16 else values.dtype)

    def images(self, span: Span, batch: int, samples: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """float32 [B, C, H, W], channels-last, normalised, and augmented if the span says so."""
        pixels = self._reader.read(samples)
        if span.augmented:
            order = "shuffled" if span.shuffled else "plain"
            pixels = self._augment.apply(pixels, key(self._seed, "augment", order, span.epoch, batch))
        images = torch.from_numpy(pixels).to(self._device, torch.float32, copy=True).permute(0, 3, 1, 2)
        return images.div_(self._scale).sub_(self._mean).div_(self._std)

    def pixels(self, samples: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """float32 [B, C, H, W] on the CPU, as stored: neither augmented nor normalised."""
        return torch.from_numpy(self._reader.read(samples)).to(torch.float32, copy=True).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
