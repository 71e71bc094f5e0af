"""The nearest known words, for a message about a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], num: int = 1) -> list[str]:
    """Return the known words most like `word`, at most `num`, the nearest first; none if none is near."""
    from difflib import get_close_matches  # here, for its memory: most configurations have no mistakes

    return get_close_matches(word, list(known), n=num)
