"""Print the budget of `make demo` in MiB: the peak of a process that imports this build of torch, plus 120.

That is 340 with the build for CPUs alone, and more with a CUDA build, which takes twice as much before any net.
"""

from __future__ import annotations

import subprocess
import sys

ROOM_MB = 120
"""For the demo's network, its data and the parent process."""

LOADED = """
import torch
from edge_trgl.runtime.memory import high_water
print(high_water.peak_mb())
"""


def main() -> None:
    """Print it."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    print(round((float(done.stdout) + ROOM_MB) / 10) * 10)


if __name__ == "__main__":
    main()
