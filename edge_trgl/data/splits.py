"""Chooses which images of a source become training, validation and test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_trgl.data.groups import held_groups
from edge_trgl.random_keys import key
from edge_trgl.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_trgl.data.sources import Groups, Source, Split

TEST_FRACTION = 0.1

ChooseOn = Literal["validation", "unused", "half-test"]
"""The images that the depth is chosen on: held out of training, left over by a limit, or half of the test set."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Some images of one split of a source.

    Args:
        split: the split that they come from.
        samples: their positions in it, ascending, int64 [N].
    """

    split: Split
    samples: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of each image, int64 [N]."""
        return self.split.labels[self.samples]

    def readable(self) -> Selection:
        """Return the selection without the images that turned out to be unreadable."""
        is_readable = [sample not in self.split.unreadable for sample in self.samples.tolist()]
        return Selection(split=self.split, samples=self.samples[np.array(is_readable, bool)])


def draw_splits(
    source: Source, *, seed: int, validation: float, limit: int | None, choose_on: ChooseOn = "validation"
) -> dict[str, Selection]:
    """Choose the images of the three splits. Each random draw has its own key, so it does not depend on others.

    First, a tenth of the training images becomes the test set if the source has none. Then training is cut to
    `limit`. Then validation images are held out of the rest, unless the source has some or `choose_on` says
    otherwise. Where images have groups, what is held out is whole groups.

    Args:
        source: the images.
        seed: the seed of the run.
        validation: fraction of the training images to hold out, at least 0 and less than 1.
        limit: number of training images to keep, balanced over the classes; None keeps all.
        choose_on: where validation images come from. "validation": the source's own, or held out of training.
            "unused": the fraction `validation` of those that `limit` leaves over. "half-test": every other test
            image.

    Returns:
        Selections under "train", "val" and "test"; "val" is empty if `validation` is 0.

    Raises:
        InputError: a class would have no training image left.
        UsageError: `limit` is less than one image of each class or more than there are, or leaves none over for
            validation; or what it leaves over would have groups in common with training.
    """
    # An empty split counts as missing, except for training: that it is empty is reported elsewhere.
    given = {name: split for name, split in source.splits.items() if name == "train" or len(split.labels)}
    chosen = {name: _everything(split) for name, split in given.items()}
    if "test" not in chosen:
        chosen["train"], chosen["test"] = _hold_out(
            chosen["train"], TEST_FRACTION, key(seed, "test"), source.groups
        )
    everything = chosen["train"]
    if limit is not None:
        chosen["train"] = _limited(chosen["train"], limit, key(seed, "limit"))
    if choose_on == "half-test":
        chosen["val"] = _every_other(chosen["test"])
    elif choose_on == "unused":
        _check_ungrouped(source)
        chosen["val"] = _some_unused(everything, chosen["train"], validation, key(seed, "validation"))
    elif "val" not in chosen:
        chosen["train"], chosen["val"] = _hold_out(
            chosen["train"], validation, key(seed, "validation"), source.groups
        )
    return chosen


def _everything(split: Split) -> Selection:
    return Selection(split=split, samples=np.arange(len(split.labels), dtype=np.int64))


def _every_other(selection: Selection) -> Selection:
    """Return every other image: half of each class, if the set is sorted by class."""
    return Selection(split=selection.split, samples=selection.samples[::2])


def _some_unused(everything: Selection, used: Selection, fraction: float, draw_key: int) -> Selection:
    """Draw `fraction` of the images that training leaves over, from every class in proportion."""
    left = np.setdiff1d(everything.samples, used.samples, assume_unique=True)
    if len(left) == 0:
        raise UsageError(
            "data.choose_on is unused, but no training sample is left over",
            hint="Give a smaller data.limit, or data.choose_on=validation.",
        )
    over = Selection(split=everything.split, samples=left)
    sizes = np.bincount(over.labels)
    counts = _shares(sizes.astype(np.float64) * fraction, sizes, max(1, round(fraction * len(left))))
    return Selection(split=over.split, samples=_choose(over, counts, draw_key))


def _check_ungrouped(source: Source) -> None:
    if source.groups is not None:
        raise UsageError(
            "data.choose_on is unused, which would choose the depth on the groups that are trained on",
            hint="Take groups of their own: --set data.choose_on=validation",
        )


def _hold_out(
    selection: Selection, fraction: float, draw_key: int, groups: Groups | None
) -> tuple[Selection, Selection]:
    """Return what stays and what is held out, in proportion to the classes; each keeps at least one image."""
    if groups is not None and fraction > 0:
        return _hold_groups_out(selection, fraction, draw_key, groups)
    num_held = max(1, round(fraction * len(selection.samples))) if fraction > 0 else 0
    sizes = np.bincount(selection.labels)
    counts = _shares(sizes.astype(np.float64) * fraction, np.maximum(sizes - 1, 0), num_held)
    held = _choose(selection, counts, draw_key)
    kept = np.setdiff1d(selection.samples, held, assume_unique=True)
    return Selection(split=selection.split, samples=kept), Selection(split=selection.split, samples=held)


def _hold_groups_out(
    selection: Selection, fraction: float, draw_key: int, groups: Groups
) -> tuple[Selection, Selection]:
    try:
        is_held = held_groups(groups.of_sample[selection.samples], selection.labels, fraction, draw_key)
    except InputError as error:
        raise InputError(error.message, hint=f"{error.hint} {groups.without}") from error
    kept, held = selection.samples[~is_held], selection.samples[is_held]
    return Selection(split=selection.split, samples=kept), Selection(split=selection.split, samples=held)


def _limited(selection: Selection, limit: int, draw_key: int) -> Selection:
    """Draw `limit` images, balanced over the classes; a smaller limit draws a subset of a larger one."""
    sizes = np.bincount(selection.labels)
    least, most = np.count_nonzero(sizes), len(selection.samples)
    if not least <= limit <= most:
        raise UsageError(
            f"data.limit is {limit}; it must be from {least}, one sample of each class, to {most}, all there are",
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
    return Selection(split=selection.split, samples=_choose(selection, counts, draw_key))


def _shares(wanted: NDArray[np.float64], most: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Round `wanted` to whole numbers, none above `most`, that sum to `total` (largest remainder method)."""
    counts = np.minimum(np.floor(wanted).astype(np.int64), most)
    if total > most.sum():
        raise InputError(
            f"holding out {total} samples would leave a class without a training sample",
            hint="Give more of them, or hold out a smaller part.",
        )
    while counts.sum() < total:
        behind = np.where(counts < most, wanted - counts, -np.inf)
        counts[np.argmax(behind)] += 1
    return counts


def _choose(selection: Selection, counts: NDArray[np.int64], draw_key: int) -> NDArray[np.int64]:
    """Draw `counts[label]` samples of each label; returns their positions, ascending."""
    generator = np.random.Generator(np.random.PCG64(draw_key))
    labels = selection.labels
    chosen = [
        generator.permutation(selection.samples[labels == label])[:count] for label, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen))
