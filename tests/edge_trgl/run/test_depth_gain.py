"""What depth gave, in one sentence for every case; and when it no longer pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_trgl.run.depth_gain import (
    DepthScore,
    best,
    depth_text,
    last_gain,
    no_longer_pays,
    so_far_text,
    stopped_text,
)
from edge_trgl.run.facts import Scores

SCORES = Scores(
    first_depth=1,
    per_depth=(0.601, 0.605, 0.612, 0.6, 0.612),
    chosen_depth=3,
    chosen=0.6,
    last=0.6,
    test_per_depth=(),
    chosen_on="validation",
)


def said(*per_depth, chosen, first=1, modules=None, chosen_on="validation", samples="images"):
    scores = replace(SCORES, per_depth=per_depth, chosen_depth=chosen, first_depth=first, chosen_on=chosen_on)
    depth = first + len(per_depth) - 1
    return depth_text(scores, num_modules=modules or depth, depth=depth, samples=samples)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            said(0.601, 0.605, 0.612, 0.6, 0.612, chosen=3),
            "depth 3 of 5 was chosen: 61.2% on validation images, 1.1 points above depth 1; "
            "modules 4 and 5 added nothing",
        ),
        (
            said(0.601, 0.605, 0.612, 0.6, 0.612, chosen=3, modules=10),
            "depth 3 of 10 was chosen: 61.2% on validation images, 1.1 points above depth 1; "
            "modules 4 and 5 added nothing and modules 6 to 10 were left out",
        ),
        (
            said(0.5, 0.6, chosen=2, samples="windows"),
            "depth 2 of 2 was chosen: 60.0% on validation windows, 10.0 points above depth 1",
        ),
        (
            said(0.5, 0.6, 0.59, chosen=2, modules=4),
            "depth 2 of 4 was chosen: 60.0% on validation images, 10.0 points above depth 1; "
            "module 3 added nothing and module 4 was left out",
        ),
        (
            said(0.5, 0.5, 0.5, chosen=1),
            "depth 1 of 3 was chosen: 50.0% on validation images; modules 2 and 3 added nothing",
        ),
        (
            said(0.5, 0.5001, chosen=2),
            "depth 2 of 2 was chosen: 50.0% on validation images, 0.01 points above depth 1",
        ),
        (
            said(0.5, 0.51, chosen=2),
            "depth 2 of 2 was chosen: 51.0% on validation images, 1.0 point above depth 1",
        ),
        (
            said(0.5, 0.6, chosen=4, first=3),
            "depth 4 of 4 was chosen: 60.0% on validation images, 10.0 points above depth 3",
        ),
        (
            said(0.5, chosen=1),
            "the network has one module: 50.0% on validation images",
        ),
        (
            said(0.5, chosen=3, first=3),
            "depth 3 of 3 is the only one with a classifier: 50.0% on validation images",
        ),
        (
            said(0.5, 0.4, chosen=1, chosen_on="half-test"),
            "depth 1 of 2 was chosen: 50.0% on half of the test images; module 2 added nothing",
        ),
        (
            said(chosen=3, modules=3),
            "depth 3 of 3 is used: there are no validation images to compare depths on",
        ),
    ],
)
def test_what_depth_gave(text, sentence):
    assert text == sentence


def test_what_adds_nothing_so_far():
    text = so_far_text({1: 0.3, 2: 0.4, 3: 0.4, 4: 0.2}, epochs=2, samples="images", chosen_on="validation")
    assert text == (
        "after 2 epochs depth 2 of 4 is the best: 40.0% on validation images, 10.0 points above depth 1; "
        "modules 3 and 4 add nothing so far (--modules or --grow leaves them out)"
    )
    text = so_far_text({1: 0.3, 2: 0.4}, epochs=2, samples="images", chosen_on="validation")
    assert text == "after 2 epochs depth 2 of 2 is the best: 40.0% on validation images, 10.0 points above depth 1"


def scores(accuracies, cross_entropies=None):
    """Of each depth; without others the cross-entropies rise."""
    return {
        depth: DepthScore(accuracy=accuracy, cross_entropy=(cross_entropies or {}).get(depth, 1.0 + depth))
        for depth, accuracy in accuracies.items()
    }


def test_why_training_stops():
    text = stopped_text(scores({1: 0.3, 2: 0.4, 3: 0.4, 4: 0.2}), num_modules=9, samples="images")
    assert text == (
        "modules 3 and 4 gained nothing on validation images (depth 2 is the best: 40.0%): "
        "modules 5 to 9 are not trained"
    )


@pytest.mark.parametrize(
    ("accuracies", "patience", "stops"),
    [
        ({}, 1, False),
        ({1: 0.5}, 1, False),
        ({1: 0.5, 2: 0.5}, 1, True),
        ({1: 0.5, 2: 0.4}, 2, False),
        ({1: 0.5, 2: 0.4, 3: 0.45}, 2, True),
        ({1: 0.5, 2: 0.4, 3: 0.6}, 2, False),
        ({3: 0.5, 4: 0.4, 5: 0.5}, 2, True),
    ],
)
def test_depth_no_longer_pays_when_the_last_ones_gained_nothing(accuracies, patience, stops):
    assert no_longer_pays(scores(accuracies), patience) is stops


def test_a_lower_cross_entropy_is_a_gain_too():
    accuracies = {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}
    assert last_gain(scores(accuracies, {1: 1.0, 2: 0.9, 3: 0.95, 4: 0.8})) == 4
    assert last_gain(scores(accuracies, {1: 1.0, 2: 0.9, 3: 0.9, 4: 0.95})) == 2
    diverged = scores(accuracies, {1: 1.0, 2: float("nan"), 3: float("nan"), 4: 0.9})
    assert last_gain(diverged) == 4
    assert last_gain(scores({1: 0.1, 2: 0.1}, {1: float("nan"), 2: float("nan")})) == 1


def test_of_equal_depths_the_first_is_best():
    assert best({2: 0.5, 1: 0.5, 3: 0.4}) == 1
