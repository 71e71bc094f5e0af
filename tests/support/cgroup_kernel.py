"""A kernel whose cgroup file systems are plain folders."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

V1_FILES = {
    "cgroup.procs": "",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.max_usage_in_bytes": "0\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
}
V2_FILES = {"cgroup.procs": "", "cgroup.subtree_control": ""}
V2_MEMORY_FILES = {
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.peak": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
}


class Kernel:
    """Keeps the rules of cgroup file systems for plain folders below `root`."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.unwritable = []  # groups of another user
        self.absent = []  # files that this kernel does not have
        self.true_roots = []  # groups that may hold processes and give out controllers
        self.dying = 0  # attempts to remove a group that come before the memory of its processes is gone
        self.killed = []
        self._real = {name: getattr(Path, name) for name in ("mkdir", "rmdir", "write_text")}
        for name in self._real:
            monkeypatch.setattr(Path, name, self._ruled(name))
        monkeypatch.setattr(os, "kill", self._kill)

    def mount_v2(self, path="", *, controllers="cpu io memory pids", gives="pids", is_true_root=True):
        folder = self.root / path
        self._real["mkdir"](folder, exist_ok=True)
        files = {**V2_FILES, "cgroup.controllers": controllers, "cgroup.subtree_control": gives}
        self._fill(folder, files)
        if is_true_root:
            self.true_roots.append(folder)
        return folder

    def mount_v1(self):
        folder = self.root / "memory"
        self._real["mkdir"](folder)
        self._fill(folder, V1_FILES)
        return folder

    def group(self, parent, name, *, pids="", gives=""):
        """A group that was there before."""
        self._mkdir(parent / name)
        self._fill(parent / name, {"cgroup.procs": pids, **({"cgroup.subtree_control": gives} if gives else {})})
        return parent / name

    def join(self, group, pid):
        self._fill(group, {"cgroup.procs": f"{pid}\n"})

    def leave(self, group):
        self._fill(group, {"cgroup.procs": ""})

    def _ruled(self, name):
        def call(path, *arguments, **options):
            rule = getattr(self, f"_{name}") if self.root in path.parents else self._real[name]
            return rule(path, *arguments, **options)

        return call

    def _fill(self, folder, files):
        for name in files.keys() - set(self.absent):
            self._real["write_text"](folder / name, files[name])

    def _mkdir(self, path):
        if path.parent in self.unwritable:
            raise OSError(errno.EROFS, "Read-only file system")
        self._real["mkdir"](path)
        if self.root / "memory" in path.parents:
            self._fill(path, V1_FILES)
            return
        given = (path.parent / "cgroup.subtree_control").read_text()
        memory = V2_MEMORY_FILES if "memory" in given else {}
        self._fill(path, {**V2_FILES, **memory, "cgroup.controllers": given})

    def _rmdir(self, path):
        is_dying = self.dying > 0
        self.dying -= is_dying
        if is_dying or (path / "cgroup.procs").read_text() or any(entry.is_dir() for entry in path.iterdir()):
            raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(path)

    def _write_text(self, path, text):
        group = path.parent
        if group in self.unwritable or not path.exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        if path.name == "cgroup.subtree_control":
            assert text == "+memory"
            if (group / "cgroup.procs").read_text() and group not in self.true_roots:
                raise OSError(errno.EBUSY, "Device or resource busy")
            text = "memory pids"
        if path.name == "memory.memsw.limit_in_bytes":
            assert int(text) >= int((group / "memory.limit_in_bytes").read_text())
        self._real["write_text"](path, text)

    def _kill(self, pid, number):
        assert number == signal.SIGKILL
        self.killed.append(pid)
        for procs in self.root.rglob("cgroup.procs"):
            if procs.read_text() == f"{pid}\n":
                self.leave(procs.parent)
                return
        raise ProcessLookupError(errno.ESRCH, "No such process")
