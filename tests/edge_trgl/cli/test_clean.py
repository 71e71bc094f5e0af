"""`edge-trgl clean`: what no run needs goes, what a run needs stays, and the figures are those of the disk."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from click.testing import CliRunner

import edge_trgl
from edge_trgl.cli.clean import clean as verb
from edge_trgl.config.sources import resolve
from edge_trgl.pipeline.cleaning import clean
from edge_trgl.run.folder import PLANNING, PREPARED, Run
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.demand import REFUSED
from edge_trgl.runtime.storage.link_cache import LinkCache

CONFIG = resolve({})
KIB = 1024
NOBODY = 2**22 + 1  # above the largest number of a process


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def run(runs):
    """A run that was interrupted: it has data, and files that no commit names."""
    run = Run.create(runs / "0001", CONFIG)
    run.facts().close()
    for folder in (run.data, run.modules, run.scratch):
        folder.mkdir()
    (run.data / "train.images").write_bytes(os.urandom(8 * KIB))
    run.dataset_file.write_text("{}")
    (run.data / "val.images.tmp").write_bytes(os.urandom(4 * KIB))
    (run.modules / "m0.safetensors").write_bytes(os.urandom(4 * KIB))
    (run.scratch / "rows").write_bytes(os.urandom(4 * KIB))
    return run


def keep(runs, run):
    LinkCache(runs / PREPARED, "dataset.json").keep("key", run.data, 1 << 30)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_an_interrupted_run_left(runs, run):
    cleaned = clean(runs)
    assert cleaned.leftovers.count == 3
    assert cleaned.freed_mb * KIB == 12
    assert names(run.folder) == [".lock", "data/dataset.json", "data/train.images", "run.toml", "state.db"]


def test_half_prepared_data_are_read_again_anyway(runs, run):
    run.dataset_file.unlink()
    clean(runs)
    assert not list(run.data.iterdir())


def test_kept_data_free_what_no_run_uses(runs, run):
    keep(runs, run)
    assert clean(runs, dry_run=True).prepared.freed_mb == 0
    shutil.rmtree(run.folder)
    before = names(runs)
    cleaned = clean(runs, dry_run=True)
    assert names(runs) == before
    assert cleaned.prepared.count == 1
    assert cleaned.freed_mb * KIB == 12  # dataset.json takes a block
    assert clean(runs) == cleaned
    assert clean(runs).prepared.count == 0


def test_a_run_keeps_its_data(runs, run):
    keep(runs, run)
    whole = (run.data / "train.images").read_bytes()
    assert clean(runs).prepared.count == 1
    assert (run.data / "train.images").read_bytes() == whole


def test_a_run_in_use_is_left_alone(runs, run):
    before = names(run.modules)
    with run.locked():
        assert clean(runs).leftovers.count == 0
    assert names(run.modules) == before


def plan_of(runs, process):
    plan = Run.create(runs / f"{PLANNING}{process}", CONFIG)
    plan.data.mkdir()
    (plan.data / "train.images.tmp").write_bytes(os.urandom(8 * KIB))
    return plan


def test_only_plans_that_were_killed_go(runs):
    killed, alive, elsewhere = plan_of(runs, NOBODY), plan_of(runs, os.getpid()), plan_of(runs, NOBODY + 1)
    with elsewhere.locked():  # by a process of another container, whose number means nothing here
        cleaned = clean(runs)
    assert cleaned.plans.count == 1
    assert cleaned.plans.freed_mb * KIB >= 8
    assert [plan.folder.exists() for plan in (killed, alive, elsewhere)] == [False, True, True]


def test_other_things_are_nobodys_business(runs, run):
    (runs / "notes.txt").write_text("mine")
    (runs / "photos").mkdir()
    (runs / "photos" / "a.tmp").write_text("mine")
    clean(runs)
    assert {"notes.txt", "photos/a.tmp"} <= set(names(runs))


def test_measurements_only_if_asked_for(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measurements_cache.keep("a", REFUSED)
    assert clean(runs).measurements is None
    assert measurements_cache.recall(["a"])
    assert clean(runs, dry_run=True, measurements=True).measurements.count == 1
    assert clean(runs, measurements=True).measurements.count == 1
    assert not measurements_cache.recall(["a"])


def test_a_damaged_database_stops_nothing(runs, run):
    run.state_file.write_bytes(b"no database, this")
    keep(runs, run)
    assert clean(runs).prepared.count == 1
    assert (run.modules / "m0.safetensors").exists()


def test_where_there_is_nothing(runs, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="there is no folder"):
        clean(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    runs.rmdir()
    result = CliRunner().invoke(verb, [])
    assert (result.exit_code, result.output) == (0, "nothing to remove\n")
    assert not list(tmp_path.iterdir())


def test_a_run_is_no_folder_of_runs(run):
    with pytest.raises(UsageError, match="is a run") as caught:
        clean(run.folder)
    assert caught.value.hint.endswith(f"edge-trgl clean {run.folder.parent}")


def test_the_same_from_python(runs, run):
    would = edge_trgl.clean(runs, dry_run=True)
    assert would.leftovers.count == 3
    assert edge_trgl.clean(str(runs)) == would


def test_how_it_reads(runs, run):
    keep(runs, run)
    plan_of(runs, NOBODY)
    told = CliRunner().invoke(verb, [str(runs), "--dry-run"]).output.splitlines()
    assert told[0] == "1 prepared data set: nothing, as runs use the same files"
    assert told[1].startswith("1 plan that was killed: ")
    assert told[2] == "3 files of interrupted runs: 12 KiB"
    assert told[3].startswith("would free ")
    document = json.loads(CliRunner().invoke(verb, [str(runs), "--json"]).output)
    assert document["leftovers"] == {"count": 3, "freed_mb": 12 / KIB}
    assert document["dry_run"] is False
    assert CliRunner().invoke(verb, [str(runs)]).output == "nothing to remove\n"
