"""Opens a planned run; training, evaluation and export begin with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, open_dataset
from edge_trgl.engine import from_config, process_setup
from edge_trgl.engine.batches import Feed
from edge_trgl.engine.module_factory import ModuleFactory
from edge_trgl.engine.normalisation import normalised
from edge_trgl.engine.visits import Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_kinds import trains
from edge_trgl.run import tau_scan
from edge_trgl.run.depth_gain import trained_depth
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.device import Device, open_device
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.demand import FORWARD
from edge_trgl.runtime.planner.plan import Plan
from edge_trgl.runtime.storage import safetensors_file
from edge_trgl.runtime.storage.module_store import ModuleStore
from edge_trgl.runtime.units import MIB


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A planned run as objects; its modules are still on disk."""

    run: Run
    config: RunConfig
    info: DatasetInfo
    facts: RunFacts
    device: Device
    plan: Plan
    factory: ModuleFactory

    def __len__(self) -> int:
        return len(self.factory.chain)

    @property
    def depth(self) -> int:
        """Number of modules that are trained: all, unless `--grow` stopped before the last."""
        return trained_depth(self.config, self.facts)

    def modules(self) -> ModuleStore[LocalModule]:
        """Return a store of the modules as the last commit left them."""
        return ModuleStore(
            self.run.modules,
            build=self.factory.build,
            initialise=self._first_made,
            limits=self.plan.resident_bytes,
            committed=self.facts.modules(),
        )

    def file_of(self, module: int) -> Path:
        """Return the path of a module's committed file."""
        return self.run.modules / self.facts.modules()[module].name

    def deployed(self, module: int, *, head: bool) -> LocalModule:
        """Read a module as the last commit left it, for inference on the CPU: without optimizer state.

        Args:
            module: its number, from 0.
            head: whether to include its head.

        Raises:
            StorageError: its file is damaged or missing.
        """
        factory = self.factory
        with torch.device("meta"):
            local = LocalModule(factory.chain, module, factory.layout.shapes[module], factory.config)
        local.aux = nn.ModuleList()
        if not head:
            local.head = nn.Identity()
        local.requires_grad_(requires_grad=False).materialise("cpu").eval()
        safetensors_file.read_some_into(self.file_of(module), local.final_tensors(), self.facts.modules()[module])
        return local

    def _first_made(self, module: int) -> LocalModule:
        # Planning measured a new module on a trimmed heap. Fragments left by the module it replaces would come on
        # top: several MiB with an optimizer that keeps two moments for each weight.
        if "trim" not in self.config.budget.without:
            allocator.trim()
        return self.factory.initialise(module)

    def work_mb(self) -> Callable[[Visit, int], float]:
        """Return a function of visit and number of samples that estimates the working memory of a step in MiB.

        The module itself and its input are not included.
        """
        form = self.facts.counted.demand.forms[self.plan.layout.form]
        level = self.plan.layout.recompute

        def work_mb(visit: Visit, num_samples: int) -> float:
            work = level if trains(visit.kind) else FORWARD
            return form.rows[visit.module].works[work] * min(num_samples / form.size, 1) / MIB

        return work_mb

    def headroom(self, limits: Limits, others_mb: float) -> Headroom:
        """Return what trims the heap of this process, where others use `others_mb` MiB of the budget."""
        if "trim" in self.config.budget.without or self.device.name != "cpu":
            return Headroom(None)
        fragmentation = self.facts.counted.fragmentation_bytes
        # Room for two large tensors that fit no free block, or for a few small ones.
        margin = max(2 * fragmentation, allocator.SMALL_BYTES) if fragmentation else 0.0
        return Headroom(
            limits.memory_mb - others_mb,
            planned_mb=min(limits.memory_mb, self.plan.peak_mb) - others_mb,
            fragmentation_mb=margin / MIB,
        )

    def feed(self, split: str) -> Feed:
        """Open the images of `split`; batches arrive on the modules' device. The split may be empty."""
        return Feed(
            self.run.data,
            self.info,
            split,
            augment=from_config.augmentation(self.config, self.info),
            batch_size=self.config.train.batch_size,
            seed=self.config.train.seed,
            device=self.factory.device,
            chunk_of=self.factory.chunk_of,
        )


def open_run(run: Run, device: str | None = None) -> OpenRun:
    """Set this process up for torch and open `run`, which must be prepared and planned.

    Args:
        run: the run's folder.
        device: where to compute, if not where the run trains. Export computes on the CPU, for instance, because a
            CUDA context takes hundreds of MiB.
    """
    info, facts = open_dataset(run.data), run.facts()
    config = tau_scan.with_choice(run.config(), facts)
    device = device or config.train.device
    process_setup.set_up(config.train.threads)
    info = normalised(info, facts)
    plan, layout = facts.planned.plan, facts.planned.layout
    # On the meta device, blocks that a user's factory builds eagerly take no memory.
    with torch.device("meta"):
        chain = from_config.planned_chain(config, info, layout, from_config.stored_net(facts))
    factory = ModuleFactory(
        chain=chain,
        layout=layout,
        in_memory=plan.layout.placement == "memory",
        config=from_config.step_config(config, recompute=plan.layout.recompute, micro_batch=plan.micro_batch),
        device=device,
        seed=config.train.seed,
    )
    return OpenRun(
        run=run,
        config=config,
        info=info,
        facts=facts,
        device=open_device(device),
        plan=plan,
        factory=factory,
    )
