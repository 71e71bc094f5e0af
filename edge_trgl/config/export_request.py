"""What an export is asked to be: for which runtime, of which depth, for how many samples at a time; its exits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_trgl.runtime.errors import UsageError

TargetName = Literal["generic", "jetpack4", "jetpack5", "jetpack6", "ort"]


@dataclass(frozen=True)
class Target:
    """The newest `opset` of the default domain, and version `ir` of the format, that a runtime is given."""

    opset: int
    ir: int


TARGETS: dict[TargetName, Target] = {
    "generic": Target(17, 8),
    "jetpack4": Target(13, 7),  # TensorRT 8.2
    "jetpack5": Target(17, 8),  # TensorRT 8.5
    "jetpack6": Target(20, 9),  # TensorRT 10
    "ort": Target(20, 9),  # the newest that the exporter writes
}

COPIES = 2.2
"""Of its heaviest module's weights that an export holds at most: themselves, and what its layers make of them."""

Form = Literal["int8", "fp16"]
FORMS: tuple[Form, ...] = ("int8", "fp16")
"""Smaller files beside model.onnx."""


def is_symmetric(target: TargetName) -> bool:
    """Whether an int8 file for this target has the form that TensorRT reads, and not the one for CPUs."""
    return target.startswith("jetpack")


def exits_of(depth: str, *, chosen: int, first: int, last: int) -> tuple[int, ...]:
    """The depths whose logits are outputs, counted in modules from 1.

    Args:
        depth: `chosen`, `last`, `all` or a number.
        chosen: the depth that did best on validation.
        first: the first depth that has a head; so have all from there to `last`.

    Raises:
        UsageError: it is none of these, or that depth has no head.
    """
    known = {"chosen": (chosen,), "last": (last,), "all": tuple(range(first, last + 1))}
    if depth in known:
        return known[depth]
    if not depth.isdecimal():
        raise UsageError(f"--depth {depth}: expected chosen, last, all or a number")
    if not first <= int(depth) <= last:
        exits = f"depths {first} to {last} have" if first < last else f"depth {last} alone has"
        raise UsageError(f"--depth {depth}: there is no classifier; {exits} one")
    return (int(depth),)


def output_names(exits: Sequence[int]) -> dict[int, str]:
    """The name of each exit's logits: `logits`, or `logits_K` of depth K where there are several."""
    return {depth: f"logits_{depth}" if len(exits) > 1 else "logits" for depth in exits}


def batch_of(text: str) -> int | None:
    """Samples that the file takes at a time; None for any number.

    Raises:
        UsageError: it is neither `dynamic` nor a number from 1.
    """
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch {text}: expected dynamic or a number of samples")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """When a sample may leave a network early: from one probability on, or by a search.

    `threshold`: 0 to 1, of every exit but the last. `points`: percentage points of validation accuracy that the
    thresholds to be found may lose. One of the two is None.
    """

    threshold: float | None
    points: float | None


def leaving_of(text: str) -> Leaving:
    """What `--exits` asks for: a probability, or `auto:` and a number of points.

    Raises:
        UsageError: it is neither.
    """
    searched = text.startswith("auto:")
    try:
        number = float(text.removeprefix("auto:"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= (100 if searched else 1):  # NaN is not, either
        raise UsageError(
            f"--exits {text}: expected a probability from 0 to 1, or auto:POINTS",
            hint="auto:0.2 loses at most 0.2 percentage points of validation accuracy.",
        )
    return Leaving(threshold=None if searched else number, points=number if searched else None)


def stages_of(text: str | None, *, first: int, depth: int) -> tuple[int, ...]:
    """The depths at which the stages of a network end, the last one `depth`.

    Args:
        text: depths, separated by commas; None for every one that has a classifier.
        first: the first depth that has one; so have all from there on.
        depth: of the exported network.

    Raises:
        UsageError: it says something else, or leaves nothing to exit by before the end.
    """
    if text is None:
        ends = tuple(range(first, depth + 1))
    else:
        parts = text.split(",")
        ends = tuple(int(part) for part in parts if part.isdecimal())
        rising = all(low < high for low, high in itertools.pairwise(ends))
        if len(ends) != len(parts) or not rising or ends[0] < first or ends[-1] != depth:
            raise UsageError(
                f"--stages {text}: expected rising depths from {first} on, the last one {depth}",
                hint="The last stage ends where model.onnx does; --depth chooses that.",
            )
    if len(ends) == 1:
        raise UsageError(
            f"--exits: up to depth {depth} there is one classifier, and nothing to leave by before it",
            hint="Export deeper, with --depth last, or name an earlier depth in --stages.",
        )
    return ends
