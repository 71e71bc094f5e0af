"""Small runs of the real engine, in this process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO

import hypothesis
import preloaded
import pytest
from plans import PLENTY, change_plan, lay_out

from edge_trgl.config.sources import resolve
from edge_trgl.data import prepare as preparation
from edge_trgl.data.sources import Source
from edge_trgl.data.splits import Selection, draw_splits
from edge_trgl.engine import progress_messages
from edge_trgl.jobs.requests import Nothing, PrepareRequest
from edge_trgl.run.facts import Result
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import counters, guard, high_water
from edge_trgl.runtime.memory.counters import Usage
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes import supervisor
from edge_trgl.runtime.processes.supervisor import Child

# Before torch is loaded, here and in the processes that tests start: each core has a worker of its own already.
os.environ["OMP_NUM_THREADS"] = "1"

# An example is as slow as the machine is busy, and what one run found is not kept for another beside it.
hypothesis.settings.register_profile(
    "drawn", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("fixed", hypothesis.settings.get_profile("drawn"), derandomize=True)
hypothesis.settings.load_profile("fixed")

TINY: dict[str, dict[str, Any]] = {
    "data": {"source": "sample", "limit": 80, "validation": 0.2},
    # With the gain of K-M nets the logits of so few steps would be alike for all images.
    "model": {"name": "km-3-1", "width": 4, "gain": 1.0},
    "train": {"epochs": "2", "batch_size": 16, "threads": 1, "checkpoint_minutes": 1e9},
    "budget": {"mb": 1e5, "probe": False},
}


@dataclass(frozen=True)
class Trained:
    """A run that was trained, and what its training returned."""

    run: Run
    result: Result

    @property
    def sha256(self) -> str:
        return self.result.weights_sha256


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measured steps are kept with the tests, not with the user, and none of the user's profiles is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_limits() -> Iterator[None]:
    """Jobs in this process take what memory they like: a guard would hold it for good, and what oneDNN was refused
    once it refuses ever after.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "set_guard", lambda limits, others_mb=0.0: None)
        patch.setattr(guard, "limited", lambda extra_mb: nullcontext())
        yield


SIZE = Usage(rss=200.0, anonymous=150.0, file=50.0, data=500.0)
"""Of a process that plans: the suite's own grows from test to test, and no plan may depend on that."""


def _of_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(counters, "usage", lambda: SIZE)
    patch.setattr(high_water, "peak_mb", lambda process=high_water.SELF: SIZE.rss)


@pytest.fixture
def process_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in this process take it to be of `SIZE`."""
    _of_size(monkeypatch)


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings as `planned` takes them."""
    return {f"{name}__{key}": value for name, section in sections.items() for key, value in section.items()}


def _few_tested(source: Source, **options: Any) -> dict[str, Selection]:
    """Every 20th image of the sample's test set: to evaluate a run on all takes longer than to train it."""
    draws = draw_splits(source, **options)
    if source.format == "sample":
        draws["test"] = replace(draws["test"], samples=draws["test"].samples[::20])
    return draws


