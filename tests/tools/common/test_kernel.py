"""What is read of the kernel's files."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def kernel(tool):
    return tool("common.kernel")


def test_a_mark_outlives_the_memory_until_it_is_reset(kernel):
    code = (
        "from tools.common import kernel\n"
        "x = bytearray(50 << 20); x = None\n"
        "high = kernel.own_peak_mb(); kernel.reset_peak(); print(high - kernel.own_peak_mb())"
    )
    fallen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(fallen.stdout) > 45


def test_a_process_that_has_ended_has_no_mark(kernel):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while kernel.peak_mb(ended.pid) is not None:
        pass
    ended.wait()
    assert kernel.peak_mb(ended.pid) is None


@pytest.mark.parametrize(
    ("peak", "kills"), [("memory.peak", "memory.events"), ("memory.max_usage_in_bytes", "memory.oom_control")]
)
def test_both_versions_of_cgroups_are_read(kernel, tmp_path, peak, kills):
    (tmp_path / kills).write_text("under_oom 0\noom_kill 2\n")
    assert kernel.cgroup_peak_mb(tmp_path) is None
    (tmp_path / peak).write_text(f"{3 << 20}\n")
    assert (kernel.cgroup_peak_mb(tmp_path), kernel.cgroup_kills(tmp_path)) == (3.0, 2)


def test_where_kills_are_not_counted_there_are_none(kernel, tmp_path):
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert kernel.cgroup_kills(tmp_path) == 0
