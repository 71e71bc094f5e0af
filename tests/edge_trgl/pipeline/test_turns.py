"""The parent's side of a dialogue: what it tells, and what it does about damaged data and refused cgroups."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from made_up_jobs import make_up

from edge_trgl.config.sources import resolve
from edge_trgl.jobs.requests import COUNT, PREPARE, PrepareResult
from edge_trgl.pipeline import turns
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.turns import Call, Ended, run_job
from edge_trgl.run.data_summary import DataSummary, Sizes
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DamagedDataError, OverBudgetError, error_document
from edge_trgl.runtime.memory import cgroup
from edge_trgl.runtime.processes.supervisor import ChildCrashedError, Outcome
from edge_trgl.runtime.records import to_json

SUMMARY = DataSummary(
    source="sample",
    format="sample",
    shape=(28, 28, 1),
    dtype="uint8",
    sizes=Sizes(smallest=(28, 28), median=(28, 28), largest=(28, 28), distinct=1),
    resize="squash",
    size_from="files",
    classes=(),
    no_images={},
    unreadable=(),
    notices=(),
    decoded=True,
)
PREPARED = PrepareResult(decoded=True, summary=SUMMARY, fingerprint="f", reused=False, damage="")


def test_damaged_data_are_prepared_again_once(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", resolve())
    told = []

    def answer(job, request):
        if job is PREPARE:
            run.data.mkdir(exist_ok=True)
            run.dataset_file.touch()
            return PREPARED
        raise DamagedDataError("record 0 is damaged")

    calls = make_up(monkeypatch, answer)
    with pytest.raises(DamagedDataError):
        Pipeline(run.folder, told.append).plan()
    assert [name for name, _ in calls] == ["prepare", "count", "prepare", "count"]
    assert [request.anew for name, request in calls if name == PREPARE.name] == [False, True]
    assert calls[1][1] == calls[3][1]
    warnings = [message["text"] for message in told if message["kind"] == "warning"]
    assert warnings.count("record 0 is damaged; the data are prepared again") == 1


def test_what_was_to_be_told_is_told_before_the_error(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", resolve({"budget": {"mb": 1e9}}))
    told = []

    def answer(job, request):
        raise OverBudgetError("too much")

    make_up(monkeypatch, answer)
    with pytest.raises(OverBudgetError, match="too much"):
        Pipeline(run.folder, told.append).plan()
    assert "more than is available; lowered" in told[0]["text"]


CALL = Call(
    job=COUNT.name, request={}, folder="run", threads=1, allocator="heap", cgroup="edge-trgl-test", cgroup_mb=300.0
)


class TestCgroup:
    @pytest.fixture
    def groups(self, monkeypatch):
        """The cgroups that jobs were started in."""
        found = []

        def run_child(arguments, *, cgroup, **options):
            found.append(cgroup)
            return Outcome(result=None, peak_mb=1.0, seconds=1.0)

        monkeypatch.setattr(turns, "run_child", run_child)
        return found

    def test_a_job_runs_in_its_own(self, tmp_path, monkeypatch, groups):
        class Group:
            path = tmp_path

            def peak_mb(self):
                return 123.0

        @contextmanager
        def memory_cgroup(limit_mb, name):
            assert (limit_mb, name) == (300.0, "edge-trgl-test")
            yield Group()

        monkeypatch.setattr(cgroup, "memory_cgroup", memory_cgroup)
        ended = run_job(CALL, lambda message: None)
        assert (ended.cgroup_peak_mb, ended.cgroup_refused) == (123.0, "")
        assert groups == [tmp_path]

    def test_where_there_is_none_the_user_is_told_and_the_job_runs(self, monkeypatch, groups):
        def memory_cgroup(limit_mb, name):
            raise cgroup.CgroupUnavailableError("off in this kernel")

        monkeypatch.setattr(cgroup, "memory_cgroup", memory_cgroup)
        told = []
        ended = run_job(CALL, told.append)
        assert ended.cgroup_refused.startswith("no memory cgroup: off in this kernel; the budget is kept by")
        assert told[-1] == {"kind": "warning", "text": ended.cgroup_refused}
        assert groups == [None]


LIGHT = Call(job="count", request={}, folder="run", threads=1, allocator="heap", without=("trim",), light=True)


def light_torch_fails(monkeypatch, then):
    """Have every child with a light torch crash; return what was started and told. `then`: what others do."""
    started, told = [], []

    def run_child(arguments, *, on_message, without, **options):
        started.append((arguments[2], without))
        on_message({"kind": "event", "text": "loaded whole"})
        on_message({"kind": "note", "text": "a note"})
        if "diet" not in without:
            raise ChildCrashedError("a child process ended with code 1")
        return then()

    monkeypatch.setattr(turns, "run_child", run_child)
    return started, told


def test_a_job_that_crashes_with_a_light_torch_is_run_with_the_whole(monkeypatch):
    started, told = light_torch_fails(monkeypatch, lambda: Outcome(result=3, peak_mb=1.0, seconds=1.0))
    ended = run_job(LIGHT, told.append)
    assert started == [("count", ("trim",)), ("count", ("trim", "diet"))]
    failed = "the job count failed with a part of torch; trying the whole of it"
    assert ended.result == 3
    assert ended.whole_torch
    assert ended.events == ("loaded whole", failed, "loaded whole")
    assert [message["text"] for message in told if message["kind"] == "warning"] == [failed]
    assert [message["text"] for message in told if message["kind"] == "note"] == ["a note", "a note"]


def test_an_error_with_the_whole_is_the_jobs(monkeypatch):
    def fail():
        raise OverBudgetError("too much")

    _, told = light_torch_fails(monkeypatch, fail)
    ended = run_job(LIGHT, told.append)
    assert ended.error["message"] == "too much"
    assert ended.whole_torch


def test_a_job_without_a_light_torch_crashes_at_once(monkeypatch):
    started, told = light_torch_fails(monkeypatch, lambda: None)
    with pytest.raises(ChildCrashedError):
        run_job(replace(LIGHT, light=False), told.append)
    assert len(started) == 1


def test_a_run_remembers_that_it_needs_the_whole_torch(tmp_path, monkeypatch):
    run, calls = Run.create(tmp_path / "run", resolve({"budget": {"without": ["trim"]}})), []

    def run_job(call, listener):
        calls.append((call.job, call.without, call.light))
        if call.job == "prepare":
            run.data.mkdir(exist_ok=True)
            run.dataset_file.touch()
            return Ended(result=to_json(PREPARED))
        if call.job == "count" and len(calls) == 2:
            return Ended(error=error_document(DamagedDataError("damaged")), events=("why",), whole_torch=True)
        return Ended(error=error_document(OverBudgetError("too much")))

    monkeypatch.setattr(turns, "run_job", run_job)
    with pytest.raises(OverBudgetError):
        Pipeline(run.folder, lambda message: None).plan()
    assert calls == [
        ("prepare", ("trim",), False),
        ("count", ("trim",), True),
        ("prepare", ("trim", "diet"), False),
        ("count", ("trim",), True),
    ]
    facts = run.facts()
    assert [event.text for event in facts.events() if event.kind == "diet"] == ["why"]
    assert facts.whole_torch
    facts.close()
