"""What an exported file is asked to be."""

from __future__ import annotations

import pytest

from edge_trgl.config.export_request import (
    TARGETS,
    Leaving,
    batch_of,
    exits_of,
    is_symmetric,
    leaving_of,
    output_names,
    stages_of,
)
from edge_trgl.config.sources import read_profile, resolve
from edge_trgl.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("depth", "expected"), [("chosen", (3,)), ("last", (5,)), ("all", (2, 3, 4, 5)), ("2", (2,)), ("5", (5,))]
)
def test_exits(depth, expected):
    assert exits_of(depth, chosen=3, first=2, last=5) == expected


@pytest.mark.parametrize("depth", ["1", "6", "0"])
def test_a_depth_without_a_classifier(depth):
    with pytest.raises(UsageError, match="depths 2 to 5 have one"):
        exits_of(depth, chosen=3, first=2, last=5)
    with pytest.raises(UsageError, match="only depth 4 has one"):
        exits_of(depth, chosen=4, first=4, last=4)


@pytest.mark.parametrize("depth", ["-1", "2.0", "", "best"])
def test_no_depth(depth):
    with pytest.raises(UsageError, match="--depth must be chosen, last, all or a number"):
        exits_of(depth, chosen=3, first=2, last=5)


def test_outputs_are_numbered_where_there_are_several():
    assert output_names([4]) == {4: "logits"}
    assert output_names([2, 3]) == {2: "logits_2", 3: "logits_3"}


def test_batches():
    assert batch_of("dynamic") is None
    assert batch_of("16") == 16
    for text in ("0", "-1", "all", ""):
        with pytest.raises(UsageError, match=f"--batch must be dynamic or a number of samples, not {text}"):
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


@pytest.mark.parametrize(
    ("text", "threshold", "points"),
    [("0.9", 0.9, None), ("0", 0.0, None), ("1", 1.0, None), ("auto:0.2", None, 0.2), ("auto:0", None, 0.0)],
)
def test_when_to_leave(text, threshold, points):
    assert leaving_of(text) == Leaving(threshold=threshold, points=points)


@pytest.mark.parametrize("text", ["1.01", "-0.1", "nan", "", "auto", "auto:", "auto:-1", "auto:101", "90%"])
def test_no_time_to_leave(text):
    with pytest.raises(UsageError, match="--exits must be a probability from 0 to 1, or auto:POINTS") as caught:
        leaving_of(text)
    assert caught.value.message.endswith(f", not {text}")


@pytest.mark.parametrize(
    ("text", "first", "depth", "ends"),
    [(None, 1, 3, (1, 2, 3)), (None, 2, 4, (2, 3, 4)), ("3,6,10", 1, 10, (3, 6, 10)), ("2,3", 2, 3, (2, 3))],
)
def test_stages(text, first, depth, ends):
    assert stages_of(text, first=first, depth=depth) == ends


@pytest.mark.parametrize("text", ["3,6", "6,3,10", "3,3,10", "1,10", "3,6,11", "", "3,x,10", "3,,10", "-3,10"])
def test_no_stages(text):
    with pytest.raises(UsageError, match=r"--stages must be rising depths from 2 on, ending with 10"):
        stages_of(text, first=2, depth=10)


@pytest.mark.parametrize(("text", "first", "depth"), [(None, 1, 1), (None, 3, 3), ("10", 1, 10)])
def test_one_stage_has_nothing_to_leave_by(text, first, depth):
    with pytest.raises(UsageError, match=f"--exits needs a classifier before depth {depth}, and there is none"):
        stages_of(text, first=first, depth=depth)


def test_tensorrt_reads_symmetric_integers():
    assert {name for name in TARGETS if is_symmetric(name)} == {"jetpack4", "jetpack5", "jetpack6"}
