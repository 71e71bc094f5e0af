"""ActivationStore: after any crash or fault it is at a commit, whole."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from random_boundaries import BATCH_SIZE, NUM_SAMPLES, SHAPES, batch, numbers, same, spec_of

from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.activation_store import ActivationStore


class Scenario:
    """Three commits of a store whose database is `self.database`, and what each of them held."""

    def __init__(self, folder):
        self.folder = folder
        self.database = []
        self.held = {}

    def run(self):
        store = ActivationStore(self.folder, NUM_SAMPLES, BATCH_SIZE)
        try:
            self._steps(store)
        finally:
            store.close()

    def _steps(self, store):
        disk, memory = spec_of("disk", copies=2, records=8), spec_of("memory", records=8, in_memory=True)
        model = {"disk": {}, "memory": {}}
        self._append(store.create(disk), model, [3, 1, 2], 0)
        self._append(store.create(memory), model, [0, 1], 0)
        self._commit(store, model)
        self._append(store.get("disk"), model, [7, 6], 1)
        self._append(store.get("memory"), model, [5, 4], 0)
        store.create(spec_of("dropped", records=8))
        store.drop("dropped")
        self._commit(store, model)
        model = {"disk": {}, "other": {}}
        self._append(store.create(disk), model, [9], 0)
        self._append(store.create(dataclasses.replace(disk, name="other")), model, [1, 2, 3], 1)
        store.drop("memory")
        store.get("other").read(numbers(3, 1), copy=1)
        self._commit(store, model)

    def _append(self, boundary, model, samples, copy):
        values = batch(boundary.spec, sum(samples), len(samples))
        boundary.append(numbers(*samples), values, copy=copy)
        model[boundary.spec.name].update({(copy, n): v for n, v in zip(samples, values, strict=True)})

    def _commit(self, store, model):
        records = store.commit()
        self.database, self.held = records, {name: dict(held) for name, held in model.items()}
        store.sweep()

    def check(self):
        """A store on what is left of the folder holds what the database says, and is in working order."""
        store = ActivationStore(self.folder, NUM_SAMPLES, BATCH_SIZE)
        store.restore(self.database)
        assert {record.spec.name for record in self.database} == self.held.keys()
        for name, held in self.held.items():
            assert sum(store.get(name).num_written) == len(held)
            for (copy, sample), value in held.items():
                assert torch.equal(store.get(name).read(numbers(sample), copy=copy)[0], value)
        assert {path.name for path in self.folder.iterdir()} == {record.file for record in self.database}
        added = store.create(spec_of("added"))
        added.append(numbers(0), batch(added.spec, 0, 1))
        self.database, self.held = (
            store.commit(),
            {**self.held, "added": {(0, 0): batch(added.spec, 0, 1)[0]}},
        )
        store.close()


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "crash"])
def test_after_a_fault_in_any_call_the_last_commit_stands(sweep, fault):
    sweep(Scenario).faults(fault)


def test_short_counts_change_nothing(sweep):
    for scenario in sweep(Scenario).short_counts():
        assert scenario.held.keys() == {"disk", "other"}


@pytest.mark.parametrize("keeps_entries", [False, True])
@pytest.mark.parametrize("keeps_bytes", [False, True])
def test_after_a_power_cut_at_any_call_the_last_commit_stands(sweep, keeps_entries, keeps_bytes):
    sweep(Scenario).power_cuts(keeps_entries=keeps_entries, keeps_bytes=keeps_bytes)


names = st.sampled_from(["a", "b", "c"])
specs = st.builds(
    spec_of,
    names,
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    records=st.integers(1, NUM_SAMPLES),
    copies=st.integers(1, 2),
    in_memory=st.booleans(),
)


class StoreMachine(RuleBasedStateMachine):
    """A store against dicts: {name: (spec, {(copy, sample): value})}, and the dict of the last commit."""

    def __init__(self):
        super().__init__()
        # Nothing here is about power cuts: no waiting for the disk.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(files.FileSystem, "fsync", lambda self, fd: None)
        self.root = tempfile.TemporaryDirectory()
        self.folder = Path(self.root.name) / "boundaries"
        self.store = ActivationStore(self.folder, NUM_SAMPLES, BATCH_SIZE)
        self.model = {}
        self.database = ([], {})
        self.seed = 0

    def teardown(self):
        self.store.close()
        self.root.cleanup()
        self.patch.undo()

    @rule(spec=specs)
    def create(self, spec):
        self.store.create(spec)
        self.model[spec.name] = (spec, {})

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def append(self, data):
        spec, held = self._draw_boundary(data)
        copy = data.draw(st.integers(0, spec.copies - 1))
        there = {sample for c, sample in held if c == copy}
        room = min(BATCH_SIZE, spec.records - len(there))
        free = sorted(set(range(NUM_SAMPLES)) - there)
        samples = data.draw(st.permutations(free))[:room]
        self.seed += 1
        values = batch(spec, self.seed, len(samples))
        if data.draw(st.booleans()) and len(spec.shape) == 3:
            values = values.contiguous(memory_format=torch.channels_last)
        self.store.get(spec.name).append(numbers(*samples), values, copy=copy)
        stored = values.to(getattr(torch, spec.dtype))
        held.update({(copy, sample): value for sample, value in zip(samples, stored, strict=True)})

    @precondition(lambda self: any(held for _, held in self.model.values()))
    @rule(data=st.data())
    def read(self, data):
        name = data.draw(st.sampled_from(sorted(name for name, (_, held) in self.model.items() if held)))
        held = self.model[name][1]
        copy = data.draw(st.sampled_from(sorted({copy for copy, _ in held})))
        there = sorted(sample for c, sample in held if c == copy)
        samples = data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=BATCH_SIZE))
        found = self.store.get(name).read(numbers(*samples), copy=copy)
        assert same(found, torch.stack([held[copy, sample] for sample in samples]))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data):
        spec, _ = self._draw_boundary(data)
        self.store.drop(spec.name)
        del self.model[spec.name]

    @rule(transaction_fails=st.booleans())
    def commit(self, transaction_fails):
        records = self.store.commit()
        if transaction_fails:
            return
        self.database = (records, self._copy(self.model))
        self.store.sweep()
        assert {path.name for path in self.folder.iterdir()} == {record.file for record in records}

    @rule(is_new_process=st.booleans())
    def restore(self, is_new_process):
        if is_new_process:
            self.store.close()
            self.store = ActivationStore(self.folder, NUM_SAMPLES, BATCH_SIZE)
        records, model = self.database
        self.store.restore(records)
        self.model = self._copy(model)
        assert {path.name for path in self.folder.iterdir()} == {record.file for record in records}

    @invariant()
    def counts_agree(self):
        assert set(self.store.names) == self.model.keys()
        for name, (spec, held) in self.model.items():
            boundary = self.store.get(name)
            assert boundary.spec == spec
            assert sum(boundary.num_written) == len(held)

    @invariant()
    def files_of_the_database_are_there(self):
        assert all((self.folder / record.file).exists() for record in self.database[0])

    def _draw_boundary(self, data):
        return self.model[data.draw(st.sampled_from(sorted(self.model)))]

    @staticmethod
    def _copy(model):
        return {name: (spec, dict(held)) for name, (spec, held) in model.items()}


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30)
