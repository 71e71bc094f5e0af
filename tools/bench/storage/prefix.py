"""Compare cached boundaries with recomputing the modules below, and count what views write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale
from tools.common.processes import edge_trgl, output_of

# The boundary of one view, 56 MB, finds no room in the budget: it is written.
FLAGS = ("--model", "km-10-1", "--width", "16", "--regime", "sequential", "--epochs", "4", "--budget-mb", "330")
TINY = ("--model", "km-3-1", "--width", "4", "--regime", "sequential", "--epochs", "2", "--set", "data.limit=200")
VIEWS = (1, 2, 4)


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Seconds, MiB written and test accuracy on the sample: cached with some views, and not cached."""
    found = {f"{views} views": _train(scale, f"views{views}", "--set", f"train.views={views}") for views in VIEWS}
    return {**found, "no cache": _train(scale, "none", "--set", "train.cache=none")}


def _train(scale: Scale, name: str, *flags: str) -> dict[str, Any]:
    folder = scale.scratch / f"prefix-{name}"
    command = ["train", *(TINY if scale.quick else FLAGS), *flags, "--threads", str(scale.threads)]
    done = json.loads(output_of(edge_trgl(*command, "--run", str(folder), "--json")))
    written_mb, accuracy = done["storage"]["written_mb"], done["accuracy"]["last"]
    return {"seconds": done["time_s"], "written_mb": written_mb, "accuracy": accuracy}


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Nothing to hold it against: it is what a user chooses between."""
    return []


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    cached = found["1 views"]["seconds"]
    return [
        f"prefix    {name:9} {one['seconds'] / cached:5.2f} of the time with one view, "
        f"{one['written_mb']:7.0f} MiB written, test accuracy {100 * one['accuracy']:.1f} %"
        for name, one in found.items()
    ]
