"""Seeds for random draws: each is keyed by what it is for, not by when it happens."""

from __future__ import annotations

import hashlib


def key(*parts: int | str) -> int:
    """Return a 63-bit seed for a random generator, which depends only on `parts`.

    Different parts give different keys: those of `("a", "bc")`, `("ab", "c")`, `(1,)` and `("1",)` all differ.

    Args:
        parts: what the draw is for, for example `(seed, "order", epoch)`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        tag = "s" if isinstance(part, str) else "i"
        encoded = str(part).encode()
        digest.update(f"{tag}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest(), "big") >> 1
