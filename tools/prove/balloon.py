"""A program that takes memory in a cgroup until the kernel kills another process there, and leaves.

    python -m tools.prove.balloon KILLS_FILE

It is started inside the cgroup, where another process should be the first to be killed. KILLS_FILE: where the
kernel counts its kills (`memory.events`, `memory.oom_control`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

STEP_BYTES = 2**21
PAUSE_SECONDS = 0.005


def main() -> None:
    kills_file = Path(sys.argv[1])
    before = kills(kills_file)
    held = []
    while kills(kills_file) == before:
        held.append(b"\1" * STEP_BYTES)
        time.sleep(PAUSE_SECONDS)


def kills(file: Path) -> int:
    """What the kernel has counted."""
    counts = dict(line.split() for line in file.read_text().splitlines())
    return int(counts["oom_kill"])


if __name__ == "__main__":
    main()
