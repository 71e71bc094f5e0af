"""Modules that tell their values and count their changes, and a factory of stores of them."""

from __future__ import annotations

import threading
import weakref
from types import MappingProxyType

import torch

from edge_trgl.runtime.storage.module_store import ModuleStore

NUM_MODULES = 5
GARBAGE = -77.0


class Module:
    """Module k has k + 2 rows of weights, all of one value, and counts its changes."""

    def __init__(self, module, value):
        self.weight = torch.full((module + 2, 4), value)
        self.num_changes = torch.zeros((), dtype=torch.int64)

    def tensors(self):
        return {"weight": self.weight, "num_changes": self.num_changes}

    def change(self, value):
        self.weight.fill_(value)
        self.num_changes += 1

    @property
    def num_bytes(self):
        return sum(tensor.nbytes for tensor in self.tensors().values())

    @property
    def values(self):
        assert (self.weight == self.weight[0, 0]).all()
        return (float(self.weight[0, 0]), int(self.num_changes))


def num_bytes(*modules):
    return sum(Module(module, 0.0).num_bytes for module in modules)


def first_values(module):
    return (float(module), 0)


class ModuleFactory:
    """Makes modules and stores of them; knows which are alive, which were made, and in which threads.

    `loads`: modules made to be read into, for the store that it made last.
    """

    def __init__(self, folder, *, equal=False):
        self.folder = folder
        self.alive = weakref.WeakSet()
        self.made = []
        self.threads = set()
        self.loads = 0
        self._equal = equal

    def store(self, limit, committed=MappingProxyType({}), limits=None):
        self.loads = 0
        return ModuleStore(
            self.folder,
            build=self._build,
            initialise=lambda module: self._make(module, float(module)),
            limits=limits or [limit] * 10,
            committed=committed,
        )

    def _build(self, module):
        self.loads += 1
        return self._make(module, GARBAGE)

    def _make(self, module, value):
        self.made.append((module, sum(other.num_bytes for other in self.alive)))
        self.threads.add(threading.current_thread())
        made = Module(0 if self._equal else module, value)
        self.alive.add(made)
        return made

    @property
    def alive_bytes(self):
        return sum(module.num_bytes for module in self.alive)


def names(folder):
    return {path.name for path in folder.iterdir()}


def file_names(records):
    return {record.name for record in records.values()}


def save(store):
    """A commit whose transaction succeeds."""
    records = store.commit()
    store.committed(records)
    return records


def finish(store):
    """Wait until the background thread holds nothing any more."""
    store._reader.submit(int).result()
