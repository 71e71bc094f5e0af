"""Memory cgroups of both versions: where one can be made, what it is told, and that nothing of it stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from cgroup_kernel import Kernel

from edge_trgl.runtime.memory import cgroup
from edge_trgl.runtime.memory.cgroup import CgroupUnavailableError, memory_cgroup

LIMIT = 100 << 20
OFF = "memory cgroups are off in this kernel"
NOT_WRITABLE = r"not writable \(needs root or a delegated cgroup\)"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    root = tmp_path / "cgroup"
    root.mkdir()
    return Kernel(root, monkeypatch)


@pytest.fixture
def make(kernel, tmp_path):
    """Makes the group `run` for a process with this /proc/self/cgroup; it lasts until `make.leave()`."""
    proc = tmp_path / "proc"
    stack = ExitStack()

    def make(groups):
        proc.write_text(groups)
        return stack.enter_context(memory_cgroup(100, "run", kernel.root, proc))

    make.leave = stack.close
    with stack:
        yield make


def fails(make, groups, reason):
    with pytest.raises(CgroupUnavailableError, match=reason):
        make(groups)


class TestV2:
    def test_the_true_root_gives_memory_out_although_it_holds_processes(self, kernel, make):
        mount = kernel.mount_v2()
        kernel.join(mount, 1)
        group = make("0::/\n")
        assert group.path == mount / "run"
        assert (group.path / "memory.max").read_text() == str(LIMIT)
        assert (group.path / "memory.swap.max").read_text() == "0"  # swap is no way out
        make.leave()
        assert not group.path.exists()

    def test_an_empty_group_of_ones_own_gives_memory_out(self, kernel, make):
        mount = kernel.mount_v2(gives="memory pids")
        service = kernel.group(mount, "service")
        assert make("0::/service\n").path == service / "run"
        assert "memory" in (service / "cgroup.subtree_control").read_text()

    def test_it_lies_beside_a_group_that_holds_processes(self, kernel, make):
        mount = kernel.mount_v2(gives="memory pids")
        slice_ = kernel.group(mount, "app.slice", gives="memory pids")
        kernel.join(kernel.group(slice_, "shell.scope"), 7)
        kernel.unwritable = [mount]
        assert make("0::/app.slice/shell.scope\n").path == slice_ / "run"

    def test_root_finds_a_place_at_the_top(self, kernel, make):
        mount = kernel.mount_v2()
        kernel.join(kernel.group(mount, "shell.scope"), 7)
        assert make("0::/shell.scope\n").path == mount / "run"

    def test_another_users_groups_are_left_alone(self, kernel, make):
        mount = kernel.mount_v2(gives="memory pids")
        slice_ = kernel.group(mount, "user.slice", gives="memory pids")
        scope = kernel.group(slice_, "session.scope")
        kernel.join(scope, 7)
        kernel.unwritable = [mount, slice_, scope]
        fails(make, "0::/user.slice/session.scope\n", f"^{NOT_WRITABLE}$")

    def test_a_container_whose_root_holds_processes_limits_none(self, kernel, make):
        kernel.join(kernel.mount_v2(is_true_root=False), 1)
        fails(make, "0::/\n", "^the process's own cgroup holds processes")

    def test_a_container_sees_its_group_as_the_root(self, kernel, make):
        mount = kernel.mount_v2(is_true_root=False)
        assert make("0::/docker/3f2a\n").path == mount / "run"

    def test_a_kernel_without_the_controller(self, kernel, make):
        kernel.mount_v2(controllers="cpu io pids")
        fails(make, "0::/\n", f"^{OFF}")

    def test_without_counted_swap_memory_alone_is_limited(self, kernel, make):
        kernel.absent = ["memory.swap.max"]
        kernel.mount_v2()
        group = make("0::/\n")
        assert (group.path / "memory.max").read_text() == str(LIMIT)
        assert not (group.path / "memory.swap.max").exists()

    def test_the_kernels_counts(self, kernel, make):
        kernel.mount_v2()
        group = make("0::/\n")
        assert (group.peak_mb(), group.kills()) == (0, 0)
        (group.path / "memory.peak").write_text(f"{96 << 20}\n")
        (group.path / "memory.events").write_text("low 0\nhigh 4\nmax 31\noom 3\noom_kill 2\noom_group_kill 1\n")
        assert (group.peak_mb(), group.kills()) == (96, 2)

    def test_a_kernel_that_keeps_no_peak(self, kernel, make):
        kernel.absent = ["memory.peak"]
        kernel.mount_v2()
        assert make("0::/\n").peak_mb() is None


class TestV1:
    # v2 is mounted beside it, without controllers, as systemd does.
    GROUPS = "9:name=systemd:/shell.scope\n4:cpu,cpuacct:/\n3:hugetlb,memory:/shell.scope\n0::/shell.scope\n"

    @pytest.fixture
    def mount(self, kernel):
        kernel.mount_v2("unified", controllers="")
        return kernel.mount_v1()

    def test_it_lies_below_a_group_that_holds_processes(self, kernel, mount, make):
        scope = kernel.group(mount, "shell.scope")
        kernel.join(scope, 7)
        group = make(self.GROUPS)
        assert group.path == scope / "run"
        assert (group.path / "memory.limit_in_bytes").read_text() == str(LIMIT)
        assert (group.path / "memory.memsw.limit_in_bytes").read_text() == str(LIMIT)  # swap is no way out
        make.leave()
        assert not group.path.exists()
        assert scope.exists()

    def test_without_counted_swap_memory_alone_is_limited(self, kernel, mount, make):
        kernel.absent = ["memory.memsw.limit_in_bytes"]
        group = make(self.GROUPS)
        assert (group.path / "memory.limit_in_bytes").read_text() == str(LIMIT)
        assert not (group.path / "memory.memsw.limit_in_bytes").exists()

    @pytest.mark.parametrize("group", ["/docker/3f2a", "/.."])
    def test_a_container_sees_its_group_as_the_root(self, mount, make, group):
        assert make(f"3:memory:{group}\n").path == mount / "run"

    def test_another_users_group_is_left_alone(self, kernel, mount, make):
        kernel.unwritable = [kernel.group(mount, "shell.scope")]
        fails(make, self.GROUPS, f"^{NOT_WRITABLE}$")

    def test_a_hierarchy_that_is_not_mounted(self, kernel, make):
        fails(make, self.GROUPS, f"^no memory cgroup is mounted at {kernel.root}/memory$")

    def test_a_kernel_without_the_controller(self, kernel, make):
        kernel.mount_v2("unified", controllers="")
        fails(make, "4:cpu,cpuacct:/\n0::/\n", f"^{OFF}")

    def test_the_kernels_counts(self, mount, make):
        group = make(self.GROUPS)
        assert (group.peak_mb(), group.kills()) == (0, 0)
        (group.path / "memory.max_usage_in_bytes").write_text(f"{96 << 20}\n")
        (group.path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
        assert (group.peak_mb(), group.kills()) == (96, 2)

    def test_a_kernel_that_counts_no_kills(self, mount, make):
        group = make(self.GROUPS)
        (group.path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
        assert group.kills() == 0


@pytest.mark.parametrize("groups", ["", "4:cpu:/\n"])
def test_a_kernel_without_either_version(make, groups):
    fails(make, groups, f"^{OFF}")


def test_a_kernel_without_cgroups(kernel, tmp_path):
    with pytest.raises(CgroupUnavailableError, match=OFF), memory_cgroup(100, "run", kernel.root, tmp_path / "no"):
        pass


class TestEnd:
    @pytest.fixture
    def mount(self, kernel):
        return kernel.mount_v2()

    def test_what_is_left_in_it_is_killed(self, kernel, mount, make):
        group = make("0::/\n")
        kernel.join(group.path, 4711)
        kernel.dying = 3
        make.leave()
        assert kernel.killed == [4711]
        assert not group.path.exists()

    def test_a_process_that_is_gone_before_it_is_killed(self, kernel, mount, make, monkeypatch):
        group = make("0::/\n")
        kernel.join(group.path, 4711)

        def kill(pid, number):
            kernel.leave(group.path)
            raise ProcessLookupError(errno.ESRCH, "No such process")

        monkeypatch.setattr(os, "kill", kill)
        make.leave()
        assert not group.path.exists()

    def test_an_error_inside_is_passed_on(self, kernel, mount, tmp_path):
        proc = tmp_path / "proc"
        proc.write_text("0::/\n")
        with pytest.raises(ZeroDivisionError), memory_cgroup(100, "run", kernel.root, proc) as group:
            raise ZeroDivisionError
        assert not group.path.exists()

    def test_a_process_that_cannot_die_is_left(self, kernel, mount, make, monkeypatch):
        monkeypatch.setattr(cgroup, "_PATIENCE_S", 0.05)
        group = make("0::/\n")
        kernel.dying = 10**9
        make.leave()
        assert group.path.exists()

    def test_what_a_killed_process_left_behind_is_replaced(self, kernel, mount, make):
        left = kernel.group(mount, "run")
        (left / "cgroup.subtree_control").write_text("+memory")
        assert (make("0::/\n").path / "cgroup.subtree_control").read_text() == ""

    def test_a_group_in_use_is_left_alone(self, kernel, mount, make):
        used = kernel.group(mount, "run")
        kernel.join(used, 4711)
        fails(make, "0::/\n", f"^{used} is in use$")
        make.leave()
        assert used.exists()
        assert kernel.killed == []


def test_a_process_enters_by_its_number(tmp_path):
    cgroup.enter(tmp_path)
    assert (tmp_path / "cgroup.procs").read_text() == str(os.getpid())


class TestThisKernel:
    CHILD = """
