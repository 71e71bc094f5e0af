"""The savings that a process does without, of those that must be known before it loads its libraries."""

from __future__ import annotations

import os

WITHOUT = "EDGE_TRGL_WITHOUT"
"""The environment variable that names them, separated by commas."""


def without() -> frozenset[str]:
    """The names of the savings that this process does without."""
    return frozenset(os.environ.get(WITHOUT, "").split(","))
