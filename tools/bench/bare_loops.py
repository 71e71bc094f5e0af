"""Plain PyTorch training loops with the network, weights, batches and learning rates of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, open_dataset
from edge_trgl.engine import from_config, process_setup, regimes
from edge_trgl.engine.batches import Feed
from edge_trgl.engine.learning_rate import LearningRate
from edge_trgl.engine.visits import Split, Visit
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.transport import Residue, marks_of, penalised
from edge_trgl.networks.chain import Chain
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.device import open_device
from tools.common import kernel
from tools.common.section import Section, Turns


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module, its head and its optimizer; `weight` of its transport cost, 0 for none."""

    trunk: nn.Sequential
    head: nn.Module
    optimizer: torch.optim.SGD
    weight: float


Step = Callable[[Part, Tensor, Tensor], Tensor]
"""(part, x [B, ...], y [B]) → the part's output for the next part: one step of SGD on its own loss."""


def measure(run: Run, loop: str, turns: Turns | None) -> dict[str, Any]:
    """Train on the run's prepared data and score the last module; returns the figures of a row.

    Args:
        run: of one module for `end-to-end` and `checkpointed`, of as many as `greedy` is to train.
        loop: which of the three.
        turns: a turn is an epoch; None runs through.
    """
    config, info = run.config(), open_dataset(run.data)
    process_setup.set_up(config.train.threads)
    device = open_device(config.train.device)
    process_setup.warm_up(device.name)
    allocator.keep_tensors_on_heap()
    _warm_up()
    section = Section()
    parts = build(from_config.make_chain(config, info), config)
    section.start()
    train(parts, run, loop, turns)
    figures = section.end(kernel.own_peak_mb())
    peak_mb = kernel.own_peak_mb() + device.memory_mb()
    return {**figures, "accuracy": _accuracy(parts, run, config, info), "peak_mb": peak_mb}


def build(chain: Chain, config: RunConfig) -> list[Part]:
    """The modules of `chain` with the weights that the product draws."""
    transport = from_config.step_config(config).transport
    x = torch.zeros(2, *chain.input_shape)
    parts = []
    for module in range(len(chain)):
        trunk = chain.trunk(module)
        with torch.no_grad():
            x = trunk.eval()(x)
        head = chain.classifier(module, tuple(x.shape[1:]))
        chain.initialise(module, trunk, head, config.train.seed)
        exempt = chain.is_exempt(module)
        parts.append(_part(trunk, head, 0.0 if exempt else transport.weight(module, len(chain)), config))
    return parts


def _part(trunk: nn.Sequential, head: nn.Module, weight: float, config: RunConfig) -> Part:
    for module in (trunk, head):
        module.to(config.train.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for mark in trunk.modules():
        if isinstance(mark, Residue):
            mark.measure = Measure() if weight else None
    optimizer = torch.optim.SGD(
        [*trunk.parameters(), *head.parameters()],
        lr=config.train.lr,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
    )
    return Part(trunk=trunk.train(), head=head.train(), optimizer=optimizer, weight=weight)


def train(parts: list[Part], run: Run, loop: str, turns: Turns | None) -> None:
    """The loop itself: batch by batch, every part in turn on the output of the part before."""
    config, info = run.config(), open_dataset(run.data)
    job = from_config.job_size(config, 1, info.splits["train"].num_images)
    schedule = from_config.training_schedule(config, 1, 1)
    rate = LearningRate(config, job, schedule)
    step = _step(config.train.label_smoothing, checkpointed=loop == "checkpointed")
    if turns:
        turns.wait()
    for visit, batch, x, y in _batches(schedule.visits(job), _feed(run, config, info, "train")):
        for part in parts:
            for group in part.optimizer.param_groups:
                group["lr"] = rate(visit, batch)
            x = step(part, x, y)
        if batch == job.batches_per_epoch - 1:
            if x.is_cuda:
                torch.cuda.synchronize()  # else the clock would stop before the work is done
            if turns:
                turns.done()


def _step(label_smoothing: float, *, checkpointed: bool) -> Step:
    def forward(block: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(block, x, use_reentrant=False) if checkpointed else block(x)
        return out

    def step(part: Part, x: Tensor, y: Tensor) -> Tensor:
        penalty = torch.zeros(())
        out = x
        for block in part.trunk:
            before, out = out, forward(block, out)
            if part.weight:
                out, energies = penalised(marks_of(block), before, out, Measure())
                penalty = penalty + sum(energy.mean for energy in energies)
        cross_entropy = functional.cross_entropy(part.head(out), y, label_smoothing=label_smoothing)
        loss = cross_entropy + part.weight * penalty
        part.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        part.optimizer.step()
        return out.detach()

    return step


@torch.no_grad()
def _accuracy(parts: list[Part], run: Run, config: RunConfig, info: DatasetInfo) -> float:
    job = from_config.job_size(config, 1, info.splits["test"].num_images)
    for part in parts:
        part.trunk.eval()
        part.head.eval()
    correct = 0
    for _, _, x, y in _batches(regimes.evaluation(job, "test", 1), _feed(run, config, info, "test")):
        for part in parts:
            x = part.trunk(x)
        correct += int((parts[-1].head(x).argmax(1) == y).sum())
    return correct / job.num_samples


def _feed(run: Run, config: RunConfig, info: DatasetInfo, split: Split) -> Feed:
    return Feed(
        run.data,
        info,
        split,
        augment=from_config.augmentation(config, info),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        device=config.train.device,
    )


def _batches(visits: Iterator[Visit], feed: Feed) -> Iterator[tuple[Visit, int, Tensor, Tensor]]:
    for visit in visits:
        for batch in range(visit.span.start, visit.span.stop):
            samples = feed.samples(visit.span, batch)
            yield visit, batch, feed.images(visit.span, batch, samples), feed.labels(samples)


def _warm_up() -> None:
    """Load what torch loads on first use, so that it is not taken for tensors."""
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    optimizer.zero_grad()
    checkpoint(layer, torch.zeros(1, 1), use_reentrant=False).sum().backward()
    optimizer.step()
