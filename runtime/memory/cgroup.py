"""A memory cgroup for a child process: the kernel enforces the limit, and counts the peak and its kills.

Both versions of cgroups are in use. In v1 the memory controller has a hierarchy of its own. In v2 one hierarchy
has all controllers, and each group lists those that its children get (cgroup.subtree_control); a group other than
the root can pass controllers on only while it has no processes itself. A group is a folder, created by mkdir.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.runtime.units import MIB

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc/self/cgroup")

_OFF = "memory cgroups are off in this kernel (cgroup_enable=memory among its boot options turns them on)"
_NOT_WRITABLE = "not writable (needs root or a delegated cgroup)"
_OCCUPIED = "the process's own cgroup holds processes, so that the kernel lets it limit no child"

_PATIENCE_S = 10.0
"""Maximum time to wait until the memory of killed processes is free; before, the folder cannot be removed."""


class CgroupUnavailableError(Exception):
    """The system does not let this process make a memory cgroup; the text is the reason, one clause."""


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The names of a group's files. `kills` contains a line `oom_kill N`.

    `swap` does not exist if the kernel does not count swap. It limits memory and swap together in v1, swap in v2.
    """

    limit: str
    swap: str
    peak: str
    kills: str


_V1 = _Files(
    limit="memory.limit_in_bytes",
    swap="memory.memsw.limit_in_bytes",
    peak="memory.max_usage_in_bytes",
    kills="memory.oom_control",
)
_V2 = _Files(limit="memory.max", swap="memory.swap.max", peak="memory.peak", kills="memory.events")


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """A group with a limit; a process joins it with `enter(path)`."""

    path: Path
    files: _Files

    def peak_mb(self) -> float | None:
        """Peak in MiB of private memory, page cache and kernel memory; None in v2 before Linux 5.19."""
        try:
            return int((self.path / self.files.peak).read_text()) / MIB
        except FileNotFoundError:
            return None

    def kills(self) -> int:
        """Number of processes that the kernel killed at the limit; always 0 in v1 before Linux 4.13."""
        words = (self.path / self.files.kills).read_text().split()
        counts = dict(zip(words[::2], words[1::2], strict=True))
        return int(counts.get("oom_kill", 0))


def enter(path: Path) -> None:
    """Move this process into the group. Call it before large imports: pages stay charged where they were.

    Raises:
        OSError: the group does not exist any more.
    """
    (path / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def memory_cgroup(limit_mb: float, name: str, root: Path = ROOT, proc: Path = PROC) -> Iterator[Cgroup]:
    """Make a group limited to `limit_mb` MiB, including swap; finally kill its processes and remove it.

    Args:
        name: of the folder; no other process may use the same.
        root: where the hierarchies are mounted.
        proc: the file with the groups of this process.

    Raises:
        CgroupUnavailableError: the system does not let this process make one.
    """
    group = _make(name, root, proc)
    try:
        _limit(group, int(limit_mb * MIB))
        yield group
    finally:
        _remove(group.path)


def _make(name: str, root: Path, proc: Path) -> Cgroup:
    own = _own_groups(proc)
    if "memory" in own:  # v1, even if v2 is mounted as well for other controllers
        folder = _below(root / "memory", own["memory"])
        if not folder.is_dir():
            raise CgroupUnavailableError(f"no memory cgroup is mounted at {root / 'memory'}")
        return Cgroup(path=_make_folder(folder / name), files=_V1)
    mount = root if (root / "cgroup.controllers").exists() else root / "unified"
    if "memory" not in _words(mount / "cgroup.controllers"):
        raise CgroupUnavailableError(_OFF)
    return Cgroup(path=_make_v2(name, mount, _below(mount, own.get("", "/"))), files=_V2)


def _own_groups(proc: Path) -> dict[str, str]:
    """The group of this process, by controller; that of v2 has the name ""."""
    try:
        lines = proc.read_text().splitlines()
    except FileNotFoundError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {controller: path for _, controllers, path in fields for controller in controllers.split(",")}


def _below(mount: Path, group: str) -> Path:
    # In a container its own group is often mounted as the root, while the path is that of the host.
    folder = mount / group.lstrip("/")
    return folder if ".." not in folder.parts and folder.is_dir() else mount


def _make_v2(name: str, mount: Path, own: Path) -> Path:
    """Make a folder below `own` or below the nearest parent that can pass the controller on."""
    reason = _OFF
    for place in (own, *own.parents):
        try:
            _give_out_memory(place)
            return _make_folder(place / name)
        except CgroupUnavailableError as error:
            reason = str(error)
        if place == mount:
            break
    raise CgroupUnavailableError(reason)


def _give_out_memory(place: Path) -> None:
    if "memory" not in _words(place / "cgroup.controllers"):
        raise CgroupUnavailableError("the memory controller is not delegated to the process's own cgroup")
    try:
        # Never undone: limits that others have set in the meantime would be lost.
        (place / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        raise CgroupUnavailableError(_OCCUPIED if error.errno == errno.EBUSY else _NOT_WRITABLE) from error


def _make_folder(path: Path) -> Path:
    with suppress(OSError):
        path.rmdir()  # left behind by a killed process of that name
    try:
        path.mkdir()
    except FileExistsError as error:
        raise CgroupUnavailableError(f"{path} is in use") from error
    except OSError as error:
        raise CgroupUnavailableError(_NOT_WRITABLE) from error
    return path


def _limit(group: Cgroup, limit_bytes: int) -> None:
    # In v1 the limit with swap must not be below the other, hence this order.
    (group.path / group.files.limit).write_text(str(limit_bytes))
    swap = group.path / group.files.swap
    if swap.exists():
        swap.write_text(str(limit_bytes) if group.files is _V1 else "0")


def _remove(path: Path) -> None:
    end = time.monotonic() + _PATIENCE_S
    while path.is_dir() and time.monotonic() < end:
        for pid in _words(path / "cgroup.procs"):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with suppress(OSError):
            path.rmdir()
            return
        time.sleep(0.02)


def _words(path: Path) -> list[str]:
    """The words of a file; none if it does not exist."""
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []
