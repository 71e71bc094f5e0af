"""The table `sample`: train on the bundled images and score on two test sets."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_trgl.data.sources import idx, sample
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.supervisor import run_child
from tools.common.images import CACHE
from tools.common.intervals import mean_interval
from tools.common.machine import commit, today
from tools.common.processes import edge_trgl, output_of
from tools.reproduce.runs import finished
from tools.reproduce.summary import percent

FASHION = CACHE / "fashion-mnist"
ROWS = {"VanGL": ("--no-transport",), "TRGL": (), "end-to-end": ("--regime", "end-to-end")}
COLUMNS = ("chosen", "last")

FLAGS = ("--data", "sample", "--model", "km-10-1", "--width", "32")
"""Of every run; all else is the default recipe."""

QUICK = ("--model", "km-3-1", "--width", "16", "--epochs", "1", "--set", "data.limit=1000")
QUICK_TEST = 500


def document(name: str, seeds: int, runs: Path, *, quick: bool) -> dict[str, Any]:
    """The results of all runs, trained first where need be.

    Raises:
        CommandError: training failed.
    """
    flags, seeds = ((*FLAGS, *QUICK), 1) if quick else (FLAGS, seeds)
    runs.mkdir(parents=True, exist_ok=True)
    full = full_test(runs / "full-test.npz", QUICK_TEST if quick else None)
    results = [result(row, seed, flags, runs, full) for seed in range(seeds) for row in ROWS]
    return {
        "date": today(),
        "commit": commit(),
        "table": name,
        "flags": list(flags),
        "rows": summarise(results),
        "runs": results,
    }


def result(row: str, seed: int, shared: Sequence[str], runs: Path, full: Path | None) -> dict[str, Any]:
    """Accuracies of one run, trained first if need be: fractions by test set and depth.

    Raises:
        CommandError: training failed, or the folder holds a run with other settings.
    """
    folder, flags = runs / f"{row}-{seed}", [*shared, *ROWS[row], "--seed", str(seed)]
    print(f"{row}, seed {seed}: {folder}", file=sys.stderr)
    summary = finished(folder, flags)
    if summary is None:
        summary = json.loads(output_of(edge_trgl("train", *flags, "--run", str(folder), "--json")))
    found = {"row": row, "seed": seed, "weights_sha256": summary["weights_sha256"]}
    found["chosen_depth"] = summary["accuracy"]["chosen_depth"]
    found["sample"] = {column: summary["accuracy"][column] for column in COLUMNS}
    if full is not None:
        scores = scored_on(folder, full)
        assert scores["weights_sha256"] == summary["weights_sha256"], "other weights were scored than were trained"
        found["full"] = {column: scores[column] for column in COLUMNS}
    return found


def full_test(path: Path, num_test: int | None) -> Path | None:
    """The sample's training images with the full set's test images, None where the full set is not."""
    if not FASHION.is_dir():
        return None
    if not path.is_file():
        train, test = sample.load().splits["train"], idx.load(FASHION).splits["test"]
        arrays: dict[str, Any] = {}
        for name, split, count in (("train", train, None), ("test", test, num_test)):
            arrays[f"y_{name}"] = split.labels[:count]
            samples = np.arange(len(arrays[f"y_{name}"]), dtype=np.int64)
            arrays[f"x_{name}"] = np.concatenate(list(split.batches(samples)))
        np.savez(path, **arrays)
    return path


def scored_on(folder: Path, data: Path) -> dict[str, Any]:
    """`edge-trgl evaluate` of a copy of the run that reads other test images; kept beside the run as JSON."""
    kept = folder.with_name(f"{folder.name}.full.json")
    sha256 = Run(folder).summary()["weights_sha256"]  # type: ignore[index]
    if kept.is_file():
        scores: dict[str, Any] = json.loads(kept.read_text())
        if scores["weights_sha256"] == sha256:
            return scores
    copy = Run(folder.with_name(f"{folder.name}.full"))
    shutil.rmtree(copy.folder, ignore_errors=True)
    shutil.copytree(folder, copy.folder, ignore=shutil.ignore_patterns("data", "report.html"))
    settings = copy.config_file.read_text()
    copy.config_file.write_text(settings.replace('source = "sample"', f"source = {json.dumps(str(data))}"))
    run_child(["-m", "edge_trgl.jobs", "prepare", str(copy.folder)], on_message=lambda message: None)
    kept.write_text(output_of(edge_trgl("evaluate", str(copy.folder), "--json")))
    shutil.rmtree(copy.folder)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def summarise(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One item a row and test set: mean accuracy and half its 95 % interval, at the chosen and the last depth."""
    summary = []
    for test in ("sample", "full"):
        for row in ROWS:
            mine = [found[test] for found in results if found["row"] == row and test in found]
            if mine:
                means = {column: mean_interval([scores[column] for scores in mine]) for column in COLUMNS}
                summary.append({"test": test, "row": row, "seeds": len(mine), **means})
    return summary


def text_of(document: dict[str, Any]) -> str:
    """Format the results as text."""
    titles = {"sample": "the sample's test images", "full": "test images of the full set"}
    lines = [f"{document['table']}: test accuracy, %, mean ± 95 % interval over seeds"]
    lines.append(f"{'':12}{'chosen depth':>18}{'last depth':>18}")
    shown = ""
    for item in document["rows"]:
        if item["test"] != shown:
            shown = item["test"]
            lines.append(titles[shown])
        lines.append(f"  {item['row']:10}" + "".join(f"{percent(*item[column]):>18}" for column in COLUMNS))
    return "\n".join(lines)