def planned(folder: Path, budget_mb: float | None, disk_mb: float, settings: Mapping[str, Any]) -> Run:
    """A prepared and planned run from `section__key=value` settings over TINY."""
    from edge_trgl.jobs import convert, cut, prepare
    from edge_trgl.planning.choose import choose
    from edge_trgl.planning.demand import store_demand

    chosen: dict[str, dict[str, Any]] = {}
    for setting, value in settings.items():
        section, _, key = setting.partition("__")
        chosen.setdefault(section, {})[key] = value
    model = dict(TINY["model"])
    if ":" in chosen.get("model", {}).get("name", ""):
        del model["gain"]  # weights that a library's blocks draw have none
    run = Run.create(folder, resolve({**TINY, "model": model}, chosen))
    library, colon, _ = run.config().model.name.partition(":")
    if colon and library in ("torchvision", "timm") and find_spec(library) is None:
        pytest.skip(f"needs {library}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "draw_splits", _few_tested)
        prepare.run(run, PrepareRequest())
    if run.config().model.imported:
        cut.run(run, Nothing())
    with pytest.MonkeyPatch.context() as patch:
        _of_size(patch)
        store_demand(run, Limits(budget_mb=budget_mb))
    assert not choose(run, Limits(budget_mb=budget_mb, disk_mb=disk_mb)).wanted
    facts = run.facts()
    if facts.planned.layout.built:
        convert.run(run, Nothing())
    facts.close()
    return run


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Jobs set their process up for training; hypothesis wants its subnormal numbers back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def plan_run(tmp_path: Path) -> Callable[..., Run]:
    """Makes a prepared and planned run from `section__key=value` settings over TINY.

    `budget_mb`: what it is planned for; None is the least that works. `disk_mb`: the same of the disk.
    """

    def make(name: str, budget_mb: float | None = 1e5, disk_mb: float = 1e6, **settings: Any) -> Run:
        return planned(tmp_path / name, budget_mb, disk_mb, settings)

    return make


@pytest.fixture(scope="session")
def finish() -> Callable[[Run], Trained]:
    """Trains a planned run to its end."""
    from edge_trgl.engine import training
    from edge_trgl.engine.open_run import open_run

    def finish(run: Run) -> Trained:
        return Trained(run, training.train(open_run(run), limits=PLENTY, others_mb=0.0))

    return finish


@pytest.fixture
def train_run(plan_run: Callable[..., Run], finish: Callable[[Run], Trained]) -> Callable[..., Trained]:
    """Makes a run as `plan_run` does and trains it to its end."""

    def make(name: str, budget_mb: float | None = 1e5, **settings: Any) -> Trained:
        return finish(plan_run(name, budget_mb, **settings))

    return make


@pytest.fixture(scope="session")
def _trained_once(
    tmp_path_factory: pytest.TempPathFactory, finish: Callable[[Run], Trained]
) -> Callable[..., Trained]:
    known: dict[str, Trained] = {}

    def train(**settings: Any) -> Trained:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = finish(planned(tmp_path_factory.mktemp("trained") / "run", 1e5, 1e6, settings))
        return known[key]

    return train


@pytest.fixture
def trained_copy(tmp_path: Path, _trained_once: Callable[..., Trained]) -> Callable[..., Trained]:
    """Makes a run as `train_run` does, for tests of what comes after training: those of one process that ask for
    the same settings have copies of the same run.
    """

    def make(name: str, **settings: Any) -> Trained:
        once = _trained_once(**settings)
        shutil.copytree(once.run.folder, tmp_path / name)
        return Trained(Run(tmp_path / name), once.result)

    return make


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The jobs of a pipeline in this process, as they start: forked from it, and telling of all their progress."""
    jobs = []

    def started(*arguments: Any) -> tuple[Child, TextIO]:
        job, messages = preloaded.started(*arguments)
        jobs.append(job)
        return job, messages

    monkeypatch.setattr(progress_messages, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "_started", started)
    return jobs


@pytest.fixture(scope="session")
def follow() -> Callable[[Run, str], None]:
    """Has a run's plan be of the first form with an order, one module in memory, whatever fits best."""

    def follow(run: Run, order: str) -> None:
        facts = run.facts()
        form = next(n for n, one in enumerate(facts.counted.demand.forms) if one.order == order)
        chosen = facts.counted.layouts[form]
        lay_out(facts, form=form, resident=1, chunk=1)
        each = len(chosen.starts)
        change_plan(facts, peaks_mb=(1e5,) * each, resident_bytes=(0,) * each)
        facts.planned = replace(facts.planned, layout=chosen)
        facts.close()

    return follow


@pytest.fixture(scope="session")
def place() -> Callable[[Run, Literal["memory", "disk"]], None]:
    """Has a planned run keep its boundaries in memory or on disk, whatever fits best."""
    from edge_trgl.runtime.planner.costing import Costing
    from edge_trgl.runtime.storage import disk_space
    from edge_trgl.runtime.units import MIB

    def place(run: Run, placement: Literal["memory", "disk"]) -> None:
        facts = run.facts()
        stored_bytes = int(disk_space.taken_mb(run.folder) * MIB)
        demand = replace(facts.counted.demand, stored_bytes=stored_bytes)
        layout = replace(facts.planned.plan.layout, placement=placement)
        plan = Costing(demand, {}).candidate(layout).plan(1e6)
        facts.planned = replace(facts.planned, plan=plan)
        facts.close()

    return place
