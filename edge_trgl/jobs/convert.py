"""Write the first version of modules whose weights are not drawn by the training itself, once, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, open_dataset
from edge_trgl.engine import from_config, pretrained
from edge_trgl.engine.from_config import ModuleFactory
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.networks import cutting
from edge_trgl.networks.cutting import Net
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.records import read_record
from edge_trgl.runtime.storage.module_store import ModuleStore
from edge_trgl.runtime.storage.state import ModuleRecord, RunState

Make = Callable[[int], LocalModule]
"""Makes a module, of this number, with its first weights."""


def run(run: Run) -> None:
    """Make the first version of every module: from the user's blocks, a model's own constructor, or a file."""
    config, info, state = run.config(), open_dataset(run.data), run.state()
    job = _Job(config, info, read_record(ChainLayout, state.meta("layout")), from_config.stored_net(state))
    make = job.drawing() if config.model.pretrained is None else job.reading(Path(config.model.pretrained), state)
    store = ModuleStore(
        run.modules,
        build=job.workshop.build,
        initialise=make,
        limits=[0] * len(job.workshop.chain),
        committed={},
    )
    for module in range(len(job.workshop.chain)):
        store.open(module)
    files = store.commit()
    modules = [ModuleRecord(module=module, file=file) for module, file in files.items()]
    state.commit(position=0, modules=modules, boundaries=[])
    state.close()


@dataclass(frozen=True)
class _Job:
    """What the modules are made from; `net`: the model, where it was cut."""

    config: RunConfig
    info: DatasetInfo
    layout: ChainLayout
    net: Net | None

    @cached_property
    def workshop(self) -> ModuleFactory:
        return ModuleFactory(
            chain=from_config.planned_chain(self.config, self.info, self.layout, self.net),
            layout=self.layout,
            in_memory=True,
            config=from_config.step_config(self.config),
            device="cpu",
            seed=self.config.train.seed,
        )

    def drawing(self) -> Make:
        """Makes modules whose blocks came with their weights, or get them as the model's own constructor draws."""
        if self.net is None:
            return self.workshop.initialise
        factory = cutting.model_factory(self.config.model.name, self.info.input_shape, self.info.num_classes)
        nursery = cutting.FirstWeights(self.net, factory)

        def make(module: int) -> LocalModule:
            local = self.workshop.initialise(module)
            for number, block in zip(self.workshop.chain.module_blocks(module), local.trunk, strict=True):
                nursery.fill(number, block, self.config.train.seed)
            return local

        return make

    def reading(self, path: Path, state: RunState) -> Make:
        """Makes modules with the weights of a file; those that it may lack, and does, as if there were none."""
        weights = pretrained.open_weights(path)
        source = pretrained.Pretrained(weights, self.workshop.chain, self.net)
        state.set_meta("pretrained", {"file": str(path), "sha256": pretrained.sha256(weights)})
        held = [source.holds(module) for module in range(len(self.workshop.chain))]
        without = replace(self, config=replace(self.config, model=replace(self.config.model, pretrained=None)))
        drawing = None if all(held) else without.drawing()

        def tell(said: str) -> None:
            messages.send("warning", text=f"pretrained weights of {path}: {said}")
            state.add_event("pretrained", said)

        if drawing is not None:
            tell(f"the file has those of the frozen modules alone; modules {held.index(False)} and up are drawn")

        def make(module: int) -> LocalModule:
            if drawing is not None and not held[module]:
                return drawing(module)
            local = self.workshop.initialise(module)
            said = source.fill(module, local)
            if said is not None:
                tell(said)
            return local

        return make
