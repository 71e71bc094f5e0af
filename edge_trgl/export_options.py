"""What an exported file is asked to be: for which runtime, of which depth, for how many samples at a time."""

from __future__ import annotations

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
