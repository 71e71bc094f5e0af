"""ModuleStore: a dict in all but memory, within its limit."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest
from counted_modules import NUM_MODULES, ModuleFactory, file_names, finish, first_values, names, num_bytes, save
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage.module_store import ModuleStore


@pytest.fixture
def workshop(tmp_path):
    return ModuleFactory(tmp_path / "modules")


@pytest.fixture
def equal_workshop(tmp_path):
    """All modules are as large as module 0."""
    return ModuleFactory(tmp_path / "modules", equal=True)


@pytest.fixture
def saved(equal_workshop):
    """The records of `NUM_MODULES` equal modules that were changed and committed: module k holds 100 + k."""
    store = equal_workshop.store(num_bytes(0))
    for module in range(NUM_MODULES):
        store.open(module).change(100.0 + module)
        store.mark_changed(module)
    return save(store)


class TestMemory:
    def test_a_module_is_the_same_object_until_it_makes_room(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        first = store.open(0)
        store.open(1)
        assert store.open(0) is first
        store.open(2, upcoming=[1])
        assert (equal_workshop.loads, store.evictions) == (3, 1)
        assert store.open(0, upcoming=[1]) is not first
        assert (equal_workshop.loads, store.evictions) == (4, 2)

    def test_a_module_larger_than_the_limit_is_alone(self, workshop):
        store = workshop.store(1)
        for module in (2, 0, 2):
            assert store.open(module).values == first_values(module)
            assert len(workshop.alive) == 1

    def test_all_stay_within_a_limit_of_exactly_their_bytes(self, workshop):
        everything = range(NUM_MODULES)
        store = workshop.store(num_bytes(*everything))
        for module in (*everything, *everything):
            store.open(module)
        loads = workshop.loads
        for module in everything:
            store.open(module)
        assert workshop.loads == loads
        again = workshop.store(num_bytes(*everything), save(store))
        for module in (*everything, *everything):
            again.open(module)
        assert workshop.loads == NUM_MODULES

    @settings(max_examples=50)
    @given(
        limit=st.integers(0, num_bytes(*range(NUM_MODULES))),
        order=st.lists(st.integers(0, NUM_MODULES - 1), max_size=20),
        commits=st.sets(st.integers(0, 19)),
    )
    def test_room_is_there_before_a_module_is_made(self, limit, order, commits):
        with tempfile.TemporaryDirectory() as folder:
            workshop = ModuleFactory(Path(folder) / "modules")
            store = workshop.store(limit)
            for number, module in enumerate(order):
                store.open(module, order[number + 1 :])
                if number in commits:
                    save(store)
            for module, alive in workshop.made:
                assert alive == 0 or alive + num_bytes(module) <= limit

    @pytest.mark.parametrize("num_resident", range(1, NUM_MODULES + 1))
    def test_the_farthest_next_use_makes_room(self, equal_workshop, saved, num_resident):
        """R of K modules round and round: K (K - R) loads in K - 1 rounds, which nothing can beat.

        That is K - R or K - R + 1 a round; evicting the least recently used would give all K of them.
        """
        store = equal_workshop.store(num_resident * num_bytes(0), saved)
        loads = []
        for _ in range(2 * (NUM_MODULES - 1)):
            before = equal_workshop.loads
            for module in range(NUM_MODULES):
                store.open(module, [(module + 1 + later) % NUM_MODULES for later in range(NUM_MODULES)])
            loads.append(equal_workshop.loads - before)
        missing = NUM_MODULES - num_resident
        assert loads[0] >= num_resident
        assert sum(loads[NUM_MODULES - 1 :]) == NUM_MODULES * missing
        assert all(missing <= count <= missing + 1 for count in loads[1:])

    def test_what_is_not_used_again_goes_first(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(0)
        store.open(1)
        store.open(2, upcoming=[1, 2, 1])
        store.open(1)
        assert equal_workshop.loads == 3
        store.open(0)
        assert equal_workshop.loads == 4

    def test_each_module_has_a_limit_of_its_own(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(0), saved, limits=[3 * num_bytes(0), num_bytes(0), num_bytes(0)])
        for module, num_alive in ((1, 1), (0, 2), (2, 1), (0, 2)):
            store.open(module)
            assert len(equal_workshop.alive) == num_alive

    def test_release_keeps_one_and_the_changes_of_the_others(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(*range(NUM_MODULES)), saved)
        store.open(0).change(7.0)
        store.mark_changed(0)
        kept = store.open(1)
        store.prefetch(2, beside=1)
        store.release(keep=1)
        finish(store)
        assert len(equal_workshop.alive) == 1
        assert store.open(1) is kept
        assert store.open(0).values == (7.0, 2)


class TestPrefetch:
    def test_the_tensors_are_the_same(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        for module in (0, 1, 2, 3, 4, 0, 1):
            following = (module + 1) % NUM_MODULES
            assert store.open(module, [following]).values == (100.0 + module, 1)
            store.prefetch(following, beside=module, upcoming=[following])

    def test_it_reads_in_the_background_within_a_limit_of_exactly_two(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(0)
        equal_workshop.threads.clear()
        store.prefetch(1, beside=0, upcoming=[1])
        store.open(1)
        assert equal_workshop.threads
        assert threading.main_thread() not in equal_workshop.threads
        assert equal_workshop.loads == 2

    def test_without_room_for_both_nothing_is_read_and_nothing_evicted(self, workshop):
        store = workshop.store(num_bytes(0, 1))
        for module in range(NUM_MODULES):
            store.open(module)
        records = save(store)
        store = workshop.store(num_bytes(0, 1), records)
        store.open(0)
        store.open(1)
        store.prefetch(4, beside=1, upcoming=[4])
        store.open(0)
        finish(store)
        assert workshop.loads == 2

    def test_the_module_in_use_stays(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(1)
        in_use = store.open(0)
        store.prefetch(2, beside=0, upcoming=[2, 1])
        store.open(2)
        assert store.open(0) is in_use

    def test_changes_of_what_makes_room_are_kept(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(1).change(5.0)
        store.mark_changed(1)
        store.open(0)
        store.prefetch(2, beside=0, upcoming=[2, 1])
        store.open(2)
        assert store.open(1).values == (5.0, 2)

    def test_another_module_may_be_opened_instead(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(0)
        store.prefetch(1, beside=0, upcoming=[1])
        assert store.open(3).values == (103.0, 1)
        finish(store)
        assert equal_workshop.alive_bytes <= 2 * num_bytes(0)
        assert store.open(1).values == (101.0, 1)

    def test_a_module_without_a_file_is_not_read(self, equal_workshop):
        store = equal_workshop.store(2 * num_bytes(0))
        store.open(0)
        store.prefetch(1, beside=0, upcoming=[1])
        assert store.open(1).values == first_values(1)
        assert equal_workshop.loads == 0

    def test_a_module_in_memory_is_not_read_again(self, equal_workshop, saved):
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(0)
        store.open(1)
        store.prefetch(0, beside=1, upcoming=[0])
        finish(store)
        assert equal_workshop.loads == 2

    def test_damage_is_told_once_by_the_next_open(self, equal_workshop, saved):
        damage(equal_workshop.folder / saved[1].name)
        store = equal_workshop.store(2 * num_bytes(0), saved)
        store.open(0)
        store.prefetch(1, beside=0, upcoming=[1])
        with pytest.raises(StorageError, match="checksum"):
            store.open(2)
        assert store.open(2).values == (102.0, 1)


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class TestFiles:
    def test_the_folder_is_made_durably(self, tmp_path, faults, use_system):
        system = use_system(faults.FaultySystem())
        ModuleFactory(tmp_path / "modules").store(0)
        assert (tmp_path / "modules").is_dir()
        assert system.calls == ["mkdir", "open", "fsync"]

    def test_older_versions_go_once_the_database_names_newer_ones(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(0), saved)
        store.open(0).change(1.0)
        store.mark_changed(0)
        records = store.commit()
        assert names(equal_workshop.folder) == file_names(saved) | file_names(records)
        store.committed(records)
        assert names(equal_workshop.folder) == file_names(records)
        assert records[0] != saved[0]
        assert {module: records[module] for module in range(1, NUM_MODULES)} == {
            module: saved[module] for module in range(1, NUM_MODULES)
        }

    def test_pages_between_commits_replace_each_other(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(0), saved)
        for value in (1.0, 2.0, 3.0):
            store.open(0).change(value)
            store.mark_changed(0)
            store.open(1)
        assert len(names(equal_workshop.folder)) == NUM_MODULES + 1

    def test_pages_written_during_the_transaction_are_no_garbage(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(0), saved)
        records = store.commit()
        store.open(0).change(4.0)
        store.mark_changed(0)
        store.open(1)
        store.committed(records)
        assert store.open(0).values == (4.0, 2)
        assert equal_workshop.store(num_bytes(0), records).open(0).values == (100.0, 1)

    def test_a_changed_module_is_synced_once(self, equal_workshop, saved, faults, use_system):
        store = equal_workshop.store(num_bytes(0), saved)
        store.open(0)
        store.mark_changed(0)
        system = use_system(faults.FaultySystem())
        store.commit()
        assert system.calls.count("fsync") == 2  # the file and the folder
        store.commit()
        assert system.calls.count("fsync") == 2

    def test_unchanged_modules_are_not_written(self, equal_workshop, saved, faults, use_system):
        store = equal_workshop.store(num_bytes(0), saved)
        system = use_system(faults.FaultySystem())
        for module in range(NUM_MODULES):
            store.open(module)
        assert save(store) == saved
        assert "pwrite" not in system.calls
        assert "fsync" not in system.calls

    def test_garbage_goes_at_the_start(self, equal_workshop, saved):
        for name in ("m000.000099.safetensors", "m001.000100.safetensors.tmp", "other"):
            (equal_workshop.folder / name).write_bytes(b"left behind")
        equal_workshop.store(0, saved)
        assert names(equal_workshop.folder) == file_names(saved)

    def test_names_are_not_used_twice(self, equal_workshop, saved):
        store = equal_workshop.store(num_bytes(0), saved)
        store.open(0)
        store.mark_changed(0)
        assert store.commit()[0].name not in file_names(saved)

    @pytest.mark.parametrize("harm", [damage, lambda path: os.truncate(path, 40), Path.unlink])
    def test_a_damaged_file_is_named(self, equal_workshop, saved, harm):
        path = equal_workshop.folder / saved[3].name
        harm(path)
        store = equal_workshop.store(num_bytes(0), saved)
        with pytest.raises(StorageError) as caught:
            store.open(3)
        assert str(path) in caught.value.message
        assert caught.value.hint
        assert store.open(2).values == (102.0, 1)

    def test_a_module_that_could_not_be_made_is_not_committed(self, tmp_path):
        def refuse(module):
            raise MemoryError

        store = ModuleStore(tmp_path / "m", build=refuse, initialise=refuse, limits=[0], committed={})
        with pytest.raises(MemoryError):
            store.open(0)
        assert store.commit() == {}

    def test_after_a_failed_sync_there_is_no_second_try(self, equal_workshop, saved, faults, use_system):
        store = equal_workshop.store(num_bytes(0), saved)
        store.open(0)
        store.mark_changed(0)
        store.open(1)
        system = use_system(faults.FaultySystem())
        system.fault, system.at = "EIO", 2  # opened, then synced
        with pytest.raises(StorageError, match="input/output"):
            store.commit()
        use_system()
        with pytest.raises(AssertionError, match="last commit"):
            store.commit()

    def test_a_commit_can_be_tried_again_when_the_disk_was_full(self, equal_workshop, saved, faults, use_system):
        store = equal_workshop.store(num_bytes(0), saved)
        store.open(0).change(9.0)
        store.mark_changed(0)
        use_system(faults.FaultySystem("ENOSPC", 2))
        with pytest.raises(StorageError, match="full"):
            store.commit()
        use_system(faults.FaultySystem())
        assert equal_workshop.store(num_bytes(0), save(store)).open(0).values == (9.0, 2)


def test_a_page_becomes_durable_at_the_commit(equal_workshop, saved, faults, use_system):
    """Written without a sync, moved out of memory, then committed: the power cut right after finds it."""
    system = use_system(faults.PowerCutSystem(equal_workshop.folder, 0, keeps_entries=False, keeps_bytes=False))
    store = equal_workshop.store(num_bytes(0), saved)
    store.open(0).change(3.0)
    store.mark_changed(0)
    store.open(1)
    assert "fsync" not in system.calls
    records = store.commit()
    system.cut()
    use_system()
    assert equal_workshop.store(num_bytes(0), records).open(0).values == (3.0, 2)
