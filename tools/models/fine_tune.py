"""Fine-tune a network that was trained on one data set to another, module by module, within a budget.

    python -m tools.models.fine_tune [--seeds N] [--threads N] [--budget-mb N] [--json FILE|-] [--quick]

A plain PyTorch loop trains timm's resnet18 on Fashion-MNIST and saves its state dict. `edge-trgl train` then
adapts it to a thousand images of MNIST, in four modules, within the budget: `scratch` from first weights of
its own, `all` from the state dict, `frozen` from the state dict with the first two modules left as they are
(--freeze 2). Test accuracy is that of the last depth on MNIST's 10,000 images, mean and 95 % interval over
seeds (each draws other training images); the peak is that of all processes together, seen from outside. Both
image sets are looked for in ${EDGE_TRGL_DATA:-~/.cache/edge-trgl-data}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.run.folder import RUNS
from tools.common.images import CACHE, save
from tools.common.intervals import mean_interval
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import CommandError, edge_trgl, watch

MODEL, NUM_CLASSES, SIDE, BATCH = "timm:resnet18", 10, 32, 64
ROWS = {"scratch": (), "all": ("--pretrained",), "frozen": ("--pretrained", "--freeze")}
NUM_FROZEN, NUM_MODULES = 2, 4
LIMIT_MB = 500.0


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fine-tune-", dir=RUNS) as scratch:
        folder = Path(scratch)
        weights, before = _pretrained(folder, 640 if options.quick else 10_000, 1 if options.quick else 3)
        target = _set(
            folder, "mnist", train=320 if options.quick else 20_000, test=200 if options.quick else 10_000
        )
        runs = [
            _adapted(row, seed, target, weights, folder, options)
            for seed in range(1 if options.quick else options.seeds)
            for row in ROWS
        ]
    document = {
        **origin(options.threads),
        "budget_mb": options.budget_mb,
        "accuracy_on_the_first_set": before,
        "rows": [_row(row, [run for run in runs if run["row"] == row]) for row in ROWS],
        "runs": runs,
        "ok": all(run["peak_mb"] <= options.budget_mb for run in runs),
    }
    if options.json not in (None, "-"):
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if options.json == "-" else _table(document))
    return 0 if document["ok"] else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("models.fine_tune", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs per row [3]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--budget-mb", type=float, default=LIMIT_MB, help="budget of each run [500]")
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="few images, one epoch, to try the tool")
    return parser.parse_args(arguments)


def _set(folder: Path, name: str, *, train: int, test: int) -> Path:
    """Images of a real set as a .npz file."""
    if not (CACHE / name).is_dir():
        raise SystemExit(f"the image set {name} is not in {CACHE / name}")
    path = folder / f"{name}.npz"
    save(str(path), source=str(CACHE / name), side=SIDE, train=train, val=BATCH, test=test)
    return path


def _pretrained(folder: Path, num_images: int, epochs: int) -> tuple[Path, float]:
    """A state dict of the model, trained as usual, and its test accuracy there."""
    arrays = np.load(_set(folder, "fashion-mnist", train=num_images, test=1_000))
    x, y = _tensors(arrays["x_train"], arrays["y_train"])
    torch.manual_seed(0)
    model = model_factory(MODEL, tuple(x.shape[1:]), NUM_CLASSES)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    path = folder / "pretrained.pt"
    torch.save(model.state_dict(), path)
    return path, _accuracy(model.eval(), *_tensors(arrays["x_test"], arrays["y_test"]))


def _tensors(images: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, H, W, 1] of bytes → [N, 1, H, W] of mean 0, roughly; labels as int64."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).sub_(0.3).div_(0.35)
    return x, torch.from_numpy(labels).long()


@torch.no_grad()
def _accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(torch.cat([model(part).argmax(1) for part in torch.split(x, BATCH)]).eq(y).float().mean())


def _adapted(
    row: str, seed: int, target: Path, weights: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One run of `edge-trgl train`."""
    values = {"--pretrained": str(weights), "--freeze": str(NUM_FROZEN)}
    flags = [text for flag in ROWS[row] for text in (flag, values[flag])]
    few = ("--set", f"data.limit={160 if options.quick else 1_000}")
    length = ("--epochs", "1" if options.quick else "5")
    run = folder / f"{row}-{seed}"
    command = edge_trgl(
        *(
            "train",
            "--data",
            str(target),
            "--model",
            MODEL,
            "--modules",
            str(NUM_MODULES),
            "--normalize",
            "data",
            *few,
            *length,
            *flags,
        ),
        *("--seed", str(seed), "--threads", str(options.threads)),
        *("--budget-mb", str(options.budget_mb), "--run", str(run), "--json"),
    )
    print(f"{row}, seed {seed}", file=sys.stderr)
    try:
        done = watch(command)
    except CommandError as error:
        raise SystemExit(str(error)) from error
    summary = json.loads(done.output)
    peak_mb = max(done.peak_mb, summary["memory"]["peak_mb"])
    return {
        "row": row,
        "seed": seed,
        "accuracy": summary["accuracy"]["last"],
        "peak_mb": peak_mb,
        "seconds": summary["time_s"],
    }


def _row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    mean, half = mean_interval([run["accuracy"] for run in runs])
    return {
        "row": name,
        "accuracy": mean,
        "interval": half,
        "peak_mb": max(run["peak_mb"] for run in runs),
        "seconds": sorted(run["seconds"] for run in runs)[len(runs) // 2],
    }


def _table(document: dict[str, Any]) -> str:
    lines = ["row      accuracy          peak MiB  seconds"]
    for row in document["rows"]:
        half = "" if row["interval"] is None else f" +- {100 * row['interval']:.2f}"
        accuracy = f"{100 * row['accuracy']:.2f}{half}"
        lines.append(f"{row['row']:8s} {accuracy:16s} {row['peak_mb']:9.0f} {row['seconds']:8.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
