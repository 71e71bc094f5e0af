"""The run's folder never takes more of the disk than the plan says, nor much less."""

from __future__ import annotations

import itertools

import pytest

from edge_trgl.engine.commits import Ledger
from edge_trgl.runtime.storage import disk_space, files

WAYS = {
    "parallel": {"budget__chunk": "16", "budget__resident": "1"},
    "multi-lap": {"train__laps": 2, "train__views": 2},
    "sequential": {"train__views": 2},
    "paged": {"train__regime": "end-to-end", "train__epochs": "1", "data__limit": 250},
    "frozen": {"train__regime": "parallel", "train__freeze": 1, "train__views": 2, "budget__chunk": "8"},
}
LARGE = {"data__limit": 600, "model__name": "km-3-1", "model__width": 32, "train__batch_size": 32}


class Watcher(files.FileSystem):
    """Looks at what a folder takes whenever it has grown, or is about to shrink."""

    def __init__(self, folder):
        self.folder = folder
        self.peak_mb = 0.0

    def look(self):
        self.peak_mb = max(self.peak_mb, disk_space.taken_mb(self.folder))

    def fallocate(self, fd, size):
        super().fallocate(fd, size)
        self.look()

    def fsync(self, fd):
        super().fsync(fd)
        self.look()

    def rename(self, source, target):
        self.look()
        super().rename(source, target)

    def unlink(self, path):
        self.look()
        super().unlink(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "placement", "every"),
    [
        ("parallel", "disk", 7),
        ("parallel", "memory", 1),
        ("multi-lap", "disk", 7),
        ("sequential", "memory", 7),
        ("frozen", "disk", 1),
        ("paged", "disk", 20),
    ],
)
def test_the_plan_is_what_the_folder_takes(plan_run, finish, follow, place, monkeypatch, way, placement, every):
    """`every`: visits between two commits, as many as bring the run to its worst moment."""
    run = plan_run("run", **{"train__regime": way, **LARGE, **WAYS[way]})
    if way == "paged":
        follow(run, "rounds")
    place(run, placement)
    visits = itertools.count(1)
    monkeypatch.setattr(Ledger, "_is_due", lambda self: next(visits) % every == 0)
    watcher = Watcher(run.folder)
    monkeypatch.setattr(files, "system", watcher)
    finish(run)
    planned_mb = run.facts().planned.plan.disk_mb
    assert watcher.peak_mb <= planned_mb <= 1.25 * watcher.peak_mb
