"""Processes seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest


def test_watching_adds_up_the_processes_that_live_together(tool, seen):
    inner = f"{seen}x = bytearray(40 << 20); wait()"
    alone = tool("common.processes").watch([sys.executable, "-c", inner])
    outer = f"{seen}x = bytearray(60 << 20); subprocess.run([sys.executable, '-c', {inner!r}])"
    together = tool("common.processes").watch([sys.executable, "-c", outer])
    assert 40 < alone.peak_mb < 80
    assert alone.peak_mb + 60 < together.peak_mb < alone.peak_mb + 60 + 40


def test_a_process_that_came_when_another_had_gone_is_not_added_to_it(tool, monkeypatch):
    processes, found = tool("common.processes"), iter([[1, 2], [1, 2, 3]])
    there = {1, 2}
    monkeypatch.setattr(processes, "tree", lambda root: next(found))
    monkeypatch.setattr(processes, "runs", lambda pid: pid in there)
    monkeypatch.setattr(processes.kernel, "peak_mb", float)
    marks = processes.Marks(1)
    assert marks.sample() == [1, 2]
    assert marks.peak_mb == 3
    marks.look()
    there = {1, 3}
    assert marks.sample() == [1, 3]
    assert marks.peak_mb == 4


def test_watching_keeps_a_peak_that_a_process_wiped_out_itself(tool, seen):
    code = (
        f"{seen}x = bytearray(80 << 20); wait(1); del x\n"
        "open('/proc/self/clear_refs', 'w').write('5'); wait(2); print('done')"
    )
    watched = tool("common.processes").watch([sys.executable, "-c", code])
    assert watched.peak_mb > 80
    assert watched.output == "done\n"


def test_a_command_that_fails_is_told_with_what_it_said(tool):
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    for call in (tool("common.processes").watch, tool("common.processes").output_of):
        with pytest.raises(tool("common.processes").CommandError, match="code 1\nno such thing"):
            call(command)


def test_a_job_is_known_by_its_command_line(tool):
    code = "import time; time.sleep(60)"
    job = subprocess.Popen([sys.executable, "-c", code, "edge_trgl.jobs", "plan"])
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        while tool("common.processes").job_of(job.pid) is None and job.poll() is None:
            time.sleep(0.01)  # until the child has become python
        assert tool("common.processes").job_of(job.pid) == "plan"
        assert tool("common.processes").job_of(other.pid) is None
        assert {job.pid, other.pid} <= set(tool("common.processes").tree(os.getpid()))
    finally:
        job.kill()
        other.kill()
    tool("common.processes").wait_until_gone([job.pid, other.pid])
    assert job.wait() == other.wait() == -signal.SIGKILL
