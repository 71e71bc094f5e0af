"""Holds whole groups out of training: a person or a machine is never in two splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEARLY = 0.05
"""Groups whose sizes differ by less than this share of all samples are drawn with the same chance."""


def held_groups(
    groups: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, draw_key: int
) -> NDArray[np.bool_]:
    """Draw groups that together have about `fraction` of the samples of each class.

    Every class keeps a group to train on. At least one group is held out, however large groups are, and one of
    each class where there are enough.

    Args:
        groups: of each sample, int64 [N].
        labels: of each sample, from 0, int64 [N].
        fraction: of the samples, above 0 and below 1.
        draw_key: the key of the draw.

    Returns:
        Whether each sample is held out, bool [N].

    Raises:
        InputError: training would lose a class without any one of the groups.
    """
    names, codes = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (codes, labels), 1)
    order = np.random.Generator(np.random.PCG64(draw_key)).permutation(len(names))
    is_held: NDArray[np.bool_] = np.isin(codes, order[_draw(counts[order], fraction)])
    return is_held


def _draw(counts: NDArray[np.float64], fraction: float) -> list[int]:
    """Choose rows of `counts`, the samples of each class [groups, classes]; earlier rows come first."""
    everything = counts.sum(axis=0)
    wanted = fraction * everything
    held: list[int] = []
    total = np.zeros_like(everything)
    for group, more in enumerate(counts):
        closer = np.abs(total + more - wanted).sum() < np.abs(total - wanted).sum()
        if closer and _keeps_classes(everything, total + more):
            held.append(group)
            total = total + more
    if not held:
        held = [_nearest(counts, wanted)]
    for missing in np.flatnonzero(everything > 0):
        if not counts[held, missing].any():
            held += _one_more(counts, held, int(missing))
    return held


def _nearest(counts: NDArray[np.float64], wanted: NDArray[np.float64]) -> int:
    """Choose one row, the first that is about as close to what is wanted as the closest."""
    everything = counts.sum(axis=0)
    possible = [group for group, more in enumerate(counts) if _keeps_classes(everything, more)]
    if not possible:
        raise InputError(
            f"there are too few groups: training has {len(counts)} and would lose a class without any one of them",
            hint="Record more of them (persons, machines, recordings), or give a test or validation split.",
        )
    distances = np.abs(counts[possible] - wanted).sum(axis=1)
    return possible[int(np.argmax(distances <= distances.min() + _NEARLY * everything.sum()))]


def _one_more(counts: NDArray[np.float64], held: list[int], label: int) -> list[int]:
    """The first group with samples of a class that can be held out beside those that are; none if none can."""
    everything, total = counts.sum(axis=0), counts[held].sum(axis=0)
    having = np.flatnonzero(counts[:, label]).tolist()
    return next(([group] for group in having if _keeps_classes(everything, total + counts[group])), [])


def _keeps_classes(everything: NDArray[np.float64], held: NDArray[np.float64]) -> bool:
    """Whether every class that there is has samples outside those that are held."""
    return bool(((everything > held) | (everything == 0)).all())
