"""Measure one row of the regime benchmark in its own process.

    python -m tools.bench.one_row JSON

JSON: `run`, a run folder with prepared data (and a plan, for the product); `loop`: `product`, or one of the bare
loops of `bare_loops.py`; `turns`: whether to wait on standard input before each epoch. Prints lines of JSON: the
seconds of each turn, and last the figures.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory.without import WITHOUT
from edge_trgl.runtime.processes import light_torch
from tools.common.section import Turns, tell


def main() -> None:
    spec = json.loads(sys.argv[1])
    run, turns = Run(Path(spec["run"])), Turns() if spec["turns"] else None
    if spec["loop"] == "product":
        os.environ[WITHOUT] = ",".join(run.config().budget.without)
        light_torch.install(lambda name: None)  # before what loads torch, as in the product's processes
        from tools.bench import product_loop

        tell(product_loop.measure(run, turns))
    else:
        # Its imports are larger than the product's and would count against it.
        from tools.bench import bare_loops

        tell(bare_loops.measure(run, spec["loop"], turns))


if __name__ == "__main__":
    main()
