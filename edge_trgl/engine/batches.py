"""Batches of images or windows for the first module: read from disk, augmented, normalised, on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # numpy loads it when first used: in training, under the guard
import torch
from torch import Tensor

from edge_trgl.data import Augment, DatasetInfo, RecordReader, epoch_order, stored_order, windowed_order
from edge_trgl.engine.visits import Span
from edge_trgl.random_keys import key

Samples = np.ndarray[tuple[int], np.dtype[np.int64]]


class Feed:
    """Reads one split of a prepared data set, batch by batch.

    Args:
        folder: the prepared data set.
        info: its description.
        split: train, val or test.
        augment: applied in spans whose `augmented` is set.
        batch_size: samples in a full batch.
        seed: the run's random seed.
        device: where the tensors go.
        chunk_of: records in a chunk of the cached boundary that enters a module; samples are shuffled only within
            windows of such chunks. Needed for spans whose `source` is a module.
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
        chunk_of: Callable[[int], int] | None = None,
    ) -> None:
        self._reader = RecordReader(folder, split, info)
        self._augment = augment
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._scale = info.scale
        channels = (1, -1, *[1] * len(info.input_shape[1:]))
        self._mean = torch.tensor(info.mean, dtype=torch.float32, device=device).reshape(channels)
        self._std = torch.tensor(info.std, dtype=torch.float32, device=device).reshape(channels)
        self._labels = torch.from_numpy(self._reader.labels)
        self._chunk_of = chunk_of
        count = len(self._reader)
        # Only training samples are ever stored in boundaries that outlive a pass.
        self._stored = stored_order(count, seed) if split == "train" else np.arange(count, dtype=np.int64)
        self._places = np.argsort(self._stored)
        self._order: tuple[tuple[int, int], Samples] = ((-1, 0), self._stored)

    def __len__(self) -> int:
        return len(self._reader)

    def samples(self, span: Span, batch: int) -> Samples:
        """Return the sample numbers of one batch of `span`, int64 [B]; only a pass's last batch may be short."""
        start = batch * self._batch_size
        return self._order_of(span)[start : start + self._batch_size]

    def upcoming(self, span: Span, batch: int, count: int) -> Samples:
        """Return at most `count` sample numbers, int64 [N], that follow a batch of `span` within its pass."""
        start = (batch + 1) * self._batch_size
        return self._order_of(span)[start : start + count]

    def _order_of(self, span: Span) -> Samples:
        if not span.shuffled:
            return self._stored
        if self._order[0] != (span.epoch, span.source):
            self._order = ((span.epoch, span.source), self._shuffled(span))
        return self._order[1]

    def _shuffled(self, span: Span) -> Samples:
        if not span.source:
            return epoch_order(len(self), self._seed, span.epoch)
        assert self._chunk_of is not None, "this feed knows no boundaries"
        return windowed_order(len(self), self._seed, span.epoch, self._chunk_of(span.source))

    def labels(self, samples: Samples) -> Tensor:
        """Return the labels of `samples`, int64 [B], on the device."""
        return self._labels[torch.from_numpy(samples)].to(self._device)

    def to_device(self, values: Tensor) -> Tensor:
        """Move boundary values to the device.

        Float16 is a storage format only, so it becomes float32; other dtypes are kept.
        """
        return values.to(self._device, torch.float32 if values.dtype == torch.float16 else values.dtype)

    def images(self, span: Span, batch: int, samples: Samples) -> Tensor:
        """Return normalised samples, float32: images [B, C, H, W] in channels-last memory, or windows [B, C, L].

        They are augmented if the span says so.
        """
        return self.unnormalised(span, batch, samples).sub_(self._mean).div_(self._std)

    def unnormalised(self, span: Span, batch: int, samples: Samples) -> Tensor:
        """Return the samples of `images` before normalisation: bytes scaled to [0, 1], floats unchanged.

        In a span that is not shuffled, `samples` may be any samples in any order: each is augmented as in its own
        batch of that span.
        """
        pixels = self._reader.read(samples)
        if span.augmented:
            pixels = self._augment.apply(pixels, self._draws(span, batch, samples))
        return _channels_first(pixels, self._device).div_(self._scale)

    def _draws(self, span: Span, batch: int, samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Return the random draws, int64 [B, 3], that augment `samples` in `span`."""
        if span.shuffled:
            return self._augment.draws(len(samples), key(self._seed, "augment", "shuffled", span.epoch, batch))
        batches, places = np.divmod(self._places[samples], self._batch_size)
        draws = np.empty((len(samples), 3), np.int64)
        for number in np.unique(batches).tolist():
            size = min(self._batch_size, len(self) - number * self._batch_size)
            drawn = self._augment.draws(size, key(self._seed, "augment", "plain", span.epoch, number))
            draws[batches == number] = drawn[places[batches == number]]
        return draws

    def pixels(self, samples: Samples) -> Tensor:
        """Return the stored values, not augmented or normalised: float32 [B, C, H, W] or [B, C, L], on the CPU."""
        return _channels_first(self._reader.read(samples), "cpu")

    def close(self) -> None:
        """Close the record files."""
        self._reader.close()


def _channels_first(records: np.ndarray[Any, Any], device: str) -> Tensor:
    """Copy [B, ..., C] to float32 [B, C, ...]: images stay channels-last in memory, windows are contiguous."""
    layout = torch.preserve_format if records.ndim == 4 else torch.contiguous_format
    on_device = torch.from_numpy(records).to(device)  # before widening: bytes are a quarter of the transfer
    return on_device.movedim(-1, 1).to(torch.float32, copy=True, memory_format=layout)
