"""Trains in a child with 10 MiB more than parent and child hold before training; prints the child's exit code.

python tight_budget.py RUN
"""

from __future__ import annotations

import json
import sys

from edge_trgl.jobs.requests import TrainRequest
from edge_trgl.runtime.errors import EdgeTrglError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.supervisor import run_child
from edge_trgl.runtime.records import document_of

FLOOR = """
from edge_trgl.runtime.processes import light_torch
light_torch.install(lambda name: None)
import edge_trgl.jobs.train
from edge_trgl.engine import process_setup
from edge_trgl.runtime.memory import counters, high_water
from edge_trgl.runtime.processes import messages

process_setup.warm_up("cpu")
messages.send("result", value=counters.usage().rss, peak_mb=0)
"""


def child(*arguments: str):
    return run_child(arguments, on_message=lambda message: None).result


if __name__ == "__main__":
    floor_mb = child("-c", FLOOR)
    # The parent's memory counts towards the budget.
    limits = Limits(budget_mb=high_water.peak_mb() + floor_mb + 10)
    request = json.dumps(document_of(TrainRequest(limits=limits)))
    try:
        child("-m", "edge_trgl.jobs", "train", sys.argv[1], request)
        code = 0
    except EdgeTrglError as error:
        code = error.exit_code
    json.dump(code, sys.stdout)
