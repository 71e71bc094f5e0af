"""Print the budget of `make demo` in MiB: 95 more than the peak of a process that loads torch as the jobs do.

That is 230 with the build for CPUs alone, and more with a CUDA build, which takes twice as much before any net.
"""

from __future__ import annotations

import subprocess
import sys

ROOM_MB = 95
"""For the demo's network, its data and the parent process."""

LOADED = """
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.processes import light_torch
light_torch.install(lambda name: None)
import torch
print(high_water.peak_mb())
"""


def main() -> None:
    """Print it."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    print(round((float(done.stdout) + ROOM_MB) / 10) * 10)


if __name__ == "__main__":
    main()
