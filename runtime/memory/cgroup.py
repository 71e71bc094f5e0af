"""A memory cgroup around a child process: the kernel holds the limit, counts the peak and tells its kills.

Both versions are in the field. In v1 the memory controller has a hierarchy of its own; in v2 one hierarchy has
every controller, each group says which of them its children get (cgroup.subtree_control), and a group other
than the root can give them out only while it holds no process itself. A group is a folder, made by mkdir.
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
"""For the memory of killed processes to go back, at most; a folder cannot be removed before."""


class CgroupUnavailableError(Exception):
    """The system lets this process make no memory cgroup; the text says why, in one clause."""


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What the two versions call the same things; `kills` holds a line `oom_kill N`.

    `swap`: absent where the kernel does not count swap. v1 limits memory and swap together there, v2 swap alone.
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
    """A group with a limit. `path`: its folder, for `enter`."""

    path: Path
    files: _Files

    def peak_mb(self) -> float | None:
        """MiB charged at most: private memory, page cache and kernel. None where not kept (v2 before 5.19)."""
        try:
            return int((self.path / self.files.peak).read_text()) / MIB
        except FileNotFoundError:
            return None

    def kills(self) -> int:
        """Processes that the kernel killed for the limit; 0 also where it does not count them (v1 before 4.13)."""
        words = (self.path / self.files.kills).read_text().split()
        counts = dict(zip(words[::2], words[1::2], strict=True))
        return int(counts.get("oom_kill", 0))


def enter(path: Path) -> None:
    """Put this process into the group; before it imports anything large, for pages stay where they were charged.

    Raises:
        OSError: the group is gone.
    """
    (path / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def memory_cgroup(limit_mb: float, name: str, root: Path = ROOT, proc: Path = PROC) -> Iterator[Cgroup]:
    """Make a group that may hold `limit_mb` MiB, swap included; at the end, kill what is in it and remove it.

    Args:
        name: of the folder, which no other process may be using.
        root: where the hierarchies are mounted.
        proc: the groups that this process is in.

    Raises:
        CgroupUnavailableError: there can be none.
    """
    group = _make(name, root, proc)
    try:
        _limit(group, int(limit_mb * MIB))
        yield group
    finally:
        _remove(group.path)


def _make(name: str, root: Path, proc: Path) -> Cgroup:
    own = _own_groups(proc)
    if "memory" in own:  # v1, also where v2 is mounted beside it for other controllers
        folder = _below(root / "memory", own["memory"])
        if not folder.is_dir():
            raise CgroupUnavailableError(f"no memory cgroup is mounted at {root / 'memory'}")
        return Cgroup(path=_make_folder(folder / name), files=_V1)
    mount = root if (root / "cgroup.controllers").exists() else root / "unified"
    if "memory" not in _words(mount / "cgroup.controllers"):
        raise CgroupUnavailableError(_OFF)
    return Cgroup(path=_make_v2(name, mount, _below(mount, own.get("", "/"))), files=_V2)


def _own_groups(proc: Path) -> dict[str, str]:
    """The group of this process for every controller; v2's has the name ""."""
    try:
        lines = proc.read_text().splitlines()
    except FileNotFoundError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {controller: path for _, controllers, path in fields for controller in controllers.split(",")}


def _below(mount: Path, group: str) -> Path:
    # A container often sees its own group mounted as the root, but the group's path as the host has it.
    folder = mount / group.lstrip("/")
    return folder if ".." not in folder.parts and folder.is_dir() else mount


def _make_v2(name: str, mount: Path, own: Path) -> Path:
    """A folder below `own`, or below the nearest group above it that can give the controller out."""
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
        # Never taken back: whoever has set a limit since would lose it.
        (place / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        raise CgroupUnavailableError(_OCCUPIED if error.errno == errno.EBUSY else _NOT_WRITABLE) from error


def _make_folder(path: Path) -> Path:
    with suppress(OSError):
        path.rmdir()  # left behind by a process of that name that was killed
    try:
        path.mkdir()
    except FileExistsError as error:
        raise CgroupUnavailableError(f"{path} is in use") from error
    except OSError as error:
        raise CgroupUnavailableError(_NOT_WRITABLE) from error
    return path


def _limit(group: Cgroup, limit_bytes: int) -> None:
    # v1 wants its two limits in this order: the second may not be below the first.
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
    """The words of a file; none where there is no such file."""
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []
