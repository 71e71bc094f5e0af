"""What thresholds cost and spare, against a plain loop; the search keeps what it promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.export.early_exit.thresholds import Answers, common, outcome, search, shares_of

SHARES = shares_of([1, 1, 2])


def answers(sureness, right):
    return Answers(sureness=np.array(sureness, np.float32), right=np.array(right, bool))


def drawn(seed, num_images=60, num_exits=3, gains=0.3):
    """Exits of which each later one is more often right, and which are surer where they are right."""
    draws = np.random.default_rng(seed)
    hardness = draws.uniform(size=num_images)
    skill = 0.4 + gains * np.arange(num_exits)[:, None] / num_exits
    right = hardness + draws.normal(scale=0.1, size=(num_exits, num_images)) < skill
    sureness = np.clip(1 - hardness / 2 + draws.normal(scale=0.1, size=right.shape), 0.1, 1)
    return answers(sureness, right)


def by_hand(found, shares, thresholds):
    exits, right = [], 0
    for image in range(found.right.shape[1]):
        sure = [found.sureness[k, image] >= np.float32(limit) for k, limit in enumerate(thresholds)]
        exits.append(sure.index(True) if True in sure else len(thresholds))
        right += found.right[exits[-1], image]
    counts = tuple(exits.count(k) for k in range(len(shares)))
    return right / len(exits), sum(shares[k] for k in exits) / len(exits), counts


def test_shares_are_of_all_stages():
    assert shares_of([1, 1, 2]).tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("thresholds", [(0.9, 0.9), (0.5, 0.95), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_an_outcome_is_what_a_loop_counts(thresholds):
    found = drawn(0)
    got = outcome(found, SHARES, thresholds)
    accuracy, share, exits = by_hand(found, SHARES, thresholds)
    assert got.accuracy == pytest.approx(accuracy)
    assert got.compute_share == pytest.approx(share)
    assert got.exits == exits
    assert got.thresholds == thresholds


def test_a_threshold_is_compared_in_float32():
    sureness = np.float32(0.9)
    assert float(sureness) < 0.9 or float(sureness) > 0.9
    found = answers([[sureness], [1]], [[True], [False]])
    assert outcome(found, shares_of([1, 1]), (0.9,)).exits == (1, 0)


def test_common_thresholds():
    found = drawn(1)
    assert common(found, SHARES, (0.5, 0.8)) == [
        outcome(found, SHARES, (0.5, 0.5)),
        outcome(found, SHARES, (0.8, 0.8)),
    ]


@given(seed=st.integers(0, 10_000), points=st.sampled_from([0.0, 0.5, 3.0, 10.0, 100.0]))
def test_the_search_keeps_the_accuracy_and_is_no_worse_than_one_threshold(seed, points):
    found = drawn(seed)
    least = found.right[-1].mean() - points / 100
    got = search(found, SHARES, points)
    assert got == outcome(found, SHARES, got.thresholds)
    never = outcome(found, SHARES, (1.0, 1.0))
    if never.accuracy >= least:
        assert got.accuracy >= least - 1e-9
        spread = np.quantile(found.sureness[:-1], np.linspace(0, 1, 32)).round(6)
        for one in common(found, SHARES, spread.tolist()):
            assert one.accuracy < least or one.compute_share >= got.compute_share - 1e-12
    else:
        assert got.compute_share <= never.compute_share


def test_all_may_be_lost():
    assert search(drawn(2), SHARES, 100.0).exits == (60, 0, 0)


def test_thresholds_of_each_exit_spare_more_than_a_common_one():
    # The first exit is never to be trusted, the second always; both are as sure.
    sureness = np.tile(np.linspace(0.5, 0.9, 40, dtype=np.float32), (3, 1))
    right = np.array([[False] * 40, [True] * 40, [True] * 40])
    got = search(Answers(sureness=sureness, right=right), SHARES, 0.0)
    assert got.exits == (0, 40, 0)
    assert got.accuracy == 1.0
    assert got.thresholds[0] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_near_the_best_of_all_pairs(seed):
    found = drawn(seed, num_images=300)
    levels = np.unique(np.append(found.sureness[:-1], 1.0)).tolist()
    tried = (outcome(found, SHARES, pair) for pair in itertools.product(levels[::10], repeat=2))
    best = min(one.compute_share for one in tried if one.accuracy >= found.right[-1].mean() - 0.02)
    assert search(found, SHARES, 2.0).compute_share <= best + 0.05


def test_overconfident_exits_leave_the_thresholds_at_one():
    found = answers([[1.0] * 10, [0.6] * 10], [[False] * 10, [True] * 10])
    got = search(found, shares_of([1, 1]), 0.2)
    assert got.thresholds == (1.0,)
    assert (got.accuracy, got.exits) == (0.0, (10, 0))


def test_answers_of_lots_are_joined():
    parts = [drawn(0, 4), drawn(1, 3)]
    joined = Answers.joined(parts)
    assert joined.right.shape == (3, 7)
    assert np.array_equal(joined.sureness[:, 4:], parts[1].sureness)
