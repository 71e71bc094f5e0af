"""Train small runs with the whole engine in this process, on either device, and return their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_trgl.config import sources
from edge_trgl.engine import training
from edge_trgl.engine.module_factory import ModuleFactory
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.jobs import prepare
from edge_trgl.jobs.requests import PrepareRequest
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.planning.choose import choose
from edge_trgl.planning.demand import store_demand
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory.limits import Limits
from tools.cuda.checks import Setting

PLENTY_MB = 1e5
PLENTY = Limits(budget_mb=PLENTY_MB, disk_mb=PLENTY_MB)
Sections = Mapping[str, Mapping[str, Any]]

REGIMES: dict[str, Sections] = {
    "parallel": {"budget": {"chunk": "1"}},
    "sequential": {"train": {"regime": "sequential"}},
    "multi-lap": {"train": {"regime": "multi-lap", "laps": 2}},
    "end-to-end": {"train": {"regime": "end-to-end"}, "model": {"modules": 1}},
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that was trained to its end.

    `losses` and `transports`: means over an epoch, by module and epoch. `weights`: of each module, by name, on the
    CPU; `first`: the same before training.
    """

    losses: dict[tuple[int, int], float]
    transports: dict[tuple[int, int], float]
    weights: list[dict[str, Tensor]]
    first: list[dict[str, Tensor]]
    dtypes: tuple[str, ...]


def sections(setting: Setting, device: str) -> Sections:
    """A K-M net on the sample images, small enough to be trained many times."""
    model = {"name": "km-3-1", "width": 8, "gain": 1.0} if setting.quick else {"name": "km-4-1", "width": 32}
    return {
        "data": {"limit": 96 if setting.quick else 600, "validation": 0.2},
        "model": model,
        "train": {
            "epochs": "2",
            "batch_size": 16 if setting.quick else 64,
            "threads": setting.threads,
            "checkpoint_minutes": 1e6,
            "device": device,
        },
        "budget": {"mb": PLENTY_MB, "probe": False},
    }


def planned(folder: Path, *layers: Sections) -> Run:
    """A run with its data and its plan, of which nothing is measured."""
    run = Run.create(folder, sources.resolve(*layers))
    prepare.run(run, PrepareRequest())
    store_demand(run, PLENTY)
    assert not choose(run, PLENTY).wanted
    return run


def trained(run: Run, *, disturbance: float = 0.0) -> Trained:
    """Train a planned run; `disturbance`: a relative change of every first weight, about so large."""
    opened = open_run(run)
    if disturbance:
        shaken = _Shaken(**vars(opened.factory), disturbance=disturbance)
        opened = replace(opened, factory=shaken)
    training.train(opened, limits=PLENTY, others_mb=0.0)
    return _left_by(run)


def _left_by(run: Run) -> Trained:
    opened = open_run(run, "cpu")
    losses, transports = _means(opened)
    modules = opened.modules()
    weights = [modules.open(module).final_tensors() for module in range(len(opened))]
    first = [opened.factory.initialise(module).final_tensors() for module in range(len(opened))]
    opened.facts.close()
    dtypes = opened.factory.layout.dtypes
    return Trained(losses=losses, transports=transports, weights=weights, first=first, dtypes=dtypes)


def _means(opened: OpenRun) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    sums: dict[tuple[int, int], list[float]] = {}
    for metric in opened.facts.metrics("train"):
        found = sums.setdefault((metric.module, metric.epoch), [0.0, 0.0, 0.0])
        found[0] += metric.loss_sum
        found[1] += metric.transport_sum
        found[2] += metric.num_images
    losses = {place: loss / count for place, (loss, _, count) in sums.items()}
    return losses, {place: transport / count for place, (_, transport, count) in sums.items()}


@dataclass(frozen=True, kw_only=True)
class _Shaken(ModuleFactory):
    """Makes modules whose first weights are a little off."""

    disturbance: float

    def initialise(self, module: int) -> LocalModule:
        local = super().initialise(module)
        generator = torch.Generator().manual_seed(module)
        with torch.no_grad():
            for weight in local.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.mul_(1 + self.disturbance * noise)
        return local
