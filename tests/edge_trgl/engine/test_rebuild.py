"""Damaged, cut, missing and foreign boundary files: written again, and the weights come out the same."""

from __future__ import annotations

import gc
import itertools

import pytest
from plans import PLENTY, lay_out

from edge_trgl.engine import training
from edge_trgl.engine.commits import Ledger
from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.rebuild import can_rebuild, rebuilding
from edge_trgl.engine.regimes import parallel, sequential
from edge_trgl.engine.visits import IMAGES, JobSize
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.runtime.errors import DamagedBoundaryError, StoppedError, StorageError

SHAPE = JobSize(num_modules=4, num_samples=70, batch_size=8, augmented=True, stretch=2)

WAYS = {
    "sequential": {"train__regime": "sequential", "train__views": 2},
    "multi-lap": {"train__regime": "multi-lap", "train__laps": 2, "train__views": 2},
    "frozen": {"train__regime": "parallel", "train__freeze": 1, "train__views": 2},
    "frozen laps": {"train__regime": "multi-lap", "train__laps": 2, "train__freeze": 1},
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def swap(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {"flipped": flip, "cut": cut, "foreign": swap, "missing": lambda path: path.unlink()}


def _plan(plan_run, name, placement, **settings):
    run = plan_run(name, train__epochs="4", model__width=8, **settings)
    facts = run.facts()
    lay_out(facts, placement=placement)
    facts.close()
    return run


@pytest.fixture(autouse=True)
def _closed():
    """The files of a run that was stopped stay open with the traceback, which only the collector finds."""
    yield
    gc.collect()


@pytest.fixture
def stop_at(monkeypatch):
    """Trains a run up to a position and commits; whether it stopped there, and did not come to its end."""

    def stop_at(run, target):
        stop, book = [], Ledger.after

        def after(ledger, position, visit, local):
            stop.extend([15] if position >= target else [])
            book(ledger, position, visit, local)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "after", after)
            try:
                training.train(open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda: bool(stop))
            except StoppedError:
                return True
        return False

    return stop_at


def _cached(run):
    """The boundaries that the last commit names and that frozen modules wrote."""
    facts = run.facts()
    found = [run.boundaries / record.file for record in facts.boundaries() if can_rebuild(record.spec.name)]
    facts.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["disk", "memory"])
@pytest.mark.parametrize("way", WAYS)
def test_lost_boundaries_are_written_again(plan_run, finish, stop_at, way, placement):
    unbroken = finish(_plan(plan_run, "unbroken", placement, **WAYS[way]))
    run = _plan(plan_run, "broken", placement, **WAYS[way])
    damages, hurt = itertools.cycle(DAMAGES.items()), set()
    for position in itertools.count(1):
        if not stop_at(run, position):
            break
        kind, damage = next(damages)
        for path in _cached(run):
            damage(path)
            hurt.add(kind)
    facts = run.facts()
    assert hurt == set(DAMAGES)
    assert facts.result.weights_sha256 == unbroken.sha256
    told = [event.text for event in facts.events() if event.kind == "boundary"]
    assert len(told) >= 4
    assert all(text.endswith("it is written again") for text in told)
    images = [sum(m.num_images for m in each.metrics("train")) for each in (facts, unbroken.run.facts())]
    assert images[0] == images[1]
    facts.close()


@pytest.mark.slow
def test_what_trained_modules_handed_on_cannot_come_back(plan_run, stop_at):
    run = _plan(plan_run, "run", "disk", train__regime="parallel", budget__chunk="2", budget__resident="1")
    assert stop_at(run, 1)
    (path,) = run.boundaries.iterdir()
    cut(path)
    with pytest.raises(DamagedBoundaryError, match="'stream1' is damaged") as raised:
        training.train(open_run(run), limits=PLENTY, others_mb=0.0)
    assert raised.value.exit_code == 5
    assert path.exists()
    with pytest.raises(StorageError, match="'stream1' is damaged"):
        Pipeline(run.folder, lambda message: None).train()


def test_a_boundary_that_is_damaged_again_ends_the_run(plan_run, stop_at, monkeypatch):
    run = _plan(plan_run, "run", "disk", **WAYS["sequential"])
    assert stop_at(run, 6)
    record = run.facts().boundaries()[0]
    error = DamagedBoundaryError("it is damaged", boundary=record.spec.name)

    def read(*arguments, **options):
        raise error

    monkeypatch.setattr("edge_trgl.runtime.storage.stored_rows.StoredRows._verify", read)
    with pytest.raises(DamagedBoundaryError, match="it is damaged"):
        training.train(open_run(run), limits=PLENTY, others_mb=0.0)


def _names(visits):
    return {boundary.name for visit in visits for boundary in (*visit.reads, *visit.writes)} - {""}


def test_the_names_of_cached_boundaries_are_known():
    cached = _names(sequential(SHAPE, (1, 1, 1, 1), views=2, laps=2)) | _names(
        sequential(SHAPE, (1, 1, 1, 1), views=2, frozen=2)
    )
    assert cached == {f"lap{lap}-b{k}" for lap in (0, 1) for k in (1, 2, 3)} | {"frozen-b1", "frozen-b2"}
    assert all(map(can_rebuild, cached))
    assert not any(map(can_rebuild, _names(parallel(SHAPE, 1, 2))))


@pytest.mark.parametrize("lap", [0, 1])
def test_visits_are_those_that_wrote_the_boundary(lap):
    """Same spans, same modules, same copies: the draws of the augmentation are keyed by them."""
    wrote = [
        visit
        for visit in sequential(SHAPE, (1, 1, 1, 1), views=2, laps=2)
        if visit.kind == "forward" and visit.span.lap == lap and visit.module < 3
    ]
    again = list(rebuilding(SHAPE, {f"lap{lap}-b3": (70, 70)}, []))
    assert [(visit.module, visit.span) for visit in again] == [(visit.module, visit.span) for visit in wrote]
    assert again[0].reads == (IMAGES,)
    assert again[-1].writes[0].name == f"lap{lap}-b3"
    assert [name for visit in again for name in visit.drops] == ["again-b1", "again-b2"]


def test_passes_begin_at_the_nearest_that_is_left():
    visits = list(rebuilding(SHAPE, {"lap1-b3": (70, 70)}, ["frozen-b1", "lap1-b2", "stream1"]))
    assert {visit.module for visit in visits} == {2}
    assert {visit.reads[0].name for visit in visits} == {"lap1-b2"}
    assert not any(visit.drops for visit in visits)  # training reads it again
    visits = list(rebuilding(SHAPE, {"lap1-b3": (70, 70)}, ["frozen-b1", "lap0-b2"]))
    assert next(visit.reads[0].name for visit in visits if visit.module == 1) == "frozen-b1"


def test_so_many_records_as_were_counted():
    visits = list(rebuilding(SHAPE, {"lap0-b2": (70, 32), "lap0-b1": (70, 70)}, []))
    last = [(visit.span.epoch, visit.span.start, visit.span.stop) for visit in visits if visit.module == 1]
    assert last == [(0, 0, 2), (0, 2, 4), (0, 4, 6), (0, 6, 8), (0, 8, 9), (1, 0, 2), (1, 2, 4)]
    assert [visit.reads[0].name for visit in visits if visit.module == 1] == ["lap0-b1"] * 7
    assert list(rebuilding(SHAPE, {"lap0-b1": (0, 0)}, [])) == []
