"""Run `edge-trgl` in a scratch folder and measure it from outside."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.units import MIB
from tools.common.book import Book, Item
from tools.common.processes import CommandError, edge_trgl, output_of
from tools.common.programs import environment, program
from tools.prove.cases import COLD, GENEROUS_SHARE, LEVELS, NETS, NUM_CHECKED_BATCHES, REGIMES, Net
from tools.prove.watch import Hook, Watched, no_hook, watch


class Proof:
    """Runs in a scratch folder; `grouped`: in memory cgroups of their budgets."""

    def __init__(self, book: Book, scratch: Path, threads: int, *, grouped: bool) -> None:
        self.book = book
        self.grouped = grouped
        self._scratch = scratch
        self._threads = threads
        self._num_folders = 0
        self._cache, self._empty = self.folder(), self.folder()

    def row(self, net_name: str, regime: str, level: str) -> Item:
        """One net in one regime within one budget; what failed has an `error`."""
        key = f"{net_name}, {regime}, {level}"
        found = self.book.find("rows", key)
        if found is not None:
            return found
        say(key)
        item: Item = {"net": net_name, "regime": regime, "level": level}
        try:
            item |= self._row(NETS[net_name], net_name, regime, level)
        except CommandError as error:
            item["error"] = str(error)
        return self.book.put("rows", key, item)

    def minimum_mb(self, net_name: str, regime: str) -> float:
        """The smallest budget that the plan states.

        Raises:
            CommandError: planning failed.
        """
        key = f"{net_name}, {regime}"
        found = self.book.find("minimums", key)
        if found is None:
            say(f"{key}: the smallest budget")
            flags = self.flags(NETS[net_name], REGIMES[regime])
            found = self.book.put("minimums", key, {"budget_mb": self.plan("min", flags).document()["budget_mb"]})
        return float(found["budget_mb"])

    def _row(self, net: Net, net_name: str, regime: str, level: str) -> Item:
        minimum_mb = self.minimum_mb(net_name, regime)
        most_mb = max(minimum_mb, math.floor(GENEROUS_SHARE * psutil.virtual_memory().available / MIB))
        budget_mb = min(math.ceil(minimum_mb * LEVELS[level]), most_mb)
        flags = self.flags(net, REGIMES[regime])
        planned = self.plan(budget_mb, flags).document()["plan"]
        instant = self._instant(budget_mb, flags)
        cache = self.folder() if level == COLD else self._cache
        folder = self.folder()
        done = self.train(flags, folder, budget_mb, cache=cache)
        phases_mb = phases(folder)
        discard(folder)
        return {
            "budget_mb": budget_mb,
            "planned_mb": planned["peak_mb"],
            "probed": planned["probed"],
            "layout": planned["layout"],
            "instant_mb": instant["peak_mb"],
            "instant_layout": instant["layout"],
            "phases_mb": phases_mb,
            **figures(done, budget_mb),
        }

    def _instant(self, budget_mb: float, flags: Sequence[str]) -> Item:
        """The plan that rests on estimates: of the budget, or the smallest where it sees no other."""
        asked = self.plan(budget_mb, flags, "--no-probe", cache=self._empty)
        if asked.code == DoesNotFitError.exit_code:
            asked = self.plan("min", flags, "--no-probe", cache=self._empty)
        found: Item = asked.document()["plan"]
        return found

    def plan(self, budget_mb: float | str, flags: Sequence[str], *more: str, cache: Path | None = None) -> Watched:
        """`edge-trgl plan`, outside of any cgroup."""
        command = edge_trgl("plan", *flags, "--budget-mb", str(budget_mb), *more, "--json")
        return watch(command, environment=self.environment(cache or self._cache), limit_mb=None)

    def train(
        self,
        flags: Sequence[str],
        folder: Path,
        budget_mb: float,
        *more: str,
        cache: Path | None = None,
        limit_mb: float | None = None,
        hook: Hook = no_hook,
    ) -> Watched:
        """`edge-trgl train` in a cgroup of its budget, or of `limit_mb`."""
        budget = ("--budget-mb", str(budget_mb), *more)
        command = edge_trgl("train", *flags, *budget, "--run", str(folder), "--json")
        return self.watch(command, limit_mb or budget_mb, cache=cache, hook=hook)

    def watch(
        self, command: Sequence[str], limit_mb: float, *, cache: Path | None = None, hook: Hook = no_hook
    ) -> Watched:
        """A command in a cgroup of `limit_mb` MiB, unless that is no limit or there are no cgroups."""
        limit = limit_mb if self.grouped and math.isfinite(limit_mb) else None
        return watch(command, environment=self.environment(cache or self._cache), limit_mb=limit, hook=hook)

    def flags(self, net: Net, more: Sequence[str]) -> list[str]:
        """What every verb is told of a net, its images made."""
        sizes = ("--batch-size", str(net.batch_size), "--threads", str(self._threads))
        short_batch = ("--set", f"train.short_batch={'keep' if net.short else 'drop'}")
        return [*net.model, *sizes, *short_batch, "--data", str(self._images(net)), *more]

    def folder(self) -> Path:
        """A new name in the scratch folder."""
        self._num_folders += 1
        return self._scratch / f"{self._num_folders:03d}"

    def environment(self, cache: Path) -> dict[str, str]:
        """For a child: where its nets are found, and where it may keep what it measured."""
        return environment(XDG_CACHE_HOME=str(cache))

    def _images(self, net: Net) -> Path:
        """The .npz file with the net's images, made where there is none yet."""
        num_train, num_checked = net.batches * net.batch_size + net.short, NUM_CHECKED_BATCHES * net.batch_size
        path = self._scratch / f"{net.side}-{num_train}-{num_checked}.npz"
        if not path.is_file():
            counts = {"train": num_train, "val": num_checked, "test": num_checked}
            document = json.dumps({"file": str(path), "source": "sample", "side": net.side, **counts})
            output_of(program("common.images", document))
        return path


def figures(done: Watched, budget_mb: float) -> Item:
    """What is said of every run; of one that failed, the `error` too."""
    seen = {
        "outside_mb": done.peak_mb,
        "cgroup_mb": done.cgroup_mb,
        "kills": done.kills,
        "seconds": done.seconds,
    }
    try:
        summary = done.document()
    except CommandError as error:
        return {**seen, "error": str(error), "kept": False}
    peak_mb = summary["memory"]["peak_mb"]
    return {
        **seen,
        "summary_mb": peak_mb,
        "restarts": summary["restarts"],
        "lossy": summary["lossy"],
        "weights_sha256": summary["weights_sha256"],
        "kept": max(peak_mb, done.peak_mb) <= budget_mb and not done.kills,
    }


def phases(folder: Path) -> dict[str, float]:
    """MiB at most in each phase that the run in `folder` came to the end of; none where there is no run."""
    run, highest = Run(folder), dict[str, float]()
    if not run.state_file.is_file():
        return highest
    with closing(run.facts()) as facts:
        for phase in facts.phases():
            highest[phase.name] = max(phase.peak_mb, highest.get(phase.name, 0.0))
    return highest


def measured_mb(item: Mapping[str, Any]) -> float:
    """The peak of the whole tree: a mark that was reset between two looks from outside is in the summary."""
    return float(max(item["outside_mb"], item["summary_mb"]))


def discard(folder: Path) -> None:
    """Remove a run that is measured."""
    shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    """Tell what is being measured."""
    print(text, file=sys.stderr)
