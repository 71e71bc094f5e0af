"""The bare loops train the same networks as the product."""

from __future__ import annotations

import pytest
import torch

from edge_trgl.config.sources import resolve
from edge_trgl.data import open_dataset
from edge_trgl.data.prepare import prepare
from edge_trgl.engine import from_config
from edge_trgl.engine.learning_rate import LearningRate
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.folder import Run


def a_run(folder, **train):
    config = resolve(
        {
            "data": {"limit": 60},
            "model": {"name": "km-3-1", "width": 4},
            "train": {"batch_size": 16, "epochs": 1, "threads": 1, **train},
        }
    )
    run = Run.create(folder, config)
    prepare("sample", run.data, seed=0, limit=60)
    return run, config, open_dataset(run.data)


@pytest.mark.slow
def test_the_bare_greedy_loop_trains_the_same_net_as_the_product(tool, tmp_path):
    bare = tool("bench.bare_loops")
    run, config, info = a_run(tmp_path / "run")
    chain = from_config.make_chain(config, info)
    parts = bare.build(chain, config)
    shapes = [(4, 14, 14), (8, 7, 7), (8, 7, 7)]
    modules = [LocalModule(chain, k, shapes[k], from_config.step_config(config)) for k in range(3)]
    for k, module in enumerate(modules):
        chain.initialise(k, module.trunk, module.head, config.train.seed)
        module.materialise("cpu")
    before = [weight.detach().clone() for weight in modules[2].trunk.parameters()]

    bare.train(parts, run, "greedy", None)
    job = from_config.job_size(config, 1, info.splits["train"].num_images)
    schedule = from_config.training_schedule(config, 1, 1)
    rate = LearningRate(config, job, schedule)
    for visit, batch, images, y in bare._batches(schedule.visits(job), bare._feed(run, config, info, "train")):
        x = images
        for module in modules:
            outputs = []
            module.train_step(x, y, lr=rate(visit, batch), seed=0, emit=outputs.append)
            (x,) = outputs
    for part, module in zip(parts, modules, strict=True):
        for ours, theirs in zip(
            [*part.trunk.parameters(), *part.head.parameters()],
            [*module.trunk.parameters(), *module.head.parameters()],
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not any(map(torch.equal, before, modules[2].trunk.parameters()))


def test_checkpointing_changes_memory_and_not_the_weights(tool, tmp_path):
    bare = tool("bench.bare_loops")
    run, config, info = a_run(tmp_path / "run", regime="end-to-end")
    trained = []
    for loop in ("end-to-end", "checkpointed"):
        parts = bare.build(from_config.make_chain(config, info), config)
        assert len(parts) == 1
        bare.train(parts, run, loop, None)
        trained.append([weight.detach() for weight in parts[0].trunk.parameters()])
    for plain, checkpointed in zip(*trained, strict=True):
        torch.testing.assert_close(plain, checkpointed)
