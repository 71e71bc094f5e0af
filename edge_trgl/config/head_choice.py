"""Which heads the user wants, as text: plain Python, for the command line too."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

NAMES = ("conv", "deep", "linear", "pooled", "tokens")
"""Of the heads that there are."""

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """`names`: one for all modules, or one for each; with `auto`, those of which a module has its cheapest."""

    names: tuple[str, ...]
    auto: bool = False


def parse_heads(text: str) -> HeadChoice:
    """The choice in `conv`, `conv,conv,linear` (one for each module), `auto` or `auto:pooled,linear`.

    Raises:
        ValueError: a name is none of a head.
    """
    word, colon, listed = text.partition(":")
    auto = word.strip() == AUTO
    if auto and not colon:
        return HeadChoice(names=NAMES, auto=True)
    names = tuple(name.strip() for name in (listed if auto else text).split(","))
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, (*NAMES, AUTO), n=1)
            known = f"did you mean {near[0]}?" if near else f"known: {', '.join((*NAMES, AUTO))}"
            raise ValueError(f"{name!r} is no head, {known}")
    return HeadChoice(names=names, auto=auto)
