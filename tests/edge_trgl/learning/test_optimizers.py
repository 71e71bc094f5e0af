"""Updates in the backward, each as soon as its gradient is complete, against updates after it: the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge_trgl.learning import optimizers
from edge_trgl.learning.optimizers import AdamW, Optimizer, Sgd
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Multipliers, Transport

VANGL = Transport(tau=None)
TRGL = Transport(tau=0.4)
GROWING = Transport(tau=None, multipliers=Multipliers(first=0.5, growth=0.3, every=2))
TRANSPORTS = {"vangl": VANGL, "multipliers": GROWING}

WAYS = {
    "plain": {},
    "no-momentum": {"momentum": 0.0},
    "adamw": {"optimizer": "adamw"},
    "norms": {"recompute": "norms"},
    "blocks": {"recompute": "blocks"},
    "bfloat16": {"bfloat16": True},
    "micro-batch": {"micro_batch": 4},
    "all": {"recompute": "blocks", "bfloat16": True, "micro_batch": 2},
    "adamw-all": {"optimizer": "adamw", "recompute": "blocks", "bfloat16": True, "micro_batch": 2},
}


@pytest.mark.slow
@pytest.mark.usefixtures("no_late_weights")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("net", ["norm", "dropout", "plain", "km"])
def test_updates_in_the_backward_change_no_bit(nets, net, transport, way):
    early, late = (
        nets.trained(nets.CHAINS[net](), TRANSPORTS[transport], early_update=early, **WAYS[way])
        for early in (True, False)
    )
    nets.assert_same(early, late)


@pytest.mark.usefixtures("no_late_weights")
@pytest.mark.parametrize("way", WAYS)
def test_a_weight_in_two_blocks_is_updated_once(nets, way):
    """And after both: the one below computes its backward, and its forward again, with what the one above saw."""

    def frozen():
        return nets.PlainBlock().requires_grad_(False)

    def chain():
        layer = nets.PlainBlock()
        return nets.chain_of(lambda: layer, nets.NormBlock, lambda: layer, frozen)

    early, late = (nets.trained(chain(), TRGL, early_update=early, **WAYS[way]) for early in (True, False))
    nets.assert_same(early, late)
    assert "trunk.1.weight" in early[0]
    assert "trunk.3.weight" not in early[0]  # the same weight under another name


@pytest.fixture
def no_late_weights(monkeypatch):
    """Those of the nets here would all be late."""
    monkeypatch.setattr(optimizers, "LATE_BYTES", 0)


def test_the_smallest_weights_are_late():
    sizes = {"matrix": 40_000, "other matrix": 40_000, "vector": 500, "large": 100_000}  # 65,536 numbers fit
    weights = {name: nn.Parameter(torch.empty(size)) for name, size in sizes.items()}
    late = optimizers.late_weights(weights.values())
    assert [name for name, weight in weights.items() if weight in late] == ["matrix", "vector"]


def test_late_weights_are_updated_in_one_call(nets, monkeypatch):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=VANGL))
    calls = []
    monkeypatch.setattr(torch, "_fused_sgd_", lambda weights, *args, **more: calls.append(len(weights)))
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=0.1, seed=0)
    assert calls == [len(list(local.parameters()))]


@pytest.mark.usefixtures("no_late_weights")
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_gradients_go_as_soon_as_they_are_complete(nets, monkeypatch, recompute, early):
    config = StepConfig(transport=VANGL, recompute=recompute, early_update=early)
    local = nets.built(nets.CHAINS["norm"](), 0, config)
    found, step = [], Optimizer.step

    def counted(descent, weights, lr):
        found.append(sum(weight.grad is not None for weight in local.parameters()))
        step(descent, weights, lr)

    monkeypatch.setattr(Optimizer, "step", counted)
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=0.1, seed=0)
    # A layer computes the gradients of its weight and bias together.
    assert max(found) <= 2 if early else max(found) == len(list(local.parameters()))
    assert all(weight.grad is None for weight in local.parameters())


RULES = {
    "sgd": (
        lambda weights: Sgd(weights, momentum=0.9, weight_decay=0.1),
        lambda weights: torch.optim.SGD(weights, momentum=0.9, weight_decay=0.1, fused=True),
    ),
    "adamw": (
        lambda weights: AdamW(weights, betas=(0.9, 0.999), weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, betas=(0.9, 0.999), weight_decay=0.1, fused=True),
    ),
}


def weights_of(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (5, 7), "vector": (33,), "number": (1,)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def descend(weights, step, generator):
    """Twenty steps at falling rates, with the same gradients every time this is called."""
    for number in range(20):
        for weight in weights.values():
            weight.grad = torch.randn(weight.shape, generator=generator)
        step(0.1 / (number + 1))


@pytest.mark.parametrize("rule", RULES)
def test_steps_have_the_bits_of_the_librarys_fused_ones(rule):
    ours, theirs = weights_of(0), weights_of(0)
    descent, optimizer = RULES[rule][0](ours), RULES[rule][1](theirs.values())

    def step_ours(lr):
        descent.begin()
        for weight in reversed(ours.values()):  # one by one, as in a backward
            descent.step((weight,), lr)

    def step_theirs(lr):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    descend(ours, step_ours, torch.Generator().manual_seed(1))
    descend(theirs, step_theirs, torch.Generator().manual_seed(1))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert not torch.equal(ours["matrix"], weights_of(0)["matrix"])


@pytest.mark.parametrize("rule", RULES)
def test_all_that_a_step_needs_is_among_the_tensors(rule):
    """A descent whose tensors were written elsewhere goes on with the same bits."""
    whole, parts = weights_of(0), weights_of(0)
    for weights, breaks in ((whole, 0), (parts, 3)):
        generator = torch.Generator().manual_seed(1)
        descent = RULES[rule][0](weights)
        for number in range(6):
            if number == breaks:
                kept = {name: tensor.clone() for name, tensor in descent.tensors().items()}
                descent = RULES[rule][0](weights)
                for name, tensor in descent.tensors().items():
                    tensor.copy_(kept[name])
            for weight in weights.values():
                weight.grad = torch.randn(weight.shape, generator=generator)
            descent.begin()
            descent.step(weights.values(), 0.1)
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())


@pytest.mark.parametrize("rule", [Sgd, AdamW])
def test_the_kernels_are_given_tensors_of_equal_strides(monkeypatch, rule):
    """A gradient may differ from its weight in the strides of dimensions of size 1; CUDA's kernels refuse that."""
    seen = []
    for name in ("_fused_sgd_", "_fused_adamw_"):
        kernel = getattr(torch, name)

        def strict(*lists, kernel=kernel, **options):
            assert len({tuple(tensor.stride() for tensor in found) for found in lists[:3]}) == 1
            seen.append(lists[1][0])
            kernel(*lists, **options)

        monkeypatch.setattr(torch, name, strict)
    depthwise = torch.ones(4, 1, 3, 3).contiguous(memory_format=torch.channels_last)
    weight = nn.Parameter(depthwise.as_strided(depthwise.shape, (9, 1, 3, 1)))
    options = {"momentum": 0.9} if rule is Sgd else {"betas": (0.9, 0.999)}
    descent = rule({"w": weight}, weight_decay=0.0, **options)
    descent.begin()
    values = torch.arange(36.0).reshape(4, 1, 3, 3)
    weight.grad = values.clone()
    assert weight.grad.stride() != weight.stride()
    descent.step([weight], lr=0.1)
    assert torch.equal(seen[0], values)