import sys
from pathlib import Path
from edge_trgl.runtime.memory import cgroup
cgroup.enter(Path(sys.argv[1]))
held = b"x" * (int(sys.argv[2]) << 20)
print(len(held) >> 20, flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
"""

    @pytest.fixture
    def group(self, request):
        """A group of 64 MiB."""
        with ExitStack() as stack:
            try:
                yield stack.enter_context(memory_cgroup(64, f"test-{os.getpid()}-{request.node.name}"))
            except CgroupUnavailableError as error:
                pytest.skip(str(error))

    def run(self, group, mb):
        command = [sys.executable, "-c", self.CHILD, str(group.path), str(mb)]
        return subprocess.run(command, capture_output=True, text=True)

    def test_a_child_that_takes_more_is_killed(self, group):
        assert self.run(group, 256).returncode == -signal.SIGKILL
        assert group.kills() == 1
        assert group.peak_mb() is None or 60 < group.peak_mb() <= 64

    def test_a_child_that_takes_less_lives(self, group):
        result = self.run(group, 32)
        assert (result.returncode, result.stdout) == (0, "32\n")
        assert group.kills() == 0
        assert group.peak_mb() is None or 32 < group.peak_mb() <= 64

    def test_a_child_that_is_left_at_the_end_dies(self):
        command = [sys.executable, "-c", self.CHILD]
        try:
            with memory_cgroup(64, f"test-{os.getpid()}-left") as group:
                child = subprocess.Popen(
                    [*command, str(group.path), "8", "stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                assert child.stdout.readline() == b"8\n"
        except CgroupUnavailableError as error:
            pytest.skip(str(error))
        assert child.wait() == -signal.SIGKILL
        assert not group.path.exists()
        child.stdin.close()
        child.stdout.close()


def test_the_parent_loads_nothing_heavy_for_it():
    code = "import sys; import edge_trgl.runtime.memory.cgroup; print({'numpy', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "set()\n"
