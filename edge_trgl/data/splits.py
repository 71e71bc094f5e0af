"""Which images of a source become training, validation and test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_trgl.random_keys import key
from edge_trgl.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_trgl.data.sources import Source, Split

TEST_FRACTION = 0.1

ChooseOn = Literal["validation", "unused", "half-test"]
"""Whose images the depth is chosen on: held out of training, left out of it by a limit, half of the test set's."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Some images of one of the source's splits.

    Args:
        origin: the split they come from.
        samples: int64, ascending positions in it.
    """

    origin: Split
    samples: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64, one a sample."""
        return self.origin.labels[self.samples]


def draw_splits(
    source: Source, *, seed: int, validation: float, limit: int | None, choose_on: ChooseOn = "validation"
) -> dict[str, Draw]:
    """Draw the three splits; each draw has its own key, so none depends on whether another was made.

    A test set that the source lacks is taken out of training first, then training is cut to `limit`, then
    a validation set that the source lacks is taken out of what is left, unless `choose_on` says otherwise.

    Args:
        source: the images.
        seed: of the run.
        validation: fraction of training to hold out, at least 0 and less than 1.
        limit: how many training images to keep, balanced over the classes; None keeps all.
        choose_on: where validation images come from; `unused` takes the fraction of what `limit` leaves out.

    Returns:
        Draws under "train", "val" and "test"; empty for validation where `validation` is 0.

    Raises:
        InputError: no training image would be left.
        UsageError: `limit` is less than one image of each class, or more than there are; or it leaves none out
            to validate on.
    """
    # An empty split is one that the source lacks; without training images the sentence is another.
    given = {name: split for name, split in source.splits.items() if name == "train" or len(split.labels)}
    draws = {name: _everything(split) for name, split in given.items()}
    if "test" not in draws:
        draws["train"], draws["test"] = _hold_out(draws["train"], TEST_FRACTION, key(seed, "test"))
    everything = draws["train"]
    if limit is not None:
        draws["train"] = _limited(draws["train"], limit, key(seed, "limit"))
    if choose_on == "half-test":
        draws["val"] = _every_other(draws["test"])
    elif choose_on == "unused":
        draws["val"] = _some_unused(everything, draws["train"], validation, key(seed, "validation"))
    elif "val" not in draws:
        draws["train"], draws["val"] = _hold_out(draws["train"], validation, key(seed, "validation"))
    return draws


def _everything(split: Split) -> Draw:
    return Draw(origin=split, samples=np.arange(len(split.labels), dtype=np.int64))


def _every_other(draw: Draw) -> Draw:
    """Half of the images, whatever order the classes come in."""
    return Draw(origin=draw.origin, samples=draw.samples[::2])


def _some_unused(everything: Draw, used: Draw, fraction: float, draw_key: int) -> Draw:
    """`fraction` of the images that training leaves over, every class giving its share."""
    left = np.setdiff1d(everything.samples, used.samples, assume_unique=True)
    if len(left) == 0:
        raise UsageError(
            "data.choose_on is unused, but no training image is left over",
            hint="Give a smaller data.limit, or data.choose_on=validation.",
        )
    over = Draw(origin=everything.origin, samples=left)
    sizes = np.bincount(over.labels)
    counts = _shares(sizes.astype(np.float64) * fraction, sizes, max(1, round(fraction * len(left))))
    return Draw(origin=over.origin, samples=_choose(over, counts, draw_key))


def _hold_out(draw: Draw, fraction: float, draw_key: int) -> tuple[Draw, Draw]:
    """What stays and what is held out; every class gives its share and keeps at least one image."""
    num_held = max(1, round(fraction * len(draw.samples))) if fraction > 0 else 0
    sizes = np.bincount(draw.labels)
    counts = _shares(sizes.astype(np.float64) * fraction, np.maximum(sizes - 1, 0), num_held)
    held = _choose(draw, counts, draw_key)
    kept = np.setdiff1d(draw.samples, held, assume_unique=True)
    return Draw(origin=draw.origin, samples=kept), Draw(origin=draw.origin, samples=held)


def _limited(draw: Draw, limit: int, draw_key: int) -> Draw:
    """`limit` images, as even over the classes as there are images; smaller draws lie within larger ones."""
    sizes = np.bincount(draw.labels)
    least, most = np.count_nonzero(sizes), len(draw.samples)
    if not least <= limit <= most:
        raise UsageError(
            f"data.limit is {limit}; it must be from {least}, one image of each class, to {most}, all there are",
            hint="Leave it out to take all.",
        )
    counts = np.zeros_like(sizes)
    while (left := limit - int(counts.sum())) > 0:
        unfilled = np.flatnonzero(counts < sizes)
        share = left // len(unfilled)
        if share:
            counts[unfilled] += np.minimum(share, sizes[unfilled] - counts[unfilled])
        else:
            counts[unfilled[:left]] += 1
    return Draw(origin=draw.origin, samples=_choose(draw, counts, draw_key))


def _shares(wanted: NDArray[np.float64], most: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole numbers near `wanted`, none above `most`, that sum to `total`: largest remainders first."""
    counts = np.minimum(np.floor(wanted).astype(np.int64), most)
    if total > most.sum():
        raise InputError(
            f"holding out {total} images would leave a class without a training image",
            hint="Give more images, or hold out a smaller part.",
        )
    while counts.sum() < total:
        behind = np.where(counts < most, wanted - counts, -np.inf)
        counts[np.argmax(behind)] += 1
    return counts


def _choose(draw: Draw, counts: NDArray[np.int64], draw_key: int) -> NDArray[np.int64]:
    """`counts[label]` samples of each label, ascending."""
    generator = np.random.Generator(np.random.PCG64(draw_key))
    labels = draw.labels
    chosen = [generator.permutation(draw.samples[labels == label])[:count] for label, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen))
