"""Messages of a child process to its parent: one JSON document a line, through a pipe of their own.

Standard output is left to whatever users' code prints.
"""

from __future__ import annotations

import json
import os
from typing import Any

DESCRIPTOR = "EDGE_TRGL_MESSAGES"


def send(kind: str, **values: Any) -> None:
    """Send one message of this kind; do nothing if no parent listens."""
    descriptor = os.environ.get(DESCRIPTOR)
    if descriptor is not None:
        line = json.dumps({"kind": kind, **values}) + "\n"
        left = line.encode()
        while left:  # a signal cuts a long write short
            left = left[os.write(int(descriptor), left) :]
