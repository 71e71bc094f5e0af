"""Search early-exit thresholds: how much accuracy they cost and how many FLOPs they save."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_trgl.export.arrays import Array

NUM_CANDIDATES = 32
"""Thresholds tried for one exit: quantiles of its confidence on the images."""

DIGITS = 6
"""Decimal digits of a searched threshold."""

_FREE = 1e9
"""Factor that ranks steps that cost no right answer above all others."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of every exit for N images.

    Args:
        sureness: float32 [exits, N], the largest probability.
        right: bool [exits, N], whether the predicted class is the label.
    """

    sureness: Array
    right: Array

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Concatenate the answers for several sets of images."""
        return cls(
            sureness=np.concatenate([part.sureness for part in parts], axis=1),
            right=np.concatenate([part.right for part in parts], axis=1),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of applying thresholds to images.

    Args:
        thresholds: one for each exit except the last.
        accuracy: a fraction.
        compute_share: mean FLOPs of an image, as a share of the FLOPs of all stages.
        exits: the number of images that leave at each exit.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    compute_share: float
    exits: tuple[int, ...]


def shares_of(flops: Sequence[int]) -> Array:
    """The FLOPs up to and including each stage, as a share of the total: float64 [stages]."""
    sums = np.cumsum(np.asarray(flops, np.float64))
    shares: Array = sums / sums[-1]
    return shares


def outcome(answers: Answers, shares: Array, thresholds: Sequence[float]) -> Outcome:
    """Apply `thresholds`, one for each exit except the last.

    An image leaves at the first exit whose confidence reaches its threshold. `shares`: see `shares_of`.
    """
    places = _places(answers, np.asarray(thresholds, np.float32))
    images = np.arange(len(places))
    return Outcome(
        thresholds=tuple(thresholds),
        accuracy=float(answers.right[places, images].mean()),
        compute_share=float(shares[places].mean()),
        exits=tuple(np.bincount(places, minlength=len(shares)).tolist()),
    )


def common(answers: Answers, shares: Array, thresholds: Iterable[float]) -> list[Outcome]:
    """The outcome of each of `thresholds`, shared by all exits except the last."""
    return [outcome(answers, shares, (threshold,) * (len(shares) - 1)) for threshold in thresholds]


def search(answers: Answers, shares: Array, points: float) -> Outcome:
    """Search thresholds that need few FLOPs and lose at most `points` percentage points of accuracy.

    The loss is counted from the accuracy of the last exit.

    A greedy search: all thresholds start at 1, and each step lowers the one that saves most for the accuracy it
    loses. If one threshold shared by all exits does better, that is taken instead. If images with a confidence of
    1.0 alone already lose more than is allowed, all thresholds stay 1.
    """
    least = float(answers.right[-1].mean()) - points / 100
    candidates = [_candidates(row) for row in answers.sureness[:-1]]
    lowered = _Descent(answers, shares, candidates, least).thresholds()
    shared = _candidates(answers.sureness[:-1]).tolist()
    outcomes = [outcome(answers, shares, lowered), *common(answers, shares, shared)]
    # The tolerance covers rounding of the means; a single image weighs far more than 1e-9.
    allowed = [reached for reached in outcomes if reached.accuracy >= least - 1e-9]
    return min(allowed, key=lambda reached: (reached.compute_share, -reached.accuracy), default=outcomes[0])


def _places(answers: Answers, thresholds: Array) -> Array:
    """The exit at which each image leaves, counted from 0: int64 [N]."""
    leaves = answers.sureness >= np.append(thresholds, np.float32(0))[:, None]
    places: Array = leaves.argmax(axis=0)
    return places


def _candidates(sureness: Array) -> Array:
    """Candidate thresholds in descending order, starting at 1."""
    quantiles = np.quantile(sureness, np.linspace(0, 1, NUM_CANDIDATES)).round(DIGITS)
    descending: Array = np.unique(np.append(quantiles, 1.0))[::-1]
    return descending


@dataclass(frozen=True, kw_only=True)
class _Move:
    """Lowering exit `place` to its candidate `step`: the right answers `lost`, and its `worth` (see `_best`)."""

    place: int
    step: int
    lost: int
    worth: float


class _Descent:
    """Greedy search that lowers thresholds step by step and keeps track of where each image leaves."""

    def __init__(self, answers: Answers, shares: Array, candidates: Sequence[Array], least: float) -> None:
        self._shares, self._candidates = shares, candidates
        self._right = answers.right.astype(np.int64)
        self._steps = [0] * len(candidates)
        self._places = _places(answers, np.ones(len(candidates), np.float32))
        # For each exit: the images by descending confidence, and how many of them reach each candidate.
        self._orders = [np.argsort(-row, kind="stable") for row in answers.sureness[:-1]]
        self._counts = [
            (row >= steps.astype(np.float32)[:, None]).sum(axis=1)
            for row, steps in zip(answers.sureness, candidates, strict=False)
        ]
        # Right answers that may still be lost. The tolerance covers rounding of the mean.
        images = np.arange(len(self._places))
        self._spare = float(self._right[self._places, images].sum()) - least * len(images) + 1e-6

    def thresholds(self) -> tuple[float, ...]:
        """Lower thresholds until no further step is allowed or saves anything."""
        while moves := [move for place in range(len(self._steps)) if (move := self._best(place))]:
            best = max(moves, key=lambda move: move.worth)
            leaving = self._orders[best.place][: self._counts[best.place][best.step]]
            self._places[leaving] = np.minimum(self._places[leaving], best.place)
            self._steps[best.place] = best.step
            self._spare -= best.lost
        return tuple(float(row[step]) for row, step in zip(self._candidates, self._steps, strict=True))

    def _best(self, place: int) -> _Move | None:
        """The lower candidate of exit `place` that is worth most; None if none is allowed and saves FLOPs."""
        order, step = self._orders[place], self._steps[place] + 1
        before = np.maximum(self._places[order], place)
        lost = _sums(self._right[before, order] - self._right[place, order], self._counts[place][step:])
        spared = _sums(self._shares[before] - self._shares[place], self._counts[place][step:])
        # Steps that lose no right answer come before all others.
        worth = np.where(lost > 0, spared / np.maximum(lost, 1), spared * (1 - lost) * _FREE)
        worth[(lost > self._spare) | (spared <= 0)] = 0
        if not worth.any():
            return None
        best = int(worth.argmax())
        return _Move(place=place, step=step + best, lost=int(lost[best]), worth=float(worth[best]))


def _sums(values: Array, counts: Array) -> Array:
    """The sum of the first `count` values, for each count in `counts`."""
    sums: Array = np.append(0, np.cumsum(values))[counts]
    return sums
