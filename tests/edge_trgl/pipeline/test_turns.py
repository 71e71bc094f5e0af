"""The parent's side of a dialogue: what it tells, and what it does about damaged data and refused cgroups."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from made_up_jobs import make_up

from edge_trgl.config.sources import resolve
from edge_trgl.jobs.requests import COUNT, PREPARE, PrepareResult
from edge_trgl.pipeline import turns
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.turns import Call, run_job
from edge_trgl.run.data_summary import DataSummary, Sizes
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DamagedDataError, OverBudgetError
from edge_trgl.runtime.memory import cgroup
from edge_trgl.runtime.processes.supervisor import Outcome

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
