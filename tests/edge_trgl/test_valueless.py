"""Counting without values gives the bytes of real steps, and takes neither their memory nor their time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from torch import nn

from edge_trgl.chain import Chain
from edge_trgl.costs import chain_costs
from edge_trgl.local import StepConfig
from edge_trgl.models import km_resnet
from edge_trgl.runtime.errors import InputError
from edge_trgl.transport import Multipliers, Transport
from edge_trgl.valueless import Choice, WithoutValues

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


def test_what_real_steps_are_refused_is_counted_without_values(nets):
    """Weights of 256 MiB, for which counting has no room; what comes after is counted in the same way."""
    blocks = [lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 2**18)), partial(nn.Linear, 2**18, 2)]
    chain, choice = nets.chain_of(*blocks, num_modules=2, head="linear"), Choice()
    first, second = chain_costs(chain, TRGL, choice)
    assert isinstance(choice.tensors, WithoutValues)
    assert (first.output_shape, second.output_shape) == ((2**18,), (2,))
    assert first.weight_bytes > 256 * 2**20


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


LARGE = """
import json
import torch
from edge_trgl.costs import chain_costs
from edge_trgl.local import StepConfig
from edge_trgl.models import km_resnet
from edge_trgl.runtime import memory
from edge_trgl.transport import Transport

torch.set_num_threads(1)
before = memory.usage().rss
chain = km_resnet(2, 1, input_shape=(3, 3000, 4000), num_classes=3, width=16)
found = chain_costs(chain, StepConfig(transport=Transport(tau=1.0)))
steps = [cost.steps["none"].peak(32) for cost in found]
print(json.dumps([max(steps), memory.usage().peak - before]))
"""


def test_camera_images_take_no_memory():
    result = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True)
    step, taken_mb = json.loads(result.stdout)
    image = 32 * 3 * 3000 * 4000 * 4
    assert step > 10 * image
    # A tenth of a single batch of images.
    assert taken_mb * 2**20 < image / 10
