"""Run the training job on a device without room for a step, so that its first allocation is refused.

    python -m tools.cuda.tight train RUN JSON

As `python -m edge_trgl.jobs`.
"""

from __future__ import annotations

import resource
import sys

import psutil

from edge_trgl.engine import process_setup
from edge_trgl.jobs import __main__ as jobs
from edge_trgl.runtime.memory.device import Device
from edge_trgl.runtime.memory.limits import Limits

_begin = process_setup.begin


def begin(device: Device, limits: Limits, others_mb: float) -> None:
    """As in the product, and then nothing more may be allocated."""
    _begin(device, limits, others_mb)
    if device.name == "cpu":
        data = psutil.Process().memory_info().data
        resource.setrlimit(resource.RLIMIT_DATA, (data, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    else:
        device.rest_mb()
        device.set_limit(0.0)


if __name__ == "__main__":
    vars(process_setup)["begin"] = begin
    sys.exit(jobs.main())
