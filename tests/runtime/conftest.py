"""File systems that fail: at the N-th call, with an error, a short count, a kill or a power cut."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from functools import partial
from types import SimpleNamespace

import pytest

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files

ERRNOS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


class Crash(BaseException):
    """The process is gone: no code may catch this."""


class FaultySystem(files.FileSystem):
    """Counts the calls and fails one of them, the first being number 1; nothing is ever synced for real."""

    def __init__(self, fault="", at=0):
        self.fault = fault
        self.at = at
        self.calls = []

    @property
    def has_failed(self):
        return 0 < self.at <= len(self.calls)

    def _call(self, name):
        """Return whether this call must be short."""
        if self.fault == "crash" and self.has_failed:
            raise Crash
        self.calls.append(name)
        if len(self.calls) != self.at:
            return False
        if self.fault in ERRNOS:
            raise OSError(ERRNOS[self.fault], os.strerror(ERRNOS[self.fault]))
        if self.fault == "crash":
            raise Crash
        return True

    def open(self, path, flags):
        self._call("open")
        return super().open(path, flags)

    def pwrite(self, fd, data, offset):
        is_short = self._call("pwrite")
        return super().pwrite(fd, data[: (len(data) + 1) // 2] if is_short else data, offset)

    def preadv(self, fd, buffer, offset):
        is_short = self._call("preadv")
        return super().preadv(fd, buffer[: (len(buffer) + 1) // 2] if is_short else buffer, offset)

    def scatter(self, fd, buffers, offset):
        is_short = self._call("scatter")
        return super().scatter(fd, buffers[: (len(buffers) + 1) // 2] if is_short else buffers, offset)

    def fsync(self, fd):
        self._call("fsync")

    def fallocate(self, fd, size):
        self._call("fallocate")
        super().fallocate(fd, size)

    def rename(self, source, target):
        self._call("rename")
        super().rename(source, target)

    def unlink(self, path):
        self._call("unlink")
        super().unlink(path)

    def mkdir(self, path):
        self._call("mkdir")
        super().mkdir(path)


class PowerCutSystem(FaultySystem):
    """Crashes at a call and then forgets what was not synced, in one folder.

    Whether unsynced entries (names) and unsynced bytes survive is free to the disk: both are choices here.
    """

    def __init__(self, folder, at, *, keeps_entries, keeps_bytes):
        super().__init__("crash", at)
        self._folder = folder
        self._keeps_entries = keeps_entries
        self._keeps_bytes = keeps_bytes
        self._numbers = itertools.count()
        self._ids = {}
        self._bytes = {self._id(path.stat().st_ino): path.read_bytes() for path in folder.iterdir()}
        self._entries = self._current_entries()

    def fsync(self, fd):
        super().fsync(fd)
        path = files._path_of(fd)
        if path == self._folder:
            self._entries = self._current_entries()
        else:
            self._bytes[self._id(os.fstat(fd).st_ino)] = path.read_bytes()

    def rename(self, source, target):
        old = target.stat().st_ino if target.exists() else None
        super().rename(source, target)
        self._ids.pop(old, None)

    def unlink(self, path):
        old = path.stat().st_ino if path.exists() else None
        super().unlink(path)
        self._ids.pop(old, None)

    def cut(self):
        """Leave the folder as the disk has it when the power comes back."""
        current = {self._id(path.stat().st_ino): path.read_bytes() for path in self._folder.iterdir()}
        entries = self._current_entries() if self._keeps_entries else self._entries
        contents = {**current, **self._bytes} if not self._keeps_bytes else {**self._bytes, **current}
        synced = self._bytes.keys()
        for path in self._folder.iterdir():
            path.unlink()
        for name, number in entries.items():
            survives = self._keeps_bytes or number in synced
            (self._folder / name).write_bytes(contents.get(number, b"") if survives else b"")

    def _current_entries(self):
        return {path.name: self._id(path.stat().st_ino) for path in self._folder.iterdir()}

    def _id(self, inode):
        # The kernel gives the number of a removed file to the next new one.
        if inode not in self._ids:
            self._ids[inode] = next(self._numbers)
        return self._ids[inode]


class Sweep:
    """A scenario again and again, in a folder of its own each time, failing at one call after the other.

    `scenario`: made of its folder, which it names as `folder`; `run` does something in it, and `check` finds what
    is left there to be as it should, and in working order.
    """

    def __init__(self, scenario, parent, use_system):
        self._scenario = scenario
        self._folders = (parent / str(number) for number in itertools.count())
        self._use_system = use_system
        counted = use_system(FaultySystem())
        self._make().run()
        self._calls = range(1, len(counted.calls) + 1)

    def _make(self):
        folder = next(self._folders)
        folder.mkdir()
        return self._scenario(folder)

    def faults(self, fault):
        for at in self._calls:
            scenario = self._make()
            system = self._use_system(FaultySystem(fault, at))
            with pytest.raises((StorageError, Crash)):
                scenario.run()
            assert system.has_failed
            self._use_system(FaultySystem())
            scenario.check()
            scenario.check()

    def short_counts(self):
        """Each scenario that ran to its end although a call came short."""
        for at in self._calls:
            scenario = self._make()
            self._use_system(FaultySystem("short", at))
            scenario.run()
            self._use_system(FaultySystem())
            yield scenario
            scenario.check()

    def power_cuts(self, *, keeps_entries, keeps_bytes):
        for at in (*self._calls, self._calls.stop):  # the last comes after the end
            scenario = self._make()
            system = PowerCutSystem(scenario.folder, at, keeps_entries=keeps_entries, keeps_bytes=keeps_bytes)
            self._use_system(system)
            with contextlib.nullcontext() if at == self._calls.stop else pytest.raises(Crash):
                scenario.run()
            system.cut()
            self._use_system(FaultySystem())
            scenario.check()


@pytest.fixture
def sweep(tmp_path, use_system):
    """Makes a `Sweep` of a class of scenarios."""
    return partial(Sweep, parent=tmp_path, use_system=use_system)


@pytest.fixture(scope="session")
def faults():
    """The failing file systems."""
    return SimpleNamespace(Crash=Crash, FaultySystem=FaultySystem, PowerCutSystem=PowerCutSystem)


@pytest.fixture
def use_system(monkeypatch):
    """Put a file system in the place of the real one; without an argument the real one comes back."""
    real = files.system

    def use(system=real):
        monkeypatch.setattr(files, "system", system)
        return system

    return use
