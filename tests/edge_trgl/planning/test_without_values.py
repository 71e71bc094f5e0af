"""Counting without values gives the bytes of real steps, and takes neither their memory nor their time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import own_process
import pytest
from torch import nn

from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Multipliers, Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.planning.count import chain_costs
from edge_trgl.planning.without_values import Choice
from edge_trgl.runtime.errors import InputError

TRGL = StepConfig(transport=Transport(tau=0.5), label_smoothing=0.1)
MULTIPLIERS = Multipliers(first=1.0, growth=1.5, every=2)
CONFIGS = {
    "sgd": TRGL,
    "adamw": replace(TRGL, optimizer="adamw"),
    "multipliers": replace(TRGL, transport=Transport(tau=None, multipliers=MULTIPLIERS)),
    "parts": replace(TRGL, micro_batch=4),
}
CHAINS = {
    "km": lambda nets: km_resnet(2, 1, input_shape=(3, 8, 8), num_classes=3, width=4),
    "paged": lambda nets: replace(km_resnet(2, 1, input_shape=(3, 8, 8), num_classes=3, width=4), end_to_end=True),
    "dropout": lambda nets: nets.CHAINS["dropout"](),
}
SCALARS = 1024
"""Bytes of the scalars that the two ways of counting see differently: losses and sums, of which a step has few."""


def _without_values(chain, config):
    choice = Choice()
    choice.give_up_values()
    return chain_costs(chain, config, choice)


PAIRS = [("km", config) for config in CONFIGS] + [(name, "sgd") for name in ("paged", "dropout")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), PAIRS)
def test_the_bytes_are_those_of_real_steps(nets, name, config):
    chain = CHAINS[name](nets)
    real = chain_costs(chain, CONFIGS[config])
    found = _without_values(chain, CONFIGS[config])
    for counted, wanted in zip(found, real, strict=True):
        timelines = [(counted.forward, wanted.forward)]
        timelines += [(counted.steps[level], wanted.steps[level]) for level in wanted.steps]
        for ours, theirs in timelines:
            for size in (2, 64):
                assert abs(ours.peak(size) - theirs.peak(size)) <= SCALARS
                assert ours.largest(size) == theirs.largest(size)
        assert replace(counted, steps={}, forward=wanted.forward) == replace(wanted, steps={})


def test_a_block_that_looks_at_values_is_counted():
    class Looks(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.max() > 0 or x.isnan().any() else x

    chain = Chain.from_blocks([partial(Looks, 6, 6)], input_shape=(6,), num_classes=2)
    (cost,) = _without_values(chain, TRGL)
    assert cost.output_shape == (6,)


def test_mistakes_are_told_as_with_values():
    blocks = [partial(nn.Linear, 6, 8), partial(nn.Linear, 9, 8)]
    chain = Chain.from_blocks(blocks, input_shape=(6,), num_classes=2)
    with pytest.raises(InputError, match=r"block 1 of blocks cannot take the shape \[8\]"):
        _without_values(chain, TRGL)


LIMITED = """
import json
from functools import partial

import torch
from torch import nn

from edge_trgl.networks.chain import Chain
from edge_trgl.planning.count import chain_costs
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.runtime.memory import counters, high_water
from edge_trgl.method.transport import Transport
from edge_trgl.planning.without_values import Choice, WithoutValues

torch.set_num_threads(1)
config, choice = StepConfig(transport=Transport(tau=0.5)), Choice()
first = lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 2**18))
blocks = [first, partial(nn.Linear, 2**18, 2)]
chain = Chain.from_blocks(blocks, input_shape=(1, 16, 16), num_classes=2, num_modules=2, head="linear")
before = counters.usage().rss
wide = chain_costs(chain, config, choice)
chain = km_resnet(2, 1, input_shape=(3, 3000, 4000), num_classes=3, width=16)
steps = [cost.steps["none"].peak(32) for cost in chain_costs(chain, config)]
found = {
    "without values": isinstance(choice.tensors, WithoutValues),
    "shapes": [cost.output_shape for cost in wide],
    "weight_bytes": wide[0].weight_bytes,
    "step_bytes": max(steps),
    "taken_mb": high_water.peak_mb() - before,
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def limited():
    """What counting finds in a process of its own, where it is limited."""
    return own_process.result_of("-c", LIMITED)


@pytest.mark.slow
def test_what_real_steps_are_refused_is_counted_without_values(limited):
    """Weights of 256 MiB, for which counting has no room; what comes after is counted in the same way."""
    assert limited["without values"]
    assert limited["shapes"] == [[2**18], [2]]
    assert limited["weight_bytes"] > 256 * 2**20


def test_large_images_and_large_weights_take_no_memory(limited):
    image = 32 * 3 * 3000 * 4000 * 4
    assert limited["step_bytes"] > 10 * image
    assert limited["taken_mb"] * 2**20 < limited["weight_bytes"]
