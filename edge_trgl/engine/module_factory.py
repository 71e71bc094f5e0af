"""Makes the modules of a run, and lays out the boundaries between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edge_trgl.engine.passes import carries_chunk
from edge_trgl.engine.visits import Boundary
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.chain import Chain
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec


@dataclass(frozen=True, kw_only=True)
class ModuleFactory:
    """Makes the modules of one run, and lays out its boundaries.

    Attributes:
        chain: the network as a chain of modules.
        layout: the shapes and dtypes at the output of each module.
        in_memory: whether boundaries are kept in memory; else on disk.
        config: the configuration of a module's local step.
        device: where modules are made.
        seed: the run's random seed.
    """

    chain: Chain
    layout: ChainLayout
    in_memory: bool
    config: StepConfig
    device: str
    seed: int

    def build(self, module: int) -> LocalModule:
        """Return module `module`, allocated but uninitialised; its file is read into it afterwards."""
        with torch.device("meta"):
            local = LocalModule(self.chain, module, self.layout.shapes[module], self.config)
        return local.materialise(self.device)

    def initialise(self, module: int) -> LocalModule:
        """Return module `module` with its first weights, which depend only on the seed and its blocks."""
        local = LocalModule(self.chain.seeded(self.seed), module, self.layout.shapes[module], self.config)
        self.chain.initialise(module, local.trunk, local.readers(), self.seed)
        return local.materialise(self.device)

    def chunk_of(self, module: int) -> int:
        """Return the number of records in a chunk of the stored boundary that enters `module`."""
        return self.spec_of(Boundary("", module)).chunk_records

    def spec_of(self, boundary: Boundary) -> BoundarySpec:
        """Return the layout of a boundary in memory or on disk."""
        producer = boundary.module - 1
        return BoundarySpec(
            name=boundary.name,
            shape=self.layout.shapes[producer],
            dtype=self.layout.dtypes[producer],
            records=boundary.records,
            copies=boundary.copies,
            in_memory=self.in_memory,
            in_order=carries_chunk(boundary.name),
            producer=f"module {producer}",
        )
