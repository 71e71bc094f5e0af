"""Compare the weights of short runs of every kind with those of an earlier version.

    python -m tools.fingerprints [--against FILE] [--json FILE|-] [--quick]

Before a change: `--json before.json`. After it, on the same machine: `--against before.json`, which ends with
code 1 where the sha256 of a run's weights is another. They depend on the processor and on torch: no file is kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import edge_trgl, output_of

COMMON = (
    *("--budget-mb", "2000", "--no-probe", "--threads", "1", "--epochs", "2", "--batch-size", "16"),
    *("--set", "data.limit=80", "--set", "data.validation=0.2"),
)
KM = ("--model", "km-3-1", "--width", "4", "--set", "model.gain=1")
RUNS = {
    "parallel": KM,
    "parallel, paged": (*KM, "--resident", "1", "--chunk", "2"),
    "sequential": (*KM, "--regime", "sequential"),
    "sequential, views": (*KM, "--regime", "sequential", "--views", "2"),
    "multi-lap": (*KM, "--regime", "multi-lap", "--laps", "2"),
    "end-to-end": (*KM, "--regime", "end-to-end"),
    "end-to-end, paged": (*KM, "--regime", "end-to-end", "--resident", "1"),
    "no transport": (*KM, "--no-transport"),
    "shared head": (*KM, "--shared-head", "--set", "model.downsample="),
    "frozen": (*KM, "--freeze", "1", "--views", "2"),
    "micro-batches": (*KM, "--width", "16", "--allow", "micro-batch", "--budget-mb", "min"),
    "bf16": (*KM, "--precision", "bf16"),
    "AdamW": (*KM, "--set", "train.optimizer=adamw"),
    "InfoPro": (*KM, "--loss", "infopro"),
    "PredSim": (*KM, "--loss", "predsim"),
    "a head each": (*KM, "--head", "conv,linear,deep"),
    "encoder": ("--model", "km-2-1-encoder", "--width", "4"),
    "ResNet-110": ("--model", "resnet110", "--modules", "3"),
    "imported": ("--model", "timm:vit_tiny_patch16_224", "--modules", "2"),
}
QUICK = ("parallel", "parallel, paged")


def main() -> int:
    """Train each, print its fingerprint, compare."""
    parser = command_line("fingerprints", __doc__)
    parser.add_argument("--against", type=Path, help="compare with this file, written by --json")
    parser.add_argument("--json", metavar="FILE", help="write the document there; - prints it")
    parser.add_argument("--quick", action="store_true", help="two runs, to try the tool")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: _trained(name, Path(scratch)) for name in (QUICK if options.quick else RUNS)}
    before = json.loads(options.against.read_text())["runs"] if options.against else {}
    differ = [name for name, run in runs.items() if name in before and run != before[name]]
    document = {**origin(threads=1), "runs": runs, "differ": differ, "ok": not differ}
    for name, run in runs.items():
        known = "" if name not in before else "  DIFFERS" if name in differ else "  as before"
        print(f"{name:20s} {run['weights_sha256'][:16]}{known}", file=sys.stderr)
    if options.json == "-":
        print(json.dumps(document))
    elif options.json:
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return 0 if document["ok"] else 1


def _trained(name: str, scratch: Path) -> dict[str, Any]:
    """What identifies a run: its weights, and by which lossy means they came about."""
    folder = scratch / f"run-{list(RUNS).index(name)}"
    summary = json.loads(output_of(edge_trgl("train", *COMMON, *RUNS[name], "--run", str(folder), "--json")))
    return {key: summary[key] for key in ("weights_sha256", "lossy")}


if __name__ == "__main__":
    sys.exit(main())
