"""Find out when to leave a network early: what thresholds cost in accuracy and save in computing, on images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_trgl.export.arrays import Array

NUM_CANDIDATES = 32
"""Thresholds tried for one exit, spread over its confidences on the images."""

DIGITS = 6
"""Decimal digits of a threshold that is found."""

_FREE = 1e9


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What every exit says of some images.

    `sureness`: float32 [exits, N], the largest probability. `right`: bool [exits, N].
    """

    sureness: Array
    right: Array

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of several lots of images as those of one."""
        return cls(
            sureness=np.concatenate([part.sureness for part in parts], axis=1),
            right=np.concatenate([part.right for part in parts], axis=1),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Images that leave by thresholds.

    `thresholds`: of all exits but the last. `accuracy`: a fraction. `compute_share`: the mean share of the FLOPs
    of all stages. `exits`: the images that leave by each exit.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    compute_share: float
    exits: tuple[int, ...]


def shares_of(flops: Sequence[int]) -> Array:
    """float64 [stages]: FLOPs up to and with each stage, as a share of all."""
    sums = np.cumsum(np.asarray(flops, np.float64))
    shares: Array = sums / sums[-1]
    return shares


def outcome(answers: Answers, shares: Array, thresholds: Sequence[float]) -> Outcome:
    """What comes of `thresholds`; an image leaves by the first exit that is at least as sure."""
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
    return [outcome(answers, shares, (one,) * (len(shares) - 1)) for one in thresholds]


def search(answers: Answers, shares: Array, points: float) -> Outcome:
    """Thresholds that compute little and lose at most `points` percentage points of the last exit's accuracy.

    From thresholds of 1 on, the exit is lowered, a candidate at a time, that spares most for what it loses; where
    one threshold for all exits does better than what that leads to, it is taken. Where exits that are altogether
    sure (1.0) lose more than is allowed, all thresholds stay 1.
    """
    least = float(answers.right[-1].mean()) - points / 100
    candidates = [_candidates(row) for row in answers.sureness[:-1]]
    lowered = _Descent(answers, shares, candidates, least).thresholds()
    shared = _candidates(answers.sureness[:-1]).tolist()
    found = [outcome(answers, shares, lowered), *common(answers, shares, shared)]
    # A sum of fractions may be off by its rounding, an image counts more.
    allowed = [one for one in found if one.accuracy >= least - 1e-9]
    return min(allowed, key=lambda one: (one.compute_share, -one.accuracy), default=found[0])


def _places(answers: Answers, thresholds: Array) -> Array:
    """int64 [N]: the exit, from 0, that each image leaves by."""
    leaves = answers.sureness >= np.append(thresholds, np.float32(0))[:, None]
    places: Array = leaves.argmax(axis=0)
    return places


def _candidates(sureness: Array) -> Array:
    """Thresholds from 1 down."""
    spread = np.quantile(sureness, np.linspace(0, 1, NUM_CANDIDATES)).round(DIGITS)
    down: Array = np.unique(np.append(spread, 1.0))[::-1]
    return down


@dataclass(frozen=True, kw_only=True)
class _Move:
    """Exit `place` lowered to candidate `step`: right answers lost by that, its worth."""

    place: int
    step: int
    lost: int
    worth: float


class _Descent:
    """Lower thresholds step by step, and keep track of where each image leaves."""

    def __init__(self, answers: Answers, shares: Array, candidates: Sequence[Array], least: float) -> None:
        self._shares, self._candidates = shares, candidates
        self._right = answers.right.astype(np.int64)
        self._steps = [0] * len(candidates)
        self._places = _places(answers, np.ones(len(candidates), np.float32))
        # Of each exit: images, the surest first, and how many of them leave by each candidate.
        self._orders = [np.argsort(-row, kind="stable") for row in answers.sureness[:-1]]
        self._counts = [
            (row >= steps.astype(np.float32)[:, None]).sum(axis=1)
            for row, steps in zip(answers.sureness, candidates, strict=False)
        ]
        # In images; a sum of fractions may be off by its rounding.
        images = np.arange(len(self._places))
        self._spare = float(self._right[self._places, images].sum()) - least * len(images) + 1e-6

    def thresholds(self) -> tuple[float, ...]:
        """Lower exits until none can be lowered any more."""
        while moves := [move for place in range(len(self._steps)) if (move := self._best(place))]:
            best = max(moves, key=lambda move: move.worth)
            leaving = self._orders[best.place][: self._counts[best.place][best.step]]
            self._places[leaving] = np.minimum(self._places[leaving], best.place)
            self._steps[best.place] = best.step
            self._spare -= best.lost
        return tuple(float(row[step]) for row, step in zip(self._candidates, self._steps, strict=True))

    def _best(self, place: int) -> _Move | None:
        """The lower candidate of exit `place` that is worth most; None where none spares anything, or may."""
        order, step = self._orders[place], self._steps[place] + 1
        before = np.maximum(self._places[order], place)
        lost = _sums(self._right[before, order] - self._right[place, order], self._counts[place][step:])
        spared = _sums(self._shares[before] - self._shares[place], self._counts[place][step:])
        # What loses nothing comes before all that does.
        worth = np.where(lost > 0, spared / np.maximum(lost, 1), spared * (1 - lost) * _FREE)
        worth[(lost > self._spare) | (spared <= 0)] = 0
        if not worth.any():
            return None
        best = int(worth.argmax())
        return _Move(place=place, step=step + best, lost=int(lost[best]), worth=float(worth[best]))


def _sums(values: Array, counts: Array) -> Array:
    """The sum of so many first values, for each of `counts`."""
    sums: Array = np.append(0, np.cumsum(values))[counts]
    return sums
