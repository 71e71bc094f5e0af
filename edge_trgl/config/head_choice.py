"""Which heads the user asks for, as text: plain Python, for the command line too."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.config.nearest import nearest
from edge_trgl.runtime.errors import UsageError

NAMES = ("conv", "deep", "linear", "lite", "mlp", "pooled", "tokens")
"""Names of the available heads."""

AUTO = "auto"

ACCURATE = ("conv", "deep", "lite")
"""Those among which `auto` chooses; the others lose accuracy (tools/results)."""


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """The heads of a network: one name for all modules, or one for each.

    `auto`: each module takes the fastest of the heads that `names` lists.
    """

    names: tuple[str, ...]
    auto: bool = False


def parse_heads(text: str) -> HeadChoice:
    """Read `conv`, `conv,conv,linear` (one for each module), `auto` or `auto:pooled,linear`.

    Raises:
        UsageError: a name is not that of a head.
    """
    word, colon, listed = text.partition(":")
    auto = word.strip() == AUTO
    if auto and not colon:
        return HeadChoice(names=ACCURATE, auto=True)
    names = tuple(name.strip() for name in (listed if auto else text).split(","))
    for name in names:
        if name not in NAMES:
            near = nearest(name, (*NAMES, AUTO))
            known = f"did you mean {near[0]}?" if near else f"choose from {', '.join((*NAMES, AUTO))}"
            raise UsageError(f"model.head names {name!r}, which is not a head; {known}")
    return HeadChoice(names=names, auto=auto)
