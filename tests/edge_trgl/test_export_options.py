"""What an exported file is asked to be."""

from __future__ import annotations

import pytest

from edge_trgl.export_options import TARGETS, batch_of, exits_of, output_names
from edge_trgl.runtime.errors import UsageError
from edge_trgl.settings import read_profile, resolve


@pytest.mark.parametrize(
    ("depth", "expected"), [("chosen", (3,)), ("last", (5,)), ("all", (2, 3, 4, 5)), ("2", (2,)), ("5", (5,))]
)
def test_exits(depth, expected):
    assert exits_of(depth, chosen=3, first=2, last=5) == expected


@pytest.mark.parametrize("depth", ["1", "6", "0"])
def test_a_depth_without_a_classifier(depth):
    with pytest.raises(UsageError, match="depths 2 to 5 have one"):
        exits_of(depth, chosen=3, first=2, last=5)
    with pytest.raises(UsageError, match="depth 4 alone has one"):
        exits_of(depth, chosen=4, first=4, last=4)


@pytest.mark.parametrize("depth", ["-1", "2.0", "", "best"])
def test_no_depth(depth):
    with pytest.raises(UsageError, match="expected chosen, last, all or a number"):
        exits_of(depth, chosen=3, first=2, last=5)


def test_outputs_are_numbered_where_there_are_several():
    assert output_names([4]) == {4: "logits"}
    assert output_names([2, 3]) == {2: "logits_2", 3: "logits_3"}


def test_batches():
    assert batch_of("dynamic") is None
    assert batch_of("16") == 16
    for text in ("0", "-1", "all", ""):
        with pytest.raises(UsageError, match=f"--batch {text}: expected dynamic or a number"):
            batch_of(text)


@pytest.mark.parametrize(
    ("target", "opset", "ir"), [("jetpack4", 13, 8), ("jetpack5", 17, 8), ("jetpack6", 20, 10), ("generic", 17, 8)]
)
def test_no_target_gets_more_than_its_runtime_reads(target, opset, ir):
    assert TARGETS[target].opset <= opset
    assert TARGETS[target].ir <= ir


@pytest.mark.parametrize(
    ("profile", "target"),
    [("jetson-tx2", "jetpack4"), ("jetson-xavier-nx", "jetpack5"), ("jetson-orin-nano-4gb", "jetpack6")],
)
def test_a_boards_profile_names_its_target(profile, target):
    assert resolve(read_profile(profile)).board.target == target
