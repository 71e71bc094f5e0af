"""What an export is asked for: its runtime, its depths, its batch size, and its early exits."""

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
    """What a runtime can read: up to version `opset` of the default operators, and version `ir` of the format."""

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
"""Peak of an export, in sizes of its heaviest module's weights: these, and what its layers make of them."""

Form = Literal["int8", "fp16"]
FORMS: tuple[Form, ...] = ("int8", "fp16")
"""Smaller files that an export can write beside model.onnx."""


MODEL_FILE = "model.onnx"
"""The name of the exported network in the folder of its run."""

LOGITS = "logits"
"""What a model with one exit gives."""


def is_symmetric(target: TargetName) -> bool:
    """Whether an int8 file for this target has the form that TensorRT reads rather than the one for CPUs."""
    return target.startswith("jetpack")


def exits_of(depth: str, *, chosen: int, first: int, last: int) -> tuple[int, ...]:
    """List the depths whose logits are outputs, counted in modules from 1.

    Args:
        depth: `chosen`, `last`, `all` or a number.
        chosen: the depth with the best validation accuracy.
        first: the first depth that has a classifier; every later one up to `last` has one too.

    Raises:
        UsageError: `depth` is none of these, or that depth has no classifier.
    """
    known = {"chosen": (chosen,), "last": (last,), "all": tuple(range(first, last + 1))}
    if depth in known:
        return known[depth]
    if not depth.isdecimal():
        raise UsageError(f"--depth must be chosen, last, all or a number, not {depth}")
    if not first <= int(depth) <= last:
        exits = f"depths {first} to {last} have" if first < last else f"only depth {last} has"
        raise UsageError(f"--depth {depth} has no classifier; {exits} one")
    return (int(depth),)


def output_names(exits: Sequence[int]) -> dict[int, str]:
    """Name the logits of each exit: `logits` for a single one, `logits_K` for depth K among several."""
    return {depth: f"{LOGITS}_{depth}" if len(exits) > 1 else LOGITS for depth in exits}


def batch_of(text: str) -> int | None:
    """Read the number of samples that the file takes at a time; None for any number.

    Raises:
        UsageError: it is neither `dynamic` nor a number of at least 1.
    """
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch must be dynamic or a number of samples, not {text}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """When a sample may leave a network early: from one probability on, or from thresholds that a search finds.

    `threshold`: from 0 to 1, shared by all exits except the last. `points`: percentage points of validation
    accuracy that the thresholds to be found may lose. One of the two is None.
    """

    threshold: float | None
    points: float | None


def leaving_of(text: str) -> Leaving:
    """Read what `--exits` asks for: a probability, or `auto:` and a number of points.

    Raises:
        UsageError: it is neither.
    """
    searched = text.startswith("auto:")
    try:
        number = float(text.removeprefix("auto:"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= (100 if searched else 1):  # false for NaN, too
        raise UsageError(
            f"--exits must be a probability from 0 to 1, or auto:POINTS, not {text}",
            hint="auto:0.2 loses at most 0.2 percentage points of validation accuracy.",
        )
    return Leaving(threshold=None if searched else number, points=number if searched else None)


def stages_of(text: str | None, *, first: int, depth: int) -> tuple[int, ...]:
    """List the depths at which the stages of a network end, the last one being `depth`.

    Args:
        text: depths, separated by commas; None for every depth that has a classifier.
        first: the first depth that has a classifier; every later one has one too.
        depth: the depth of the exported network.

    Raises:
        UsageError: it is not such a list, or leaves no exit before the end.
    """
    if text is None:
        ends = tuple(range(first, depth + 1))
    else:
        parts = text.split(",")
        ends = tuple(int(part) for part in parts if part.isdecimal())
        rising = all(low < high for low, high in itertools.pairwise(ends))
        if len(ends) != len(parts) or not rising or ends[0] < first or ends[-1] != depth:
            raise UsageError(
                f"--stages must be rising depths from {first} on, ending with {depth}, not {text}",
                hint="The last stage ends where model.onnx does; --depth chooses that.",
            )
    if len(ends) == 1:
        raise UsageError(
            f"--exits needs a classifier before depth {depth}, and there is none",
            hint="Export deeper, with --depth last, or name an earlier depth in --stages.",
        )
    return ends
