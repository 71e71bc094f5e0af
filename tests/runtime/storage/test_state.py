"""RunState: a commit is all or nothing, whatever happens to the process that makes it."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from edge_trgl.runtime.errors import DiskFullError, StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage import state as state_module
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord, BoundarySpec
from edge_trgl.runtime.storage.files import FileRecord
from edge_trgl.runtime.storage.state import Event, Metric, ModuleRecord, Phase, RunState, VisitSample


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def state(path):
    state = RunState(path)
    yield state
    state.close()


def module(number, version=1):
    return ModuleRecord(
        module=number,
        file=FileRecord(name=f"m{number}.{version}", num_bytes=10 * version, checksum=f"{2**64 - version:016x}"),
    )


def boundary(name):
    spec = BoundarySpec(name=name, shape=(3, 4, 5), dtype="bfloat16", records=7, copies=2, producer="module 1")
    return BoundaryRecord(spec=spec, file=f"{name}.3", counts=(4, 0), index_checksum="f" * 16)


def metric(kind="train", position=1, loss_sum=12.25):
    return Metric(
        kind=kind,
        module=2,
        epoch=3,
        position=position,
        num_images=64,
        loss_sum=loss_sum,
        num_correct=40,
        transport_sum=0.1,
        transport_gradient=0.5,
        other_gradient=2.0,
        lr=0.003,
    )


def sample(position=1, number=0):
    return VisitSample(
        time_s=1.5 * position,
        phase="train",
        module=number,
        rss_mb=300.0,
        peak_mb=310.5,
        cuda_mb=0.0,
        read_mb=1.0,
        written_mb=2.0,
    )


def commit(state, position=1, **changes):
    fields = {
        "modules": [module(0), module(1)],
        "boundaries": [boundary("b1")],
        "metrics": [metric(position=position)],
        "samples": [sample(position)],
        "meta": {"lambda": [1.0, 2.0]},
    }
    state.commit(position=position, **{**fields, **changes})


def contents(state):
    return (
        state.position(),
        state.modules(),
        state.boundaries(),
        state.metrics(),
        state.samples(),
        state.meta("lambda"),
    )


def test_a_new_run_is_empty(state):
    assert contents(state) == (0, {}, [], [], [], None)
    assert (state.events(), state.phases()) == ([], [])


def test_a_commit_is_read_back_by_another_connection(state, path):
    commit(state)
    expected = (
        1,
        {0: module(0).file, 1: module(1).file},
        [boundary("b1")],
        [metric()],
        [sample()],
        [1.0, 2.0],
    )
    assert contents(state) == expected
    other = RunState(path)
    assert contents(other) == expected
    other.close()


def test_modules_are_replaced_one_by_one_and_boundaries_all_together(state):
    commit(state)
    commit(state, position=2, modules=[module(1, version=2)], boundaries=[boundary("b3"), boundary("b2")])
    assert state.modules() == {0: module(0).file, 1: module(1, version=2).file}
    assert state.boundaries() == [boundary("b2"), boundary("b3")]
    assert state.metrics() == [metric(position=1), metric(position=2)]
    assert state.samples() == [sample(1), sample(2)]


def test_metrics_of_one_kind(state):
    commit(state, metrics=[metric("train"), metric("validation"), metric("test")])
    assert state.metrics("validation") == [metric("validation")]
    assert [one.kind for one in state.metrics()] == ["train", "validation", "test"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e-310, 0.1 + 0.2])
def test_any_float_survives(state, value):
    commit(state, metrics=[metric(loss_sum=value)])
    (found,) = state.metrics()
    assert found.loss_sum == value or (math.isnan(value) and math.isnan(found.loss_sum))


def test_samples_outside_of_visits_have_no_module(state):
    commit(state, samples=[sample(number=None)])
    assert state.samples() == [sample(number=None)]


@pytest.mark.parametrize("value", [None, 3, 2.5, "text", [1, [2]], {"a": {"b": None}}, True])
def test_meta_keeps_json(state, value):
    state.set_meta("key", "old")
    state.set_meta("key", value)
    assert state.meta("key", default="default") == value
    assert state.meta("other", default="default") == "default"


def test_meta_that_is_no_json_changes_nothing(state):
    state.set_meta("key", 1)
    with pytest.raises(TypeError):
        state.set_meta("key", object())
    assert state.meta("key") == 1


def test_events_and_phases_are_appended(state):
    before = time.time()
    state.add_event("restart", "killed by the kernel")
    state.add_event("plan", "one module resident")
    state.record_phase("probe", 310.5, 2.5)
    state.record_phase("probe", 312.0, 2.0)
    first, second = state.events()
    assert (first.kind, first.text, second.kind) == ("restart", "killed by the kernel", "plan")
    assert before <= first.time_s <= second.time_s <= time.time()
    assert isinstance(first, Event)
    assert state.phases() == [
        Phase(name="probe", peak_mb=310.5, seconds=2.5),
        Phase(name="probe", peak_mb=312.0, seconds=2.0),
    ]


class Broken(Exception):
    """Raised by what a commit is given."""


def then_broken(*values):
    yield from values
    raise Broken


@pytest.mark.parametrize(
    "changes",
    [
        {"modules": then_broken(module(0, 2))},
        {"boundaries": then_broken(boundary("b2"))},
        {"metrics": then_broken(metric(position=2))},
        {"samples": then_broken(sample(2))},
        {"meta": {"lambda": 3, "broken": object()}},
        {"boundaries": [boundary("b2"), boundary("b2")]},
    ],
    ids=["modules", "boundaries", "metrics", "samples", "meta", "same boundary twice"],
)
def test_an_exception_anywhere_in_a_commit_undoes_all_of_it(state, changes):
    commit(state)
    before = contents(state)
    with pytest.raises((Broken, TypeError, sqlite3.IntegrityError)):
        commit(state, position=2, **changes)
    assert contents(state) == before
    commit(state, position=3)
    assert state.position() == 3


def test_a_full_disk_undoes_a_commit_and_says_so(state):
    commit(state)
    before = contents(state)
    pages = state._db.execute("PRAGMA page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFullError, match=r"the disk is full: .*state\.db could not be written"):
        commit(state, position=2, meta={"lambda": "x" * 100_000})
    assert contents(state) == before
    state._db.execute(f"PRAGMA max_page_count = {pages + 100}")
    commit(state, position=2)
    assert state.position() == 2


@pytest.mark.parametrize("error", [errno.EDQUOT, errno.ENOSPC, None])
def test_a_quota_has_another_name_in_sqlite(state, monkeypatch, error):
    class Refusing(files.FileSystem):
        def fallocate(self, fd, size):
            if error is not None:
                raise OSError(error, os.strerror(error))
            super().fallocate(fd, size)

    monkeypatch.setattr(files, "system", Refusing())
    with pytest.raises(StorageError) as caught, state._reported():
        raise sqlite3.OperationalError("disk I/O error")
    assert isinstance(caught.value, DiskFullError) == (error is not None)
    assert list(state.path.parent.iterdir()) == [state.path]


def test_the_settings_that_survive_a_power_cut(state):
    settings = [
        state._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert settings == ["delete", 3, 1]


@pytest.mark.parametrize("by", [-1, 1])
def test_another_schema_is_refused(path, by):
    RunState(path).close()
    ours = state_module.SCHEMA
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {ours + by}")
    db.close()
    with pytest.raises(
        StorageError, match=f"has schema {ours + by}, this version of edge-trgl knows schema {ours}"
    ):
        RunState(path)


def test_another_programs_database_is_refused_and_not_changed(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is not the database of a run"):
        RunState(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_changed(path):
    path.write_text("no database, but long enough to be looked at " * 50)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="file is not a database"):
        RunState(path)
    assert path.read_bytes() == before


def test_a_cut_file_is_refused(path):
    state = RunState(path)
    commit(state)
    state.close()
    data = path.read_bytes()
    for length in (len(data) // 2, len(data) - 4096):
        path.write_bytes(data[:length])
        with pytest.raises(StorageError, match=r"state\.db (is damaged|cannot be used)"):
            RunState(path)


def test_a_page_of_rubbish_is_refused(path):
    state = RunState(path)
    commit(state)
    state.close()
    data = bytearray(path.read_bytes())
    for page in range(0, len(data), 4096):
        path.write_bytes(data[:page] + b"\xa5" * 4096 + data[page + 4096 :])
        with pytest.raises(StorageError):
            RunState(path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(StorageError, match="unable to open database file"):
        RunState(tmp_path / "missing" / "state.db")


WRITER = """
import sys
from pathlib import Path
from edge_trgl.runtime.storage.files import FileRecord
from edge_trgl.runtime.storage.state import Metric, ModuleRecord, RunState
assert "torch" not in sys.modules
state = RunState(Path(sys.argv[1]))
for position in range(state.position() + 1, 1_000_000):
    record = FileRecord(name=f"m.{position}", num_bytes=position, checksum=str(position))
    metric = Metric(kind="train", module=0, epoch=0, position=position, num_images=1, loss_sum=1.0,
                    num_correct=0, transport_sum=0.0, transport_gradient=0.0, other_gradient=0.0, lr=0.1)
    state.commit(position=position, modules=[ModuleRecord(module=k, file=record) for k in range(20)],
                 boundaries=[], metrics=[metric] * 3, meta={"position": position})
    print(position, flush=True)
