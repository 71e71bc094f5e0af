"""Parts that keep less against their plain forms: the same bits, and fewer bytes."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.recompute import Recompute, spare
from edge_trgl.method.transport import Multipliers, Residue, Transport, marks_of, penalised
from edge_trgl.networks.heads import ConvHead
from edge_trgl.networks.zoo import km_resnet, resnet110
from edge_trgl.networks.zoo.km_resnet import Encoder, PreActivationBlock
from edge_trgl.networks.zoo.resnet110 import PostActivationBlock, Stem
from edge_trgl.planning.count import chain_costs

PARTS = {
    "post-activation": lambda width: PostActivationBlock(width, width),
    "post-activation, widening": lambda width: PostActivationBlock(width, 2 * width),
    "pre-activation": lambda width: PreActivationBlock(width, leading=True),
    "pre-activation, bare": lambda width: PreActivationBlock(width, leading=False),
    "encoder": lambda width: Encoder(width, 2 * width),
    "stem": Stem,
}
POWERS = [None, 2.0, 3.0]


def _randomised(part, generator):
    for weight in part.parameters():
        layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
        weight.data = torch.randn(weight.shape, generator=generator).mul_(0.3).contiguous(memory_format=layout)
    return part


def _noise(generator, *shape):
    return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)


def _ran(part, x, *, recompute, power=None, wanted=True):
    """Everything that a forward and backward of a copy of `part` leaves behind, by name."""
    part, x = copy.deepcopy(part), x.detach().requires_grad_(wanted)
    spare(part, recompute)
    gauge = torch.zeros(2, dtype=torch.float64)
    measure = None if power is None else Measure(power, gauge)
    for mark in part.modules():
        if isinstance(mark, Residue):
            mark.measure = measure
    out = part(x)
    energies = []
    if measure:
        out, found = penalised(marks_of(part), x, out, measure)
        energies = [energy.mean for energy in found]
    wave = torch.arange(out.numel()).sin().view_as(out)
    loss = (out * wave).sum() + 3.7 * sum(energies)
    loss.backward()
    found = {"out": out, "gradient": x.grad, "gauge": gauge} | {
        f"energy {n}": cost for n, cost in enumerate(energies)
    }
    found |= {f"gradient of {name}": weight.grad for name, weight in part.named_parameters()}
    return found | dict(part.named_buffers())


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        same = found[name] is None if tensor is None else torch.equal(found[name], tensor)
        assert same, name


@pytest.mark.slow
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("wanted", [True, False], ids=["inner", "first"])
@pytest.mark.parametrize("width", [4, 8, 16, 64])
@pytest.mark.parametrize("recompute", ["norms", "blocks"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_keeps_less_gives_the_same_bits(name, recompute, width, wanted, power):
    generator = torch.Generator().manual_seed(width)
    part, x = _randomised(PARTS[name](width), generator), _noise(generator, 6, width, 12, 12)
    plain, sparing = (_ran(part, x, recompute=level, power=power, wanted=wanted) for level in ("none", recompute))
    _assert_same(sparing, plain)
    assert (plain["gradient"] is not None) == wanted
    assert name in ("encoder", "stem") or ("energy 0" in plain) == (power is not None)


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(PARTS)),
    width=st.integers(1, 40),
    batch=st.integers(2, 5),
    sides=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    wanted=st.booleans(),
    power=st.sampled_from(POWERS),
    recompute=st.sampled_from(["norms", "blocks"]),
)
@settings(max_examples=300)
def test_the_same_bits_at_any_size(name, width, batch, sides, wanted, power, recompute):
    generator = torch.Generator().manual_seed(batch)
    part, x = _randomised(PARTS[name](width), generator), _noise(generator, batch, width, *sides)
    options = {"power": power, "wanted": wanted}
    _assert_same(_ran(part, x, recompute=recompute, **options), _ran(part, x, recompute="none", **options))


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(("width", "side"), [(4, 7), (16, 12), (64, 5)])
def test_a_head_that_keeps_less_gives_the_same_bits(width, side, wanted):
    generator = torch.Generator().manual_seed(side)
    head = _randomised(ConvHead((width, side, side), 5), generator)
    x = _noise(generator, 6, width, side, side)
    plain, sparing = (_ran(head, x, recompute=level, wanted=wanted) for level in ("none", "norms"))
    _assert_same(sparing, plain)


@pytest.mark.parametrize("frozen", ["conv1.weight", "norm2.weight", "norm2.bias", "conv2.weight"])
@pytest.mark.parametrize("name", ["post-activation", "pre-activation"])
def test_a_frozen_weight_has_no_gradient_and_changes_no_other(name, frozen):
    generator = torch.Generator().manual_seed(1)
    part = _randomised(PARTS[name](4), generator)
    part.get_parameter(frozen).requires_grad_(False)
    x = _noise(generator, 3, 4, 6, 6).zero_() + 1
    plain, sparing = (_ran(part, x, recompute=level) for level in ("none", "norms"))
    _assert_same(sparing, plain)
    assert sparing[f"gradient of {frozen}"] is None


@pytest.mark.parametrize("name", PARTS)
def test_the_gradient_that_comes_in_is_left_as_it_was(name):
    generator = torch.Generator().manual_seed(2)
    part = _randomised(PARTS[name](4), generator)
    spare(part, "norms")
    out = part(_noise(generator, 3, 4, 6, 6).requires_grad_())
    gradient = torch.randn(out.shape, generator=generator).contiguous(memory_format=torch.channels_last)
    before = gradient.clone()
    out.backward(gradient)
    assert torch.equal(gradient, before)


@pytest.mark.parametrize("name", PARTS)
def test_a_weight_that_is_changed_before_the_backward_is_noticed(name):
    part = PARTS[name](4)
    spare(part, "norms")
    out = part(torch.randn(3, 4, 6, 6))
    with torch.no_grad():
        next(part.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_only_a_float32_backward_is_spared():
    part, x = PostActivationBlock(4, 4), torch.randn(2, 4, 6, 6)
    assert not part.spares(x)
    spare(nn.Sequential(part), "norms")
    assert part.spares(x)
    assert not part.spares(x.double())
    with torch.no_grad():
        assert not part.spares(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not part.spares(x)
    part.eval()
    assert not part.spares(x)


# ---- whole modules

TRANSPORTS = {
    "vangl": Transport(tau=None),
    "trgl": Transport(tau=0.4),
    "sum": Transport(tau=50.0, reduction="sum"),
    "multipliers": Transport(tau=None, multipliers=Multipliers(first=0.5, growth=0.3, every=2)),
}


def _resnet():
    """A stem, two blocks of 16 channels and two of 32, in one module."""
    chain = resnet110(input_shape=(3, 8, 8), num_classes=5, num_modules=54)
    return replace(chain, blocks=(chain.blocks[0], *chain.blocks[17:20]), starts=(0,), gain=0.7)


CHAINS = {
    "resnet": (_resnet, (32, 4, 4)),
    "km": (lambda: replace(_km(), gain=0.7, exempt_blocks=0), (8, 2, 2)),
    "km, linear": (lambda: replace(_km(), gain=0.7, exempt_blocks=0, head="linear"), (8, 2, 2)),
}


def _km():
    return km_resnet(2, 2, input_shape=(3, 8, 8), num_classes=5, width=4).regroup((0,))


def _trained(nets, name, recompute, transport="trgl", **options):
    """All that some steps leave behind: tensors, outputs, totals."""
    make, shape = CHAINS[name]
    config = StepConfig(
        transport=TRANSPORTS[transport], label_smoothing=0.1, weight_decay=1e-3, recompute=recompute, **options
    )
    local, emitted = nets.built(make(), 0, config, shape=shape), []
    for step, (x, y) in enumerate(nets.batches(3)):
        local.train_step(x, y, lr=0.1, seed=step, emit=lambda out: emitted.append(out.detach().clone()))
    outputs = {f"output {number}": out for number, out in enumerate(emitted)}
    return {name: tensor.clone() for name, tensor in local.tensors().items()} | outputs, local.take_totals()


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("recompute", ["norms", "blocks"])
@pytest.mark.parametrize("name", CHAINS)
def test_what_is_computed_again_changes_no_bit(nets, name, recompute, transport):
    expected, totals = _trained(nets, name, "none", transport)
    found, found_totals = _trained(nets, name, recompute, transport)
    _assert_same(found, expected)
    assert found_totals[:3] == totals[:3]
    assert found_totals[3] == pytest.approx(totals[3], rel=1e-6)
    assert (totals[3] > 0) == (transport != "vangl")


@pytest.mark.parametrize("options", [{"bfloat16": True}, {"micro_batch": 4}], ids=["bfloat16", "micro-batch"])
@pytest.mark.parametrize("name", CHAINS)
def test_what_is_computed_again_changes_no_bit_beside_other_options(nets, name, options):
    ends = [_trained(nets, name, recompute, **options)[0] for recompute in get_args(Recompute)]
    for found in ends[1:]:
        _assert_same(found, ends[0])


def test_all_the_transports_differ(nets):
    """Were two of them the same, the comparisons above would compare less than they seem to."""
    ends = [_trained(nets, "resnet", "norms", transport)[0]["trunk.1.conv2.weight"] for transport in TRANSPORTS]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(ends, 2))


# ---- bytes


def _maps(chain, config, module, recompute, channels, side):
    """Bytes at most of a step of 64 samples, in maps [64, channels, side, side]."""
    return chain_costs(chain, config)[module].steps[recompute].peak_tensors(64) / (64 * channels * side * side * 4)


@pytest.mark.slow
@pytest.mark.parametrize("module", [0, 1], ids=["with the stem", "without it"])
def test_a_resnet_block_is_trained_in_little_more_than_five_maps(module):
    chain = resnet110(input_shape=(3, 32, 32), num_classes=10, num_modules=54)
    chain = replace(chain, blocks=chain.blocks[:2], starts=(0, 1))
    config = StepConfig(transport=Transport(tau=0.5))
    counted = {mode: _maps(chain, config, module, mode, 16, 32) for mode in get_args(Recompute)}
    assert counted["none"] >= 7
    assert counted["norms"] < 5.3
    assert counted["blocks"] < 5.3


@pytest.mark.parametrize("module", [0, 1], ids=["with the encoder", "without it"])
def test_a_pre_activation_block_is_trained_in_two_thirds_of_the_maps(module):
    chain = km_resnet(2, 1, input_shape=(3, 32, 32), num_classes=10, width=16, downsample=())
    config = StepConfig(transport=Transport(tau=0.5))
    counted = {mode: _maps(chain, config, module, mode, 16, 16) for mode in get_args(Recompute)}
    assert counted["norms"] < 0.67 * counted["none"]
    assert counted["blocks"] < 0.67 * counted["none"]


@pytest.mark.slow
def test_each_further_block_adds_two_maps_instead_of_four():
    def counted(num_blocks, recompute):
        chain = resnet110(input_shape=(3, 32, 32), num_classes=10, num_modules=54)
        chain = replace(chain, blocks=chain.blocks[1 : 1 + num_blocks], starts=(0,), input_shape=(16, 32, 32))
        return _maps(chain, StepConfig(transport=Transport(tau=0.5)), 0, recompute, 16, 32)

    for recompute, expected in (("none", 4), ("norms", 2)):
        assert (counted(7, recompute) - counted(4, recompute)) / 3 == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", get_args(Recompute))
@pytest.mark.parametrize("num_blocks", [1, 4])
@pytest.mark.parametrize("net", ["km", "resnet110"])
def test_the_transport_cost_takes_no_memory(net, num_blocks, recompute):
    """At the high-water moment of a step of module 1, within 0.1 %."""
    shape = {"input_shape": (3, 32, 32), "num_classes": 10}
    chain = km_resnet(2, num_blocks, width=16, **shape) if net == "km" else resnet110(num_modules=54, **shape)
    if net == "resnet110":
        chain = replace(chain, blocks=chain.blocks[: 1 + num_blocks], starts=(0, 1))
    without, with_it = (
        chain_costs(chain, StepConfig(transport=Transport(tau=tau)))[1].steps[recompute].peak_tensors(64)
        for tau in (None, 0.5)
    )
    assert without < with_it <= 1.001 * without  # a number for each block


LEAN = """
import sys
import torch
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.zoo import resnet110
from edge_trgl.method.transport import Transport

chain = resnet110(input_shape=(3, 8, 8), num_classes=3, num_modules=54)
x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
for recompute in ("norms", "blocks"):
    local = LocalModule(chain, 0, (16, 8, 8), StepConfig(transport=Transport(tau=0.5), recompute=recompute))
    chain.initialise(0, local.trunk, local.head, 0)
    local.materialise("cpu")
    for step in range(3):
        local.train_step(x, y, lr=0.1, seed=step)
print(*(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
"""


@pytest.mark.slow
def test_keeping_less_loads_no_more():
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
