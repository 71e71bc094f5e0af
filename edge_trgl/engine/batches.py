"""Images or windows as the first module reads them: records from disk, augmented, normalised, on the device."""

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
    """One split of a prepared data set as batches of a span.

    `device`: where the tensors go. `augment` applies to spans that ask for it. `chunk_of(module)`: so many records
    of the cached boundary that enters a module are kept together; for spans with such a source.
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
        # Only what is trained on is ever kept in boundaries that outlive a pass.
        self._stored = stored_order(count, seed) if split == "train" else np.arange(count, dtype=np.int64)
        self._places = np.argsort(self._stored)
        self._order: tuple[tuple[int, int], Samples] = ((-1, 0), self._stored)

    def __len__(self) -> int:
        return len(self._reader)

    def samples(self, span: Span, batch: int) -> Samples:
        """The sample numbers, int64 [B], of one batch of `span`; only the last of a pass may be short."""
        start = batch * self._batch_size
        return self._order_of(span)[start : start + self._batch_size]

    def upcoming(self, span: Span, batch: int, count: int) -> Samples:
        """The samples, int64 [N], that follow on a batch of `span` within its pass, `count` at most."""
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
        """int64 [B]."""
        return self._labels[torch.from_numpy(samples)].to(self._device)

    def to_device(self, values: Tensor) -> Tensor:
        """Boundary values, where the modules are. Nothing computes in float16: it is for storage, and widened."""
        return values.to(self._device, torch.float32 if values.dtype == torch.float16 else values.dtype)

    def images(self, span: Span, batch: int, samples: Samples) -> Tensor:
        """float32 [B, C, H, W], channels-last, or [B, C, L]; normalised, and augmented if the span says so."""
        return self.unnormalised(span, batch, samples).sub_(self._mean).div_(self._std)

    def unnormalised(self, span: Span, batch: int, samples: Samples) -> Tensor:
        """The same before they are normalised: bytes from 0 to 1, floats as they are.

        Of a span that is not shuffled, any samples in any order, each as in its own batch of that span.
        """
        pixels = self._reader.read(samples)
        if span.augmented:
            pixels = self._augment.apply(pixels, self._draws(span, batch, samples))
        return _channels_first(pixels, self._device).div_(self._scale)

    def _draws(self, span: Span, batch: int, samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """What the augmentation of `samples` drew in `span`."""
        if span.shuffled:
            return self._augment.draws(len(samples), key(self._seed, "augment", "shuffled", span.epoch, batch))
        batches, places = np.divmod(self._places[samples], self._batch_size)
        found = np.empty((len(samples), 3), np.int64)
        for number in np.unique(batches).tolist():
            size = min(self._batch_size, len(self) - number * self._batch_size)
            drawn = self._augment.draws(size, key(self._seed, "augment", "plain", span.epoch, number))
            found[batches == number] = drawn[places[batches == number]]
        return found

    def pixels(self, samples: Samples) -> Tensor:
        """float32 [B, C, H, W] or [B, C, L] on the CPU, as stored: neither augmented nor normalised."""
        return _channels_first(self._reader.read(samples), "cpu")

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def _channels_first(records: np.ndarray[Any, Any], device: str) -> Tensor:
    """A float32 copy of [B, ..., C] as [B, C, ...]: images stay as they lie, channels-last; windows do not."""
    layout = torch.preserve_format if records.ndim == 4 else torch.contiguous_format
    there = torch.from_numpy(records).to(device)  # as bytes: a quarter of what floats would be
    return there.movedim(-1, 1).to(torch.float32, copy=True, memory_format=layout)
