"""The names in an exported graph, by which it is put together and taken apart again."""

from __future__ import annotations

from edge_trgl.config.export_request import LOGITS

INPUT = "input"


def prefix_of(number: int) -> str:
    """What the names of module `number`, counted from 1, begin with."""
    return f"module{number}/"


def boundary_name(number: int) -> str:
    """What leaves module `number`, counted from 1, and enters the next."""
    return f"boundary_{number}"


def entry_name(number: int) -> str:
    """What enters module `number`, counted from 1."""
    return boundary_name(number - 1) if number > 1 else INPUT


def logits_name(depth: int) -> str:
    """The logits of the exit at a depth, where there are several."""
    return f"{LOGITS}_{depth}"
