"""Names in an exported graph; they tell which module a node or tensor belongs to."""

from __future__ import annotations

from edge_trgl.config.export_request import LOGITS

INPUT = "input"


def prefix_of(number: int) -> str:
    """The prefix of all names in module `number`, counted from 1."""
    return f"module{number}/"


def boundary_name(number: int) -> str:
    """The name of the boundary between module `number`, counted from 1, and the next."""
    return f"boundary_{number}"


def entry_name(number: int) -> str:
    """The name of the input of module `number`, counted from 1."""
    return boundary_name(number - 1) if number > 1 else INPUT


def logits_name(depth: int) -> str:
    """The name of the logits at `depth` in a model with several exits."""
    return f"{LOGITS}_{depth}"
