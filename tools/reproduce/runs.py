"""Train one run of a paper table and keep its results."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.run.depth_gain import VALIDATION
from edge_trgl.run.folder import Run
from edge_trgl.runtime.storage.state import Metric
from tools.common.images import CACHE
from tools.common.processes import edge_trgl, output_of
from tools.reproduce.tables import Case, Row, Table, WrongChoiceError

QUICK = (
    *("--epochs", "1", "--laps", "1", "--batch-size", "32"),
    *("--set", "model.downsample=[]"),  # a head that is shared reads maps of one size
)
QUICK_NET = ("--model", "km-3-1", "--modules", "3", "--width", "4")
QUICK_ENCODER = ("--model", "km-3-1-encoder", "--width", "4")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all runs of one call share.

    `changes`: settings KEY=VALUE of every run, after those of its table, line and row. `faithful`: the authors'
    protocol. `quick`: a tiny net for an epoch, only to try the tool.
    """

    table: str
    changes: tuple[str, ...]
    faithful: bool
    quick: bool
    device: str
    budget_mb: str
    runs: Path


def row_of(table: Table, text: str) -> Row:
    """The row that `NAME` or `NAME@TAU` stands for.

    Raises:
        WrongChoiceError: the table has no such row, or TAU is no number.
    """
    name, at, tau = text.partition("@")
    if name not in table.rows:
        known = ", ".join(table.rows)
        raise WrongChoiceError(f"there is no row {name!r}; choose of {known}, with @TAU for another tau")
    row = table.rows[name]
    if not at:
        return row
    try:
        return Row(recipes=row.recipes, flags=(*row.flags, "--tau", str(float(tau))))
    except ValueError:
        raise WrongChoiceError(f"the row {text!r} has no number after @") from None


def recipe_of(job: Job, row: Row) -> str:
    """What `edge-trgl train --recipe` takes."""
    return ",".join((job.table, *row.recipes, *(("faithful",) if job.faithful else ())))


def flags_of(table: Table, job: Job, case: Case, row: Row, seed: int) -> list[str]:
    """The flags of one run.

    All of the line's images are trained on. What the depth is chosen on, and other values of τ compared on, are
    training images that the line leaves out; where it leaves none out, half of the test images.
    """
    flags = ["--recipe", recipe_of(job, row), *_data_flags(table), *table.flags, *case.flags, *row.flags]
    if case.limit is not None:
        flags += ["--set", f"data.limit={case.limit}"]
    if not job.faithful:
        flags += ["--set", f"data.choose_on={'half-test' if case.limit is None else 'unused'}"]
    if table.pretrains:
        flags += ["--pretrained", str(_encoder(job, seed) / "blocks.safetensors")]
    flags += [*(_quick_flags(table) if job.quick else ()), *settings(job.changes)]
    return [*flags, *_machine_flags(job, seed)]


def _data_flags(table: Table) -> list[str]:
    return ["--data", str(CACHE / table.data)]


def _machine_flags(job: Job, seed: int) -> list[str]:
    return ["--device", job.device, "--budget-mb", job.budget_mb, "--seed", str(seed)]


def _quick_flags(table: Table) -> tuple[str, ...]:
    if table.pretrains:
        return (
            *QUICK_ENCODER,
            *QUICK,
            *settings(["train.look_every=1", "data.limit=200", "data.validation=0.05"]),
        )
    return (*QUICK_NET, *QUICK)


def settings(changes: Iterable[str]) -> list[str]:
    """The flags for changes of the form KEY=VALUE."""
    return [part for change in changes for part in ("--set", change)]


def _encoder(job: Job, seed: int) -> Path:
    return job.runs / f"encoder-{seed}"


def _pretrain(table: Table, job: Job, seed: int) -> None:
    """Train the encoder of a seed, unless that is done: without labels, on the training images of all sizes."""
    concern = [change for change in job.changes if change.startswith(("model.", "data."))]
    quick = (*QUICK_ENCODER, "--epochs", "1") if job.quick else ()
    flags = ["--recipe", job.table, *_data_flags(table), *quick, *settings(concern), *_machine_flags(job, seed)]
    folder = _encoder(job, seed)
    if not (folder / "blocks.safetensors").is_file():
        print(f"encoder, seed {seed}: {folder}", file=sys.stderr)
        output_of(edge_trgl("pretrain", *flags, "--run", str(folder), "--json"))


def result(table: Table, job: Job, case: str, row: str, seed: int) -> dict[str, Any]:
    """Accuracies of one run, fractions, trained first if need be.

    Raises:
        CommandError: training failed, or the folder holds a run with other settings.
    """
    folder = job.runs / f"{case}-{row}-{seed}"
    asked = row_of(table, row)
    flags = flags_of(table, job, table.cases[case], asked, seed)
    print(f"{table.case_title} {case}, {row}, seed {seed}: {folder}", file=sys.stderr)
    if table.pretrains:
        _pretrain(table, job, seed)
    if finished(folder, flags) is None:
        output_of(edge_trgl("train", *flags, "--run", str(folder), "--json"))
    named = {"case": case, "row": row, "seed": seed, "recipe": recipe_of(job, asked), "device": job.device}
    found = {**named, **_scores(folder)}
    _slim(Run(folder))
    return found


def finished(folder: Path, flags: Sequence[str]) -> dict[str, Any] | None:
    """The summary of a finished run with exactly these settings."""
    run = Run(folder)
    if run.summary() is None or run.config_file.read_text() != output_of(edge_trgl("train", *flags, "--dry-run")):
        return None  # training refuses a folder with other settings, and says which
    return run.summary()


def _scores(folder: Path) -> dict[str, Any]:
    run = Run(folder)
    facts, summary = run.facts(), json.loads(run.summary_file.read_text())
    scores, looks = facts.result.scores, facts.metrics(VALIDATION)
    facts.close()
    return {
        "last": scores.last,
        "best": max(scores.test_per_depth),
        "chosen": scores.chosen,
        "chosen_depth": scores.chosen_depth,
        "validation": scores.per_depth[-1],
        **_last_tenth(looks, parse_epochs(run.config().train.epochs, len(scores.per_depth))[-1]),
        "test_per_depth": list(scores.test_per_depth),
        "seconds": summary["time_s"],
        "weights_sha256": summary["weights_sha256"],
    }


def _last_tenth(looks: Sequence[Metric], epochs: int) -> dict[str, Any]:
    """Mean accuracies on left-over images over looks in the last tenth of the epochs; nothing without looks."""
    found: dict[int, list[float]] = {}
    for look in looks:
        if look.epoch >= epochs - max(epochs // 10, 1):
            found.setdefault(look.module, []).append(look.num_correct / look.num_images)
    means = [statistics.mean(accuracies) for _, accuracies in sorted(found.items())]
    return {"last_tenth": means[-1], "last_tenth_per_depth": means} if means else {}


def _slim(run: Run) -> None:
    """Leave the run's configuration, database, summary and report: a table has dozens of runs."""
    for folder in (run.data, run.modules, run.boundaries, run.scratch):
        shutil.rmtree(folder, ignore_errors=True)
