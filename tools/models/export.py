"""Export every network with the classifiers of all depths and compare it with torch on 1,000 real images.

    python -m tools.models.export [--models NAME@SIDE ...] [--json FILE|-] [--quick]

Each is trained for a few batches of the sample's images or, at another side than 28, of CIFAR-10's, resized; then
`edge-trgl export RUN --depth all` writes model.onnx. The validation images, which no batch was made of, go through
the modules in torch, one at a time, and through model.onnx in onnxruntime, which optimises it, in batches of 1 to
64; of every depth the largest and the median difference of a logit count, and how many images get the same class.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from edge_trgl.data import RecordReader
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.engine.visits import Span
from edge_trgl.export.compare.module_by_module import Images, batches_of
from edge_trgl.run.folder import RUNS, Run
from tools.common.images import CACHE
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import edge_trgl, output_of
from tools.common.programs import program
from tools.models.library import LIBRARY_MODELS

Logits = npt.NDArray[np.float32]

MODELS = (
    "km-10-1@28",
    "km-5-2-encoder@28",
    "resnet110@32",
    "resnet110-heavy@32",
    "resnet50@32",
    "resnet101@32",
    "resnet152@32",
    "vgg19@32",
    "swin-tiny@64",
    *LIBRARY_MODELS,
)
QUICK_MODELS = ("km-3-1@28",)
NUM_TRAINED, BATCH = 512, 64
NUM_COMPARED = 1000
SIZES = (1, 2, 7, 32, 64)
"""Of the batches that model.onnx takes, in turn."""

LARGEST, MEDIAN = 1e-4, 1e-5


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.row:
        print(json.dumps(_row(options.row, options.compared)))
        return 0
    models = options.models or (QUICK_MODELS if options.quick else MODELS)
    file = None if options.json in (None, "-") else Path(options.json)
    rows: list[dict[str, Any]] = []
    for name in models:
        rows.append(_in_a_process(name, 64 if options.quick else NUM_COMPARED))
        if file is not None:  # as they come: all of them take half an hour
            file.write_text(json.dumps(_document(rows), indent=1) + "\n")
    document = _document(rows)
    print(json.dumps(document, indent=1) if options.json == "-" else "\n".join([HEAD, *map(_line, rows)]))
    return 0 if document["ok"] else 1


def _document(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {**origin(torch.get_num_threads()), "rows": rows, "ok": all(row["ok"] for row in rows)}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("models.export", __doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME@SIDE", help="default: a list; --quick: a small one")
    parser.add_argument("--json", help="write the rows to this file, or to standard output (-)")
    parser.add_argument("--quick", action="store_true", help="one small net and 64 images, to try the tool")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--compared", type=int, default=NUM_COMPARED, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _in_a_process(name: str, num_compared: int) -> dict[str, Any]:
    command = program("models.export", "--row", name, "--compared", str(num_compared))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}\n{done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(_line(row), file=sys.stderr, flush=True)
    return row


def _row(text: str, num_compared: int) -> dict[str, Any]:
    """Everything about one network."""
    name, _, side = text.partition("@")
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=RUNS) as scratch:
        folder = Path(scratch).absolute() / "run"
        images = _images(Path(scratch).absolute() / "images.npz", int(side), num_compared)
        settings = ("--batch-size", str(BATCH), "--epochs", "1", "--no-probe", "--budget-mb", "8000")
        output_of(edge_trgl("train", "--model", name, "--data", str(images), *settings, "--run", str(folder)))
        output_of(edge_trgl("export", str(folder), "--depth", "all"))
        opened = open_run(Run(folder), "cpu")
        depths = _compared(opened)
        params = sum(opened.facts.planned.layout.num_params)
    row = {"model": name, "side": int(side), "params": params, "depths": depths}
    return {**row, "ok": all(map(_holds, depths))}


def _images(path: Path, side: int, num_compared: int) -> Path:
    source = "sample" if side == 28 else str(CACHE / "cifar10")
    sizes = {"train": NUM_TRAINED, "val": num_compared, "test": BATCH}
    document = {"file": str(path), "source": source, "side": None if side == 28 else side, **sizes}
    output_of(program("common.images", json.dumps(document)))
    return path


def _compared(opened: OpenRun) -> list[dict[str, Any]]:
    """The figures of every depth, from 1."""
    wanted = _by_torch(opened)
    found = _by_onnx(opened)
    return [_figures(*pair) for pair in zip(wanted, found, strict=True)]


def _figures(wanted: Logits, found: Logits) -> dict[str, Any]:
    difference = np.abs(wanted - found)
    return {
        "largest": float(difference.max()),
        "median": float(np.median(difference)),
        "same_class": float((wanted.argmax(1) == found.argmax(1)).mean()),
        "scale": float(np.abs(wanted).max()),
    }


@torch.no_grad()
def _by_torch(opened: OpenRun) -> list[Logits]:
    """The logits [N, classes] of each module's classifier."""
    feed = opened.feed("val")
    span = Span("val", 0, 0, 1, shuffled=False, augmented=False)
    batches = [
        feed.images(span, 0, np.asarray(samples, np.int64)).clone() for samples in batches_of(len(feed), BATCH)
    ]
    logits = []
    for module in range(len(opened)):
        local = opened.deployed(module, head=True)
        batches = [local.trunk(batch) for batch in batches]
        logits.append(torch.cat([local.head(batch) for batch in batches]).numpy())
    return logits


def _by_onnx(opened: OpenRun) -> list[Logits]:
    """The same of model.onnx, in batches of all sizes."""
    session = onnxruntime.InferenceSession(opened.run.onnx_file, providers=["CPUExecutionProvider"])
    images = Images(RecordReader(opened.run.data, "val", opened.info))
    count = opened.info.splits["val"].num_images
    parts = [session.run(None, {"input": images.pixels(samples)}) for samples in _in_turn(count)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _in_turn(count: int) -> Iterator[range]:
    """0 to `count` in order, in parts of `SIZES`."""
    first, sizes = 0, itertools.cycle(SIZES)
    while first < count:
        samples = range(first, min(first + next(sizes), count))
        yield samples
        first = samples.stop


def _holds(depth: Mapping[str, Any]) -> bool:
    return bool(depth["largest"] <= LARGEST and depth["median"] <= MEDIAN and depth["same_class"] == 1.0)


HEAD = f"{'model':34s} side  params  depths  largest  median  of logits to  same class"


def _line(row: Mapping[str, Any]) -> str:
    depths: Sequence[Mapping[str, Any]] = row["depths"]
    largest, median, scale = (max(depth[name] for depth in depths) for name in ("largest", "median", "scale"))
    same = min(depth["same_class"] for depth in depths)
    return (
        f"{row['model']:34s} {row['side']:4d}  {row['params'] / 1e6:6.2f}  {len(depths):6d}  "
        f"{largest:7.1e}  {median:7.1e}  {scale:12.2g}  {100 * same:.1f} %{'' if row['ok'] else '  MISSED'}"
    )


if __name__ == "__main__":
    sys.exit(main())
