"""From a configuration to the engine: the learning rate of a step, the prefix, the nets of the recipes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from edge_trgl.config.sources import RECIPES, read_recipes, resolve
from edge_trgl.data import DatasetInfo
from edge_trgl.engine import from_config
from edge_trgl.engine.learning_rate import LearningRate
from edge_trgl.engine.visits import IMAGES, Span, Visit
from edge_trgl.runtime.errors import UsageError


def rates(num_epochs=6, **train):
    """The rate of the first and the last of two batches in each epoch of one module."""
    config = resolve({"train": {"epochs": num_epochs, "batch_size": 5, "lr": 0.1, **train}})
    job = from_config.job_size(config, 1, 10)
    rate = LearningRate(config, job, from_config.training_schedule(config, 1, 1))
    spans = [Span("train", epoch, 0, 2, shuffled=True, augmented=False) for epoch in range(num_epochs)]
    return [[rate(Visit("train", 0, span, (IMAGES,)), batch) for batch in range(2)] for span in spans]


def test_constant():
    assert rates(lr_schedule="constant") == [[0.1, 0.1]] * 6


def test_steps_are_taken_at_the_start_of_their_epochs():
    found = rates(lr_schedule="steps", lr_milestones=[2, 3], lr_factor=0.5)
    assert found == [[0.1, 0.1], [0.1, 0.1], [0.05, 0.05], *[[0.025, 0.025]] * 3]


def test_milestones_say_nothing_without_steps():
    assert rates(lr_schedule="constant", lr_milestones=[2]) == [[0.1, 0.1]] * 6


def test_cosine_falls_with_every_batch_and_nears_zero():
    found = [rate for epoch in rates() for rate in epoch]
    assert found == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 12)) for step in range(12)])


def test_the_rate_grows_in_equal_steps_before_a_cosine_begins():
    found = [rate for epoch in rates(warmup_epochs=2) for rate in epoch]
    cosine = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, *cosine])


def test_the_rate_grows_before_it_is_constant_or_falls_in_steps():
    growing = [pytest.approx([0.05, 0.1])]
    assert rates(2, lr_schedule="constant", warmup_epochs=1) == [*growing, [0.1, 0.1]]
    steps = {"lr_schedule": "steps", "lr_milestones": [2], "lr_factor": 0.5}
    assert rates(3, **steps, warmup_epochs=1) == [*growing, [0.1, 0.1], [0.05, 0.05]]


@pytest.mark.parametrize(("prefix", "kind"), [("frozen", "forward"), ("train-mode", "ascend")])
def test_the_prefix_is_passed_as_configured(prefix, kind):
    config = resolve({"train": {"regime": "sequential", "epochs": 1, "cache": "none", "prefix": prefix}})
    visits = from_config.training_schedule(config, 2, 1).visits(from_config.job_size(config, 2, 32))
    assert [visit.kind for visit in visits] == ["train", kind, "train"]


@pytest.mark.parametrize(("start", "by_depth"), [("same", False), ("by-depth", True)])
def test_multipliers_start_as_configured(start, by_depth):
    config = resolve({"transport": {"multipliers": True, "lambda_start": start}})
    assert from_config.step_config(config).transport.multipliers.by_depth == by_depth


NETS = {
    "table1": ((64, 64, 3), 200, 4),
    "table2": ((32, 32, 3), 100, 2),
    "table3": ((96, 96, 3), 10, 16),
    "table4": ((96, 96, 3), 10, 4),
    "table9": ((32, 32, 3), 100, 2),
    "table10": ((32, 32, 3), 10, 2),
    "table11": ((32, 32, 3), 100, 10),
    "table12": ((32, 32, 3), 100, 10),
    "table13": ((32, 32, 3), 10, 10),
    "table14": ((28, 28, 1), 10, 21),  # the encoder and twenty
    "table14-own-heads": ((28, 28, 1), 10, 20),
}
"""By table: an image [H, W, C], the classes, and the modules of the paper."""


def test_every_table_has_a_net():
    assert set(NETS) == {path.stem for path in RECIPES.glob("table*.toml")}


@pytest.mark.parametrize("table", NETS)
def test_the_net_of_a_table_has_the_papers_modules(table):
    shape, num_classes, num_modules = NETS[table]
    info = DatasetInfo(
        shape=shape,
        dtype="uint8",
        num_classes=num_classes,
        class_names=tuple(map(str, range(num_classes))),
        splits={},
        mean=(0.5,) * shape[-1],
        std=(0.5,) * shape[-1],
        summary=None,
        fingerprint="",
    )
    with torch.device("meta"):
        chain = from_config.make_chain(resolve(*read_recipes(table)), info)
        first = chain.trunk(0)(torch.empty(2, *chain.input_shape))
    assert len(chain) == num_modules
    assert chain.gain == (0.1 if table in ("table1", "table2", "table3", "table4") else 0.05)  # section 4.1, 4.3
    assert first.shape[0] == 2


def test_a_gain_is_for_weights_that_are_drawn_here(nets):
    chain = nets.chain_of(nets.NormBlock)
    asked = resolve({"model": {"gain": 0.2}})
    assert from_config._gain(asked, replace(chain, gain=0.1)) == 0.2
    assert from_config._gain(resolve({}), replace(chain, gain=0.1)) == 0.1
    with pytest.raises(UsageError, match="has the weights that its blocks drew"):
        from_config._gain(asked, replace(chain, gain=None))


def test_a_batch_of_one_is_not_kept(plan_run):
    plan_run("fits", train__batch_size=20, train__short_batch="keep")
    with pytest.raises(UsageError, match="short_batch keep leaves a batch of one of 64 samples"):
        plan_run("one", train__batch_size=21, train__short_batch="keep")
