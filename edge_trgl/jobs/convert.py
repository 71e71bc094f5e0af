"""Write blocks that were built with weights of their own into module files, once, before training."""

from __future__ import annotations

from edge_trgl import assembly
from edge_trgl.assembly import Layout, Workshop
from edge_trgl.data import open_dataset
from edge_trgl.run import Run
from edge_trgl.runtime.modules import ModuleStore
from edge_trgl.runtime.state import ModuleRecord


def run(run: Run) -> None:
    """Make the first version of every module from the user's blocks."""
    config, info, state = run.config(), open_dataset(run.data), run.state()
    layout = Layout.from_document(state.meta("layout"))
    workshop = Workshop(
        chain=assembly.make_chain(config, info, paged=True).regroup(layout.starts),
        layout=layout,
        in_memory=True,
        config=assembly.step_config(config),
        device="cpu",
        seed=config.train.seed,
    )
    store = ModuleStore(
        run.modules,
        build=workshop.build,
        initialise=workshop.initialise,
        limits=[0] * len(workshop.chain),
        committed={},
    )
    for module in range(len(workshop.chain)):
        store.open(module)
    files = store.commit()
    modules = [ModuleRecord(module=module, file=file) for module, file in files.items()]
    state.commit(position=0, modules=modules, boundaries=[])
    state.close()
