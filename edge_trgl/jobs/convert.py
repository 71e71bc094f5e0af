"""Write the first version of modules whose weights are not drawn by the training itself, once, before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_trgl import assembly, cutting, pretrained
from edge_trgl.assembly import Layout, Workshop
from edge_trgl.chain import Chain
from edge_trgl.config import RunConfig
from edge_trgl.cutting import Net
from edge_trgl.data import DatasetInfo, open_dataset
from edge_trgl.local import LocalModule
from edge_trgl.run import Run
from edge_trgl.runtime import messages
from edge_trgl.runtime.modules import ModuleStore
from edge_trgl.runtime.state import ModuleRecord, RunState

Fill = Callable[[int, LocalModule], None]
"""Gives a module, whose number comes first, its weights."""


def run(run: Run) -> None:
    """Make the first version of every module: from the user's blocks, a model's own constructor, or a file."""
    config, info, state = run.config(), open_dataset(run.data), run.state()
    layout = Layout.from_document(state.meta("layout"))
    net = assembly.stored_net(state)
    workshop = Workshop(
        chain=assembly.planned_chain(config, info, layout, net),
        layout=layout,
        in_memory=True,
        config=assembly.step_config(config),
        device="cpu",
        seed=config.train.seed,
    )
    fill = _fill(config, info, state, workshop.chain, net)

    def initialise(module: int) -> LocalModule:
        local = workshop.initialise(module)
        fill(module, local)
        return local

    store = ModuleStore(
        run.modules,
        build=workshop.build,
        initialise=initialise,
        limits=[0] * len(workshop.chain),
        committed={},
    )
    for module in range(len(workshop.chain)):
        store.open(module)
    files = store.commit()
    modules = [ModuleRecord(module=module, file=file) for module, file in files.items()]
    state.commit(position=0, modules=modules, boundaries=[])
    state.close()


def _fill(config: RunConfig, info: DatasetInfo, state: RunState, chain: Chain, net: Net | None) -> Fill:
    if config.model.pretrained is not None:
        return _from_file(Path(config.model.pretrained), state, chain, net)
    if net is None:
        return _as_built
    factory = cutting.model_factory(config.model.name, info.input_shape, info.num_classes)
    nursery = cutting.Nursery(net, factory)

    def draw(module: int, local: LocalModule) -> None:
        for number, block in zip(chain.module_blocks(module), local.trunk, strict=True):
            nursery.fill(number, block, config.train.seed)

    return draw


def _as_built(module: int, local: LocalModule) -> None:
    """The blocks came with their weights."""


def _from_file(path: Path, state: RunState, chain: Chain, net: Net | None) -> Fill:
    weights = pretrained.open_weights(path)
    source = pretrained.Pretrained(weights, chain, net)
    state.set_meta("pretrained", {"file": str(path), "sha256": pretrained.sha256(weights)})

    def read(module: int, local: LocalModule) -> None:
        said = source.fill(module, local)
        if said is not None:
            messages.send("warning", text=f"pretrained weights of {path}: {said}")
            state.add_event("pretrained", said)

    return read
