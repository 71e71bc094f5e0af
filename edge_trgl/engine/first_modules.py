"""First weights that training does not draw itself: module files written once, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, open_dataset, open_survey
from edge_trgl.engine import from_config, process_setup, weight_files
from edge_trgl.engine.module_factory import ModuleFactory
from edge_trgl.engine.pretrained import Pretrained
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.facts import PretrainedFile, PretrainedFit, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.module_store import ModuleStore
from edge_trgl.runtime.storage.state import ModuleRecord

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net

MakeModule = Callable[[int], LocalModule]
"""Makes the module of this number, with its first weights."""

Warn = Callable[[str], None]
"""Tells the user one sentence."""


def write_first_modules(run: Run, warn: Warn) -> None:
    """Write the first version of every module and commit it.

    Weights come from the pretrained file if there is one, else from the blocks that the user built or from the
    model's own constructor.

    Args:
        run: a planned run without module files.
        warn: called with a sentence for each part that the pretrained file does not hold.

    Raises:
        InputError: the pretrained file cannot be read, or belongs to another model.
    """
    config, info, facts = run.config(), open_dataset(run.data), run.facts()
    files.make_folder(run.scratch)
    layout, net = facts.planned.layout, from_config.stored_net(facts)
    first_modules = _FirstModules(config=config, info=info, layout=layout, net=net, scratch=run.scratch)
    if config.model.pretrained is None:
        make = first_modules.constructed()
    else:
        make = first_modules.read_from(Path(config.model.pretrained), facts, warn)
    num_modules = len(first_modules.module_factory.chain)
    store = ModuleStore(
        run.modules,
        build=first_modules.module_factory.build,
        initialise=make,
        limits=[0] * num_modules,
        committed={},
    )
    for module in range(num_modules):
        store.open(module)
    module_files = store.commit()
    modules = [ModuleRecord(module=module, file=file) for module, file in module_files.items()]
    facts.commit(position=0, modules=modules, boundaries=[])
    facts.close()


@dataclass(frozen=True, kw_only=True)
class _FirstModules:
    """Makes the first modules of a run.

    `net` is the model that the chain was cut from, if it was; `scratch` a folder for a file of its weights.
    """

    config: RunConfig
    info: DatasetInfo
    layout: ChainLayout
    net: Net | None
    scratch: Path

    @cached_property
    def module_factory(self) -> ModuleFactory:
        return ModuleFactory(
            chain=from_config.planned_chain(self.config, self.info, self.layout, self.net),
            layout=self.layout,
            in_memory=True,
            config=from_config.step_config(self.config),
            device="cpu",
            seed=self.config.train.seed,
        )

    def constructed(self) -> MakeModule:
        """Return a function that makes modules with the weights of their blocks or of the model's constructor."""
        if self.net is None:
            return self.module_factory.initialise
        # Imported here: a network of the catalogue needs none of it.
        from edge_trgl.networks.cutting.first_weights import FirstWeights
        from edge_trgl.networks.cutting.libraries import model_factory
        from edge_trgl.networks.cutting.users_code import users_code

        factory = model_factory(self.config.model.name, self.info.input_shape, self.info.num_classes)
        with users_code(self.config.model.name):
            first_weights = FirstWeights(self.net, factory, self.config.train.seed, self.scratch)

        def make(module: int) -> LocalModule:
            local = self.module_factory.initialise(module)
            for number, block in zip(self.module_factory.chain.module_blocks(module), local.trunk, strict=True):
                first_weights.fill(number, block)
            return local

        return make

    def read_from(self, path: Path, facts: RunFacts, warn: Warn) -> MakeModule:
        """Return a function that makes modules with the weights of a file.

        What the file does not hold is made as if there were no file.
        """
        weights = weight_files.open_weights(path, _room_mb(facts.limits))
        pretrained = Pretrained(weights, self.module_factory.chain, self.net)
        facts.pretrained = PretrainedFile(file=str(path), sha256=weight_files.sha256(weights))
        held = [pretrained.holds(module) for module in range(len(self.module_factory.chain))]
        no_file = replace(self, config=replace(self.config, model=replace(self.config.model, pretrained=None)))
        make_without = None if all(held) else no_file.constructed()

        def tell(sentence: str) -> None:
            warn(f"pretrained weights of {path}: {sentence}")
            facts.add_event("pretrained", sentence)

        if make_without is not None:
            tell(f"{pretrained.fit.text}; what it lacks starts from random weights")

        def make(module: int) -> LocalModule:
            make_first = self.module_factory.initialise if held[module] or make_without is None else make_without
            local = make_first(module)
            where_from = pretrained.fill(module, local)
            if where_from is not None:
                tell(where_from)
            return local

        return make


def _room_mb(limits: Limits) -> float | None:
    """Return the MiB that this process may still take; None where there is no budget."""
    if limits.budget_mb is None:
        return None
    return limits.room_mb(process_setup.others_mb()) - counters.usage().rss


def match_pretrained(run: Run, limits: Limits) -> PretrainedFit:
    """Store and return how the pretrained file fits the network, before anything is planned or trained.

    Args:
        run: its data is prepared, and its model is cut if it is imported.
        limits: the budget of this process and its parent.

    Raises:
        InputError: the file cannot be read, none of its tensors fits, or one of a frozen module does not.
    """
    config, info, facts = run.config(), open_survey(run.data), run.facts()
    net = from_config.stored_net(facts)
    with torch.device("meta"):
        chain = from_config.make_chain(config, info, net, paged=True)
    if config.model.partition == "depth":  # else planning divides the blocks otherwise, and `convert` checks it
        chain = replace(chain, frozen=min(config.train.freeze, len(chain) - 1))
    assert config.model.pretrained is not None
    weights = weight_files.open_weights(Path(config.model.pretrained), _room_mb(limits))
    fit = Pretrained(weights, chain, net).fit
    facts.pretrained_fit = fit
    facts.close()
    return fit
