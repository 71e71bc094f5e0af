"""Sections `state` and `balloon` of the proof: runs that are killed by us and by the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import cgroup
from tools.common.book import Item
from tools.common.processes import CommandError, edge_trgl, job_of
from tools.common.programs import program
from tools.prove.cases import (
    BALLOON,
    BALLOON_BUDGET_MB,
    BALLOON_FLAGS,
    BALLOON_ROOM_MB,
    STATE,
    STATE_BUDGET_MB,
    STATE_FLAGS,
)
from tools.prove.proof import Proof, discard, figures, say

COMMIT_ALWAYS = ("--set", "train.checkpoint_minutes=0")
FIRST = "1000"
"""As oom_score_adj: the kernel kills this process before all others."""


def state(proof: Proof) -> Item:
    """A net of several times its budget: the worker killed, then all of it; resumed and evaluated within."""
    found = proof.book.find("state", "state")
    if found is not None:
        return found
    say(f"{STATE.title} in {STATE_BUDGET_MB:.0f} MiB")
    folder = proof.folder()
    try:
        item = _state(proof, folder)
    except CommandError as error:
        item = {"error": str(error)}
    discard(folder)
    return proof.book.put("state", "state", item)


def _state(proof: Proof, folder: Path) -> Item:
    flags = [*proof.flags(STATE, STATE_FLAGS), *COMMIT_ALWAYS]
    table = proof.plan(STATE_BUDGET_MB, flags).document()["table"]
    num_modules = len(table)
    killer = Killer(folder, worker_at=num_modules // 2, all_at=num_modules + num_modules // 2)
    first = proof.train(flags, folder, STATE_BUDGET_MB, hook=killer)
    resumed = proof.watch(edge_trgl("resume", str(folder), "--json"), STATE_BUDGET_MB)
    item = figures(resumed, STATE_BUDGET_MB)
    evaluated = proof.watch(edge_trgl("evaluate", str(folder), "--json"), STATE_BUDGET_MB)
    return {
        "budget_mb": STATE_BUDGET_MB,
        "state_mb": sum(row["weights_mb"] + row["momentum_mb"] for row in table),
        "killed": killer.done,
        "peaks_mb": {"train": first.peak_mb, "resume": resumed.peak_mb, "evaluate": evaluated.peak_mb},
        "kernel_kills": sum(watched.kills or 0 for watched in (first, resumed, evaluated)),
        "same_weights": evaluated.document()["weights_sha256"] == item.get("weights_sha256"),
        **item,
    }


class Killer:
    """A hook that kills the worker once the run has committed `worker_at` visits, and all of it at `all_at`.

    `done`: the position of each kill.
    """

    def __init__(self, folder: Path, *, worker_at: int, all_at: int) -> None:
        self.done: list[int] = []
        self._folder = folder
        self._moments = (worker_at, all_at)

    def __call__(self, alive: Sequence[int], group: cgroup.Cgroup | None) -> None:
        worker = worker_of(alive)
        if worker is None or len(self.done) == len(self._moments):
            return
        position = position_of(self._folder)
        if position >= self._moments[len(self.done)]:
            for pid in alive if self.done else [worker]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.done.append(position)


def balloon(proof: Proof) -> Item:
    """A run whose worker the kernel kills for another process in its cgroup: it must end in the same weights."""
    found = proof.book.find("balloon", "balloon")
    if found is not None:
        return found
    say(f"{BALLOON.title}: a balloon in its cgroup")
    flags = [*proof.flags(BALLOON, BALLOON_FLAGS), *COMMIT_ALWAYS]
    item: Item = {"budget_mb": BALLOON_BUDGET_MB}
    try:
        folder = proof.folder()
        calm = proof.train(flags, folder, BALLOON_BUDGET_MB).document()
        discard(folder)
        item |= _disturbed(proof, flags)
        item["same_weights"] = item.get("weights_sha256") == calm["weights_sha256"]
    except CommandError as error:
        item["error"] = str(error)
    return proof.book.put("balloon", "balloon", item)


def _disturbed(proof: Proof, flags: Sequence[str]) -> Item:
    folder = proof.folder()
    room_mb = BALLOON_BUDGET_MB + BALLOON_ROOM_MB
    with closing(Balloon(folder)) as inflated:
        done = proof.train(flags, folder, BALLOON_BUDGET_MB, limit_mb=room_mb, hook=inflated)
    item = {**figures(done, BALLOON_BUDGET_MB), "room_mb": room_mb, "positions": inflated.positions}
    discard(folder)
    return item


class Balloon:
    """A hook that starts the balloon in the cgroup of a run, to the worker's loss, when a visit is committed.

    `positions`: of the run when the balloon began to grow.
    """

    def __init__(self, folder: Path) -> None:
        self.positions: list[int] = []
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, alive: Sequence[int], group: cgroup.Cgroup | None) -> None:
        assert group is not None
        worker = worker_of(alive)
        if self._process is not None or worker is None:
            return
        position = position_of(self._folder)
        if position > 0:
            self.positions.append(position)
            Path(f"/proc/{worker}/oom_score_adj").write_text(FIRST)
            command = program("prove.balloon", str(group.path))
            self._process = subprocess.Popen(command, preexec_fn=partial(cgroup.enter, group.path))

    def close(self) -> None:
        """Let the air out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def worker_of(alive: Sequence[int]) -> int | None:
    """The training process among `alive`."""
    return next((pid for pid in alive if job_of(pid) == "train"), None)


def position_of(folder: Path) -> int:
    """How far the run in `folder` has committed; its database is there once a worker is."""
    with closing(Run(folder).facts()) as facts:
        return facts.position()