"""


def start_writer(path):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def assert_whole(state):
    """Everything that is read in one go belongs to one commit."""
    position = state.position()
    record = FileRecord(name=f"m.{position}", num_bytes=position, checksum=str(position))
    assert state.modules() == dict.fromkeys(range(20), record)
    assert [one.position for one in state.metrics()] == [n for n in range(1, position + 1) for _ in range(3)]
    assert state.meta("position") == position


@pytest.mark.slow
def test_a_killed_writer_leaves_the_last_acknowledged_commit(path):
    """Twenty kills, one after the other on the same file: nothing acknowledged is lost, nothing is half."""
    moments = random.Random(0)
    for _ in range(20):
        with start_writer(path) as writer:
            acknowledged = int(writer.stdout.readline())
            time.sleep(moments.uniform(0, 0.02))
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        state = RunState(path)
        assert acknowledged <= state.position() <= acknowledged + 1
        assert_whole(state)
        state.close()


def test_a_reader_sees_whole_commits_while_another_process_writes(path):
    with start_writer(path) as writer:
        writer.stdout.readline()
        state = RunState(path)
        positions = set()
        while len(positions) < 5:
            state._db.execute("BEGIN")
            assert_whole(state)
            positions.add(state.position())
            state._db.execute("COMMIT")
        state.close()
        writer.kill()


def test_two_writers_wait_for_each_other(path):
    """The supervisor adds an event while the worker commits."""
    with start_writer(path) as writer:
        first = int(writer.stdout.readline())
        state = RunState(path)
        for number in range(20):
            state.add_event("restart", str(number))
        writer.kill()
        last = max([first, *map(int, writer.stdout.read().split())])
    assert [event.text for event in state.events()] == [str(number) for number in range(20)]
    assert state.position() >= last
    assert_whole(state)
    state.close()


def test_boundaries_are_stored_as_json(state):
    """A report in another language can read them."""
    commit(state)
    (record,) = state._db.execute("SELECT record FROM boundaries").fetchone()
    assert json.loads(record)["spec"]["shape"] == [3, 4, 5]
