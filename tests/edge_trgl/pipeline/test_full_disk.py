"""A disk that fills up in the middle: back to the last commit, on with less, and the weights stay the same."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import threading

import pytest
from plans import PLENTY

from edge_trgl.config.sources import resolve
from edge_trgl.engine.commits import Ledger
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.training import ATTEMPTS
from edge_trgl.planning.choose import choose
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DiskFullError, DoesNotFitError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage import disk_space, files
from edge_trgl.runtime.units import MIB
from tests.conftest import TINY, flat

LONG = {
    "data": {"limit": 320},  # 256 of them to train on, in 16 batches: a visit each, and a chunk
    "train": {"epochs": "4", "checkpoint_minutes": 0.0},
    "model": {"name": "km-3-1", "width": 16},
    "budget": {"mb": "auto", "resident": "1"},  # as large as may be: the suite is the parent, and counts
}
SEQUENTIAL = {"train": {"regime": "sequential", "views": 2}}

DISK_MB = 24


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of `DISK_MB` MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={DISK_MB}m".encode()):
        pytest.skip(f"no file system can be mounted: {os.strerror(ctypes.get_errno())}")
    yield folder
    assert library.umount2(os.fsencode(folder), 2) == 0  # 2: though a process may still use it


class Filler:
    """Takes all of a disk but `left_mb`, and what the run sets free as well, until it is told to let go."""

    def __init__(self, folder, left_mb):
        self._path = folder / "somebody-else"
        self._target = int((DISK_MB - left_mb) * MIB)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def start(self):
        if not self._thread.is_alive() and not self._left.is_set():
            self._thread.start()

    def let_go(self):
        self._left.set()
        self._thread.join()
        self._path.unlink()

    def _fill(self):
        fd, size = os.open(self._path, os.O_CREAT | os.O_WRONLY), 0
        while not self._left.wait(0.0002):
            step = min(self._target - size, int(disk_space.free_mb(self._path) * MIB))
            if step > 0:
                with contextlib.suppress(OSError):  # the run was faster
                    os.posix_fallocate(fd, size, step)
                    size += step
        os.close(fd)


def pipeline_of(folder, listener, *settings):
    return Pipeline(Run.create(folder, resolve(TINY, LONG, *settings)).folder, listener)


@pytest.fixture
def undisturbed_of(trained_copy):
    """What the settings of `pipeline_of` give in one go, wherever boundaries are and however often it commits."""

    def make(*settings):
        train = {"train": {**LONG["train"], "checkpoint_minutes": 1e9}}
        for more in settings:
            train["train"] |= more["train"]
        return trained_copy("undisturbed", **flat({**LONG, **train}))

    return make


def quiet(message):
    pass


def events(run, kind):
    facts = run.facts()
    found = [event.text for event in facts.events() if event.kind == kind]
    facts.close()
    return found


def planned(pipeline, place, placement):
    """Has the pipeline's run a plan with its boundaries at `placement`; returns that plan's MiB on the disk."""
    facts = Run(pipeline.folder).facts()
    pipeline.plan()
    place(Run(pipeline.folder), placement)
    disk_mb = facts.planned.plan.disk_mb
    facts.close()
    return disk_mb


class Witness:
    """A listener that fills the disk once training has told of its progress, and keeps what it was warned of."""

    def __init__(self, filler, *, let_go_at=None):
        self.filler = filler
        self.warnings = []
        self._let_go_at = let_go_at

    def __call__(self, message):
        if message["kind"] == "progress":
            self.filler.start()
        if message["kind"] == "warning":
            self.warnings.append(message["text"])
            if len(self.warnings) == self._let_go_at:
                self.filler.let_go()


@pytest.mark.slow
def test_in_parallel_training_what_has_no_room_on_the_disk_stays_in_memory(
    undisturbed_of, small_disk, place, forked_jobs
):
    undisturbed = undisturbed_of()
    pipeline = pipeline_of(small_disk / "run", quiet)
    planned_mb = planned(pipeline, place, "disk")
    left_mb = planned_mb - 1.2  # the smaller boundary takes 1.6
    pipeline.listener = Witness(Filler(small_disk, left_mb))
    summary = pipeline.train()
    assert summary["weights_sha256"] == undisturbed.sha256
    assert summary["restarts"] >= 1
    assert summary["lossy"] == []
    # While the disk still fills up, there may seem to be room.
    told = next(text for text in events(Run(pipeline.folder), "restart") if " -> " in text)
    assert "the disk is full" in told
    before, after = told.split(" -> ")
    assert ("boundaries on disk" in before, "boundaries in memory" in after) == (True, True)
    assert any(text.startswith(told) for text in pipeline.listener.warnings)
    assert Run(pipeline.folder).facts().planned.plan.disk_mb <= left_mb
    pipeline.listener.filler.let_go()


@pytest.mark.slow
def test_in_sequential_training_it_waits_for_room_and_goes_on(undisturbed_of, small_disk, forked_jobs):
    undisturbed = undisturbed_of(SEQUENTIAL)
    pipeline = pipeline_of(small_disk / "run", quiet, SEQUENTIAL)
    facts = Run(pipeline.folder).facts()
    pipeline.plan()
    pipeline.listener = Witness(Filler(small_disk, facts.planned.plan.disk_mb - 1.2), let_go_at=ATTEMPTS - 1)
    summary = pipeline.train()
    assert summary["weights_sha256"] == undisturbed.sha256
    assert summary["restarts"] == ATTEMPTS - 1
    assert all("the plan stays" in text for text in events(Run(pipeline.folder), "restart"))


@pytest.mark.slow
def test_without_room_it_stops_says_how_much_is_missing_and_can_be_resumed(
    undisturbed_of, small_disk, forked_jobs
):
    undisturbed = undisturbed_of(SEQUENTIAL)
    pipeline = pipeline_of(small_disk / "run", quiet, SEQUENTIAL)
    facts = Run(pipeline.folder).facts()
    pipeline.plan()
    filler = Filler(small_disk, facts.planned.plan.disk_mb - 1.2)
    pipeline.listener = Witness(filler)
    with pytest.raises(DiskFullError, match="the disk is full") as caught:
        pipeline.train()
    assert caught.value.exit_code == 5
    assert re.search(
        r"free [123] MiB on the disk that holds .*/run, then go on: edge-trgl resume", caught.value.hint
    )
    assert f"{ATTEMPTS} times without progress" in events(Run(pipeline.folder), "stop")[0]
    # Before it starts again, what is free is held against the plan.
    with pytest.raises(DoesNotFitError, match=r"does not fit \d+ MiB of the disk"):
        Pipeline(pipeline.folder, quiet).train()
    filler.let_go()
    resumed = Pipeline(pipeline.folder, quiet).train()
    assert resumed["weights_sha256"] == undisturbed.sha256


class FullAt(files.FileSystem):
    """A disk on which a folder may take so many MiB."""

    def __init__(self, folder, limit_mb):
        self.folder = folder
        self.limit_mb = limit_mb
        self.refusals = 0

    def fallocate(self, fd, size):
        if disk_space.taken_mb(self.folder) + size / MIB > self.limit_mb:
            self.refusals += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().fallocate(fd, size)


def test_chunks_become_shorter_where_one_ends_and_the_weights_stay_the_same(plan_run, finish, monkeypatch):
    settings = {"train__epochs": "4", "budget__resident": "1", "data__limit": 400, "model__width": 8}
    undisturbed = finish(plan_run("undisturbed", **settings))
    # The least in memory: boundaries on disk, in chunks as long as an epoch.
    run = plan_run("broken", None, **settings, train__checkpoint_minutes=0.0)
    facts = run.facts()
    plan = facts.planned.plan
    assert (plan.layout.placement, plan.layout.chunk) == ("disk", 20)
    disk = FullAt(run.folder, 1e6)
    monkeypatch.setattr(files, "system", disk)
    # The disk is found full when a chunk has ended and the next one asks for its first boundary.
    monkeypatch.setattr(Ledger, "commit", filling(disk, plan.disk_mb - 1.6))
    with pytest.raises(DiskFullError):
        finish(run)
    assert disk.refusals == 1
    assert facts.position() > 0
    run.remove_uncommitted(facts)
    changed = choose(run, Limits(budget_mb=plan.peak_mb, disk_mb=disk.limit_mb), refused="disk").changed
    assert "chunks of 20" in changed.split(" -> ")[0]
    assert "chunks of 5," in changed.split(" -> ")[1]
    assert finish(run).sha256 == undisturbed.sha256
    assert disk.refusals == 1
    images = [sum(m.num_images for m in r.facts().metrics("train")) for r in (run, undisturbed.run)]
    assert images[0] == images[1]


def filling(disk, limit_mb):
    """A commit after which, at the end of the first epoch, the disk has only so much room."""
    commit = Ledger.commit

    def commit_and_fill(self):
        commit(self)
        if not self.activations.names and self.facts.position() > 0:
            disk.limit_mb = limit_mb

    return commit_and_fill


class FullNowAndThen(files.FileSystem):
    """A disk that is full at every N-th call that asks for space, or opens a file to write."""

    def __init__(self, every):
        self.every = every
        self.num_calls = 0

    def _ask(self):
        self.num_calls += 1
        if self.num_calls % self.every == 0:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def open(self, path, flags):
        if flags & os.O_CREAT:
            self._ask()
        return super().open(path, flags)

    def pwrite(self, fd, data, offset):
        self._ask()
        return super().pwrite(fd, data, offset)

    def fallocate(self, fd, size):
        self._ask()
        super().fallocate(fd, size)


WAYS = {
    "parallel": {"budget__resident": "1", "budget__chunk": "2"},
    "sequential": {"train__views": 2},
    "multi-lap": {"train__laps": 2},
    "paged": {"train__regime": "end-to-end"},
}


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["memory", "disk"])
@pytest.mark.parametrize("way", WAYS)
def test_full_at_any_moment_it_goes_on_to_the_same_weights(
    plan_run, finish, follow, place, monkeypatch, way, placement
):
    settings = {"train__regime": way, "train__checkpoint_minutes": 0.0, **WAYS[way]}
    runs = [plan_run(name, **settings) for name in ("undisturbed", "full")]
    for run in runs:
        if way == "paged":
            follow(run, "rounds")
        place(run, placement)
    undisturbed, run = finish(runs[0]), runs[1]
    facts, num_full = run.facts(), 0
    monkeypatch.setattr(files, "system", FullNowAndThen(every=61))
    while not facts.is_trained:
        try:
            finish(run)
        except DiskFullError:
            num_full += 1
            run.remove_uncommitted(facts)
            choose(run, PLENTY, refused="disk")
    assert num_full > 1
    assert facts.result.weights_sha256 == undisturbed.sha256
