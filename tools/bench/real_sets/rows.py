"""One row of one set: a training from outside, ours or in plain PyTorch."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.real_sets.sets import RealSet
from tools.common.processes import edge_trgl, watch
from tools.common.programs import program

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to train. `lr`: of plain PyTorch; None is the product, with its defaults."""

    title: str
    lr: float | None = None
    resize: str = "squash"
    flip: bool = False


ROWS = {
    "ours": Row(title="edge-trgl, parallel"),
    "plain-0.1": Row(title="plain PyTorch, end to end, rate 0.1", lr=0.1),
    "plain-0.02": Row(title="plain PyTorch, end to end, rate 0.02", lr=0.02),
    "flip": Row(title="mirrored", flip=True),
    "crop": Row(title="--resize crop", resize="crop"),
    "pad": Row(title="--resize pad", resize="pad"),
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """`scratch`: a folder for runs. `budget_mb`: of the product's."""

    scratch: Path
    budget_mb: float
    threads: int


def measure(bench: Bench, real: RealSet, data: Path, row: Row, seed: int) -> dict[str, Any]:
    """Train and score once; returns accuracy, peak MiB of all processes, seconds, and seconds of all processors.

    Raises:
        CommandError: the training failed.
    """
    run = bench.scratch / "run"
    command = _ours(bench, real, data, row, seed, run) if row.lr is None else _plain(bench, real, data, row, seed)
    start, worked = time.monotonic(), _processor_seconds()
    done = watch(command)
    figures = {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_s": round(_processor_seconds() - worked, 1),
        "peak_mb": round(done.peak_mb, 1),
    }
    shutil.rmtree(run, ignore_errors=True)
    found = json.loads(done.output)
    return {"seed": seed, **(_summary(found) if row.lr is None else found), **figures}


def _ours(bench: Bench, real: RealSet, data: Path, row: Row, seed: int, run: Path) -> Sequence[str]:
    photos = () if real.image_size is None else _of_photos(real.image_size, row)
    return edge_trgl(
        *("train", "--data", str(data), "--model", real.model, "--width", str(real.width)),
        *("--epochs", str(real.epochs), "--batch-size", str(BATCH), *photos),
        *("--budget-mb", str(bench.budget_mb), "--threads", str(bench.threads), "--seed", str(seed)),
        *("--run", str(run), "--json"),
    )


def _of_photos(image_size: int, row: Row) -> Sequence[str]:
    return (
        *("--image-size", str(image_size), "--resize", row.resize),
        "--flip" if row.flip else "--no-flip",
    )


def _plain(bench: Bench, real: RealSet, data: Path, row: Row, seed: int) -> Sequence[str]:
    arguments = {
        "data": str(data),
        "model": real.model,
        "width": real.width,
        "epochs": real.epochs,
        "batch_size": BATCH,
        "lr": row.lr,
        "seed": seed,
        "threads": bench.threads,
        "image_size": real.image_size,
        "resize": row.resize,
    }
    return program("bench.real_sets.plain", json.dumps(arguments))


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    scores, memory = found["accuracy"], found["memory"]
    return {
        "accuracy": scores["chosen"],
        "last": scores["last"],
        "told_peak_mb": memory["peak_mb"],
        "planned_peak_mb": memory["planned_peak_mb"],
    }


def _processor_seconds() -> float:
    """Of all processes that this one started and that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
