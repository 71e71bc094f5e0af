"""ModuleStore: after any crash or fault it is at a commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from counted_modules import NUM_MODULES, ModuleFactory, file_names, finish, first_values, names, num_bytes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_trgl.runtime.storage import files


class Scenario:
    """Three commits of a store whose database is `self.database`, and the values of each."""

    def __init__(self, folder):
        self.folder = folder
        self.workshop = ModuleFactory(folder)
        self.database = {}
        self.held = {}

    def run(self):
        store = self.workshop.store(num_bytes(1, 2))
        model = {}
        for module in range(3):
            store.open(module)
            model[module] = first_values(module)
        self._commit(store, model)
        self._change(store, model, 0, 10.0)
        self._change(store, model, 1, 11.0)
        self._change(store, model, 2, 12.0)  # those before it are pages by now
        store.prefetch(0, beside=2, upcoming=[0])
        store.open(0, [1, 2])
        self._commit(store, model)
        self._change(store, model, 1, 21.0)
        store.open(2)
        self._change(store, model, 1, 22.0)
        self._commit(store, model)

    def _change(self, store, model, module, value):
        opened = store.open(module)
        opened.change(value)
        store.mark_changed(module)
        model[module] = opened.values

    def _commit(self, store, model):
        records = store.commit()
        self.database, self.held = records, dict(model)
        store.committed(records)

    def check(self):
        """A store on what is left of the folder holds what the database says, and is in working order."""
        store = self.workshop.store(num_bytes(0, 1), self.database)
        assert names(self.workshop.folder) == file_names(self.database)
        assert {module: store.open(module).values for module in self.database} == self.held
        self._change(store, self.held, 0, 31.0)
        self._commit(store, self.held)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "crash"])
def test_after_a_fault_in_any_call_the_last_commit_stands(sweep, fault):
    sweep(Scenario).faults(fault)


def test_short_counts_change_nothing(sweep):
    for scenario in sweep(Scenario).short_counts():
        assert scenario.held == {0: (10.0, 1), 1: (22.0, 3), 2: (12.0, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("keeps_entries", [False, True])
@pytest.mark.parametrize("keeps_bytes", [False, True])
def test_after_a_power_cut_at_any_call_the_last_commit_stands(sweep, keeps_entries, keeps_bytes):
    sweep(Scenario).power_cuts(keeps_entries=keeps_entries, keeps_bytes=keeps_bytes)


modules = st.integers(0, NUM_MODULES - 1)


class StoreMachine(RuleBasedStateMachine):
    """A store against dicts: the values of each module now, and those of the last commit."""

    def __init__(self):
        super().__init__()
        # Nothing here is about power cuts: no waiting for the disk.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(files.FileSystem, "fsync", lambda self, fd: None)
        self.root = tempfile.TemporaryDirectory()
        self.workshop = ModuleFactory(Path(self.root.name) / "modules")
        self.limit = num_bytes(1, 2, 3)
        self.store = self.workshop.store(self.limit)
        self.model = {}
        self.database = ({}, {})
        self.value = 1000.0

    def teardown(self):
        finish(self.store)
        self.root.cleanup()
        self.patch.undo()

    @rule(module=modules, upcoming=st.lists(modules, max_size=6))
    def open(self, module, upcoming):
        expected = self.model.setdefault(module, first_values(module))
        assert self.store.open(module, upcoming).values == expected

    @rule(module=modules)
    def change(self, module):
        self.open(module, [])
        self.value += 1
        opened = self.store.open(module)
        opened.change(self.value)
        self.store.mark_changed(module)
        self.model[module] = opened.values

    @rule(module=modules, beside=modules, upcoming=st.lists(modules, max_size=6))
    def prefetch(self, module, beside, upcoming):
        self.open(beside, upcoming)
        self.store.prefetch(module, beside=beside, upcoming=upcoming)

    @rule(transaction_fails=st.booleans())
    def commit(self, transaction_fails):
        records = self.store.commit()
        assert records.keys() == self.model.keys()
        if transaction_fails:
            return
        self.database = (records, dict(self.model))
        self.store.committed(records)
        assert names(self.workshop.folder) == file_names(records)

    @rule(after_transaction=st.booleans(), limit=st.integers(0, num_bytes(*range(NUM_MODULES))))
    def crash(self, after_transaction, limit):
        finish(self.store)
        if after_transaction:
            self.database = (self.store.commit(), dict(self.model))
        records, model = self.database
        self.limit, self.model = limit, dict(model)
        self.store = self.workshop.store(limit, records)
        assert names(self.workshop.folder) == file_names(records)

    @precondition(lambda self: self.database[0])
    @invariant()
    def files_of_the_database_are_there(self):
        assert file_names(self.database[0]) <= names(self.workshop.folder)

    @invariant()
    def the_limit_is_respected(self):
        finish(self.store)
        assert len(self.workshop.alive) <= 1 or self.workshop.alive_bytes <= self.limit


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30)
