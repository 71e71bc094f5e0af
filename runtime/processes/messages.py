"""How a child process tells its parent what happens: one JSON document a line, through a pipe of its own.

Standard output stays free for what users' own code may print.
"""

from __future__ import annotations

import json
import os
from typing import Any

DESCRIPTOR = "EDGE_TRGL_MESSAGES"


def send(kind: str, **values: Any) -> None:
    """Send one message; without a parent that listens, nothing happens."""
    descriptor = os.environ.get(DESCRIPTOR)
    if descriptor is not None:
        line = json.dumps({"kind": kind, **values}) + "\n"
        left = line.encode()
        while left:  # a signal cuts a long write short
            left = left[os.write(int(descriptor), left) :]
