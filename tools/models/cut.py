"""List which models of torchvision and timm can be cut into a chain, and why others are refused.

    python -m tools.models.cut [--models NAME@SIDE ...] [--json FILE|-] [--quick]

Each model, in a process of its own, with random weights: it is cut for images of SIDE pixels and 4 classes; chain
and classifier are held against the model in evaluation mode (largest difference of a logit, batches of 3 and 1);
then the product plans it in four modules, or fewer, and trains one epoch of one batch in every regime. `diff` is
empty where the model's own classifier is no linear layer on mean features: it is left out then. The MiB are those
of the plan without the fixed part: the process alone, which here has loaded the libraries too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_trgl.config.sources import resolve
from edge_trgl.engine import training
from edge_trgl.engine.open_run import open_run
from edge_trgl.jobs import convert, prepare
from edge_trgl.jobs.requests import Nothing, PrepareRequest
from edge_trgl.networks.cutting.first_weights import copy_by_name, tensors_of
from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.networks.cutting.net import Net
from edge_trgl.networks.open_net import open_net
from edge_trgl.planning.choose import choose
from edge_trgl.planning.demand import store_demand
from edge_trgl.run.folder import RUNS, Run
from edge_trgl.runtime.errors import EdgeTrglError
from edge_trgl.runtime.memory.limits import Limits
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.programs import program
from tools.models.library import LIBRARY_MODELS

MODELS = (
    *LIBRARY_MODELS,
    "torchvision:squeezenet1_1@64",
    "torchvision:googlenet@64",
    "torchvision:inception_v3@96",
)
QUICK_MODELS = ("torchvision:resnet18@32", "torchvision:squeezenet1_1@64")
NUM_CLASSES = BATCH = 4
TOLERANCE = 1e-5
LIMITS = Limits(budget_mb=1e5)
REGIMES = ("parallel", "sequential", "multi-lap", "end-to-end")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.row:
        print(json.dumps(_row(options.row)))
        return 0
    models = options.models or (QUICK_MODELS if options.quick else MODELS)
    rows = [_in_a_process(name) for name in models]
    document = {**origin(threads=1), "rows": rows, "ok": all(row["ok"] for row in rows if not row["refused"])}
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else _table(rows))
    return 0 if document["ok"] else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("models.cut", __doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME@SIDE",
        help="models to try; default: all of the list, with --quick two",
    )
    parser.add_argument("--json", help="write the rows to this file, or to standard output (-)")
    parser.add_argument("--quick", action="store_true", help="two models, to try the tool")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _in_a_process(name: str) -> dict[str, Any]:
    done = subprocess.run(program("models.cut", "--row", name), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}\n{done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(_line(row), file=sys.stderr)
    return row


def _row(text: str) -> dict[str, Any]:
    """Everything about one model."""
    name, _, side = text.partition("@")
    row: dict[str, Any] = {"model": name, "side": int(side), "refused": None, "ok": False}
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        net = open_net(name, input_shape=(3, int(side), int(side)), num_classes=NUM_CLASSES)
    except EdgeTrglError as error:
        return {**row, "refused": error.message}
    assert net is not None
    row |= {"blocks": len(net.blocks), "cut_s": round(time.perf_counter() - start, 1)}
    row |= {"diff": _difference(net), "regimes": {}, **_trained(net, int(side))}
    return {**row, "ok": (row["diff"] or 0.0) <= TOLERANCE and set(row["regimes"]) == set(REGIMES)}


def _difference(net: Net) -> float | None:
    """The largest of a logit, between the chain with the model's classifier and the model."""
    if net.classifier is None:
        return None
    model = _disturbed(model_factory(net.name, net.input_shape, net.num_classes)()).eval()
    trunk = nn.Sequential(*(factory() for factory in net.chain().blocks)).eval()
    values = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for number, block in enumerate(trunk):
        tensors = tensors_of(block)
        copy_by_name(values, tensors, net.names(number, tensors))
    largest = 0.0
    for size in (3, 1):
        x = torch.randn(size, *net.input_shape, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            features = trunk(x)
            features = features.flatten(2).mean(2) if features.dim() > 2 else features
            found = model.get_submodule(net.classifier)(features) - model(x)
        largest = max(largest, float(found.abs().max()))
    return largest


def _disturbed(model: nn.Module) -> nn.Module:
    """What is initialised with zeros would prove nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


def _trained(net: Net, side: int) -> dict[str, Any]:
    """Parameters, planned MiB and a step, in every regime, as the product runs it."""
    RUNS.mkdir(exist_ok=True)
    found: dict[str, Any] = {"regimes": {}}
    with tempfile.TemporaryDirectory(prefix=".cut-", dir=RUNS) as scratch:
        source = _images(Path(scratch), side)
        for regime in REGIMES:
            run = _planned(Path(scratch) / regime, net, source, regime)
            planned = run.facts().planned
            result = training.train(open_run(run), limits=LIMITS, others_mb=0.0)
            found["regimes"][regime] = {
                "planned_mb": round(planned.plan.peak_mb - planned.plan.fixed_mb),
                "steps_s": result.work.seconds,
            }
            found["params"] = sum(planned.layout.num_params)
            _emptied(run)
    return found


def _planned(folder: Path, net: Net, source: Path, regime: str) -> Run:
    settings = {
        "data": {"source": str(source), "augment": False},
        "model": {"name": net.name, "modules": min(4, len(net.blocks))},
        "train": {"regime": regime, "epochs": "1", "batch_size": BATCH, "threads": 1},
        "budget": {"mb": 1e5, "probe": False},
    }
    run = Run.create(folder, resolve(settings))
    prepare.run(run, PrepareRequest())
    facts = run.facts()
    facts.net = net.document()
    facts.close()
    store_demand(run, LIMITS)
    choose(run, LIMITS)
    convert.run(run, Nothing())
    return run


def _images(folder: Path, side: int) -> Path:
    """One batch, to train on and to score: noise."""
    x = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    y = np.arange(BATCH)  # one image of each class
    path = folder / "images.npz"
    np.savez(path, x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    return path


def _emptied(run: Run) -> None:
    for path in run.modules.iterdir():
        path.unlink()


def _line(row: dict[str, Any]) -> str:
    if row["refused"]:
        return f"{row['model']:34s} refused: {row['refused']}"
    planned = "  ".join(f"{one['planned_mb']:5d}" for one in row["regimes"].values())
    diff = "      -" if row["diff"] is None else f"{row['diff']:7.1e}"
    return (
        f"{row['model']:34s} {row['side']:4d}  {row['params'] / 1e6:6.2f}  {row['blocks']:3d}  {diff}  {planned}"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    head = f"{'model':34s} side  params  blocks  diff   MiB: {', '.join(REGIMES)}"
    return "\n".join([head, *map(_line, rows)])


if __name__ == "__main__":
    sys.exit(main())
