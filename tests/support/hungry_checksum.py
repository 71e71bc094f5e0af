"""Trains two equal runs, the second with a checksum that needs 256 MiB in a budget only 64 MiB above the first
run's peak; prints the refusal, and the results of both.

    python hungry_checksum.py RUN LIKE_IT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from edge_trgl.engine import evaluation, training
from edge_trgl.engine.open_run import open_run
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import to_json

MB = 2**20
real = evaluation.weights_sha256


def hungry(modules, num_modules):
    held = b"x" * (256 * MB)
    return real(modules, num_modules) if held else ""


def trained(run, budget_mb):
    return training.train(open_run(run), limits=Limits(budget_mb=budget_mb), others_mb=0.0)


if __name__ == "__main__":
    run, like_it = (Run(Path(folder)) for folder in sys.argv[1:])
    usual, refusal = trained(run, 1e5), None
    with mock.patch.object(evaluation, "weights_sha256", hungry):
        try:
            trained(like_it, usual.peak_mb + 64.0)
        except OverBudgetError as error:
            refusal = error.message
    again = trained(like_it, 1e5)
    json.dump({"refusal": refusal, "usual": to_json(usual), "again": to_json(again)}, sys.stdout)
