"""Allocate memory in a cgroup until the kernel kills another process there, then exit.

    python -m tools.prove.balloon GROUP

It is started inside the cgroup whose folder is GROUP, where another process should be the first to be killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tools.common.kernel import cgroup_kills

STEP_BYTES = 2**21
PAUSE_SECONDS = 0.005


def main() -> None:
    group = Path(sys.argv[1])
    before = cgroup_kills(group)
    held = []
    while cgroup_kills(group) == before:
        held.append(b"\1" * STEP_BYTES)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
