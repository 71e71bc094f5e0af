"""The local step against a plain loop with torch.optim, and against itself done in other ways."""

from __future__ import annotations

import copy
import gc
import itertools
import subprocess
import sys
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.learning.totals import Totals
from edge_trgl.method.transport import Multipliers, Transport
from edge_trgl.networks.chain import Chain, Pieces
from edge_trgl.random_keys import key

VANGL = Transport(tau=None)
TRGL = Transport(tau=0.4)
SUMMED = Transport(tau=50.0, reduction="sum")
GROWING = Transport(tau=None, multipliers=Multipliers(first=0.5, growth=0.3, every=2))
TRANSPORTS = {"vangl": VANGL, "trgl": TRGL, "sum": SUMMED, "multipliers": GROWING}
STEPS = 6
MODES = ("none", "blocks")


def _plain_loop(local, pairs, optimizer, *, label_smoothing, weight):
    """The same training written out: trunk by hand, an optimizer of torch.optim. Returns the losses."""
    trunk, head = local.trunk, local.head
    losses = []
    for step, (images, y) in enumerate(pairs):
        x, kinetic = images, []
        for number, block in enumerate(trunk):
            torch.manual_seed(key(key(step, 0), number, 0))
            if hasattr(block, "branch"):
                kinetic.append(block.branch(x))
                x = x + kinetic[-1]
            else:
                x = block(x)
        loss = functional.cross_entropy(head(x), y, label_smoothing=label_smoothing)
        transport = torch.stack([r.pow(2).mean() for r in kinetic]).sum()
        optimizer.zero_grad()
        (loss + weight * transport).backward()
        optimizer.step()
        losses.append((loss.item(), transport.item()))
    return losses


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, {"momentum": "momentum_buffer"}),
    "no-momentum": (torch.optim.SGD, {"momentum": 0.0}, {}),
    "adamw": (torch.optim.AdamW, {"betas": (0.8, 0.95)}, {"momentum": "exp_avg", "square": "exp_avg_sq"}),
}
"""The same of torch.optim, its options, and what it calls the tensors that we keep."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("transport", ["vangl", "trgl"])
@pytest.mark.parametrize("net", ["norm", "dropout"])
def test_steps_are_those_of_a_plain_loop(nets, net, transport, optimizer):
    kind, options, names = OPTIMIZERS[optimizer]
    lr, decay = (0.01, 0.2) if optimizer == "adamw" else (0.1, 0.01)
    config = StepConfig(
        transport=TRANSPORTS[transport],
        label_smoothing=0.1,
        optimizer="adamw" if optimizer == "adamw" else "sgd",
        weight_decay=decay,
        **options,
    )
    local = nets.built(nets.CHAINS[net](), 0, config)
    plain, pairs, found = copy.deepcopy(local), nets.batches(STEPS), []
    for step, (x, y) in enumerate(pairs):
        local.train_step(x, y, lr=lr, seed=step)
        totals = local.take_totals()
        found.append((totals.loss / totals.num_images, totals.transport / totals.num_images))
    # One module of one: the second half of the depth, so 2τ.
    weight = 0.0 if transport == "vangl" else 1 / (2 * 2 * 0.4)
    plain_optimizer = kind(plain.parameters(), lr=lr, weight_decay=decay, **options)
    losses = _plain_loop(plain, pairs, plain_optimizer, label_smoothing=0.1, weight=weight)
    for (loss, kinetic), (plain_loss, plain_kinetic) in zip(found, losses, strict=True):
        assert loss == pytest.approx(plain_loss, rel=1e-6)
        assert kinetic == pytest.approx(plain_kinetic if weight else 0.0, rel=1e-5)
    tensors, others = local.final_tensors(), plain.final_tensors()
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-5, atol=1e-6)
    for name, parameter in plain.named_parameters():
        for ours, theirs in names.items():
            expected = plain_optimizer.state[parameter][theirs]
            torch.testing.assert_close(local.tensors()[f"{ours}.{name}"], expected, rtol=1e-5, atol=1e-6)


def test_transport_changes_the_weights(nets):
    ends = [nets.trained(nets.CHAINS["norm"](), transport)[0] for transport in (VANGL, TRGL)]
    assert not torch.equal(ends[0]["trunk.1.conv.weight"], ends[1]["trunk.1.conv.weight"])


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("net", ["norm", "dropout", "plain", "km"])
def test_recompute_changes_no_bit(nets, net, transport):
    direct, recomputed = (
        nets.trained(nets.CHAINS[net](), TRANSPORTS[transport], recompute=recompute) for recompute in MODES
    )
    nets.assert_same(direct, recomputed)
    counts = [int(tensor) for name, tensor in direct[0].items() if name.endswith("num_batches_tracked")]
    assert set(counts) <= {3}


def test_recompute_changes_no_bit_of_the_totals(nets):
    chain = nets.chain_of(*[nets.PlainBlock, nets.NormBlock] * 3)
    direct, recomputed = (nets.trained(chain, SUMMED, steps=5, recompute=recompute) for recompute in MODES)
    assert direct[2] == recomputed[2]


@pytest.mark.parametrize("options", [{"bfloat16": True}, {"micro_batch": 4}], ids=["bfloat16", "micro-batch"])
@pytest.mark.parametrize("net", ["norm", "dropout"])
def test_recompute_changes_no_bit_beside_other_options(nets, net, options):
    direct, recomputed = (
        nets.trained(nets.CHAINS[net](), TRGL, recompute=recompute, **options) for recompute in MODES
    )
    nets.assert_same(direct, recomputed)


@pytest.mark.parametrize("recompute", MODES)
def test_a_stepped_module_is_freed_at_once(nets, recompute):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=TRGL, recompute=recompute))
    ((x, y),) = nets.batches(1)
    gc.collect()
    gc.disable()
    try:
        local.train_step(x, y, lr=0.1, seed=0)
        weight = weakref.ref(local.trunk[0].weight)
        momentum = weakref.ref(local._optimizer.momenta["head.linear.bias"])
        del local
        assert weight() is None
        assert momentum() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("micro_batch", [1, 3, 4, 100])
def test_micro_batches_are_the_batch_without_batch_norm(nets, micro_batch, transport):
    chain = nets.chain_of(nets.PlainBlock, _pointwise, head="linear")
    whole, parts = (nets.trained(chain, TRANSPORTS[transport], micro_batch=size) for size in (None, micro_batch))
    for name, tensor in whole[0].items():
        torch.testing.assert_close(parts[0][name], tensor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat(parts[1]), torch.cat(whole[1]), rtol=1e-5, atol=1e-5)
    assert parts[2] == pytest.approx(whole[2], rel=1e-5)
    assert len(parts[1]) == 3 * -(-6 // micro_batch)


def _pointwise():
    """A block that draws nothing: a dropout would draw anew for every micro-batch."""
    return nn.Conv2d(4, 4, 1)


@pytest.mark.parametrize("net", ["norm", "dropout", "km"])
def test_bfloat16_trains_and_keeps_float32_weights(nets, net):
    tensors, emitted, (num_images, loss, *_) = nets.trained(nets.CHAINS[net](), TRGL, bfloat16=True)
    exact = nets.trained(nets.CHAINS[net](), TRGL)
    assert {t.dtype for name, t in tensors.items() if name.endswith("weight")} == {torch.float32}
    assert loss / num_images == pytest.approx(exact[2][1] / num_images, rel=0.05)
    assert not all(torch.equal(tensor, exact[0][name]) for name, tensor in tensors.items())
    assert all(torch.isfinite(out.float()).all() for out in emitted)


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("chunk", [2, 4])
def test_modules_may_be_trained_on_chunks_one_after_the_other(nets, chunk, transport):
    """The interchange: module by module on chunks gives the bits of batch by batch."""
    config = StepConfig(transport=TRANSPORTS[transport], weight_decay=1e-3)
    pairs = nets.batches(4)
    ends = []
    for length in (1, chunk):
        chain = nets.chain_of(nets.DropoutBlock, nets.NormBlock, num_modules=3)
        modules = [nets.built(chain, number, config) for number in range(3)]
        for start in range(0, len(pairs), length):
            inputs = [x for x, _ in pairs[start : start + length]]
            for number, local in enumerate(modules):
                inputs = _on_chunk(local, inputs, pairs, start, number)
        ends.append([local.tensors() for local in modules])
    for first, second in zip(*ends, strict=True):
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def _on_chunk(local, inputs, pairs, start, number):
    outputs = []
    for batch, x in enumerate(inputs, start):
        local.train_step(x, pairs[batch][1], lr=0.1, seed=key("step", batch, number), emit=outputs.append)
    return outputs


@pytest.mark.parametrize("recompute", MODES)
def test_where_a_batch_lies_changes_no_bit(nets, recompute):
    """As it does in a boundary in memory, at a place that depends on the chunk: matrix products look at it."""
    chain = Chain.from_blocks([partial(nn.Linear, 7, 7)] * 2, input_shape=(7,), num_classes=3, num_modules=1)
    values, labels, ends = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3, []
    for shift in range(4):
        local = LocalModule(chain.seeded(1), 0, (7,), StepConfig(transport=TRGL, recompute=recompute))
        local.materialise("cpu")
        x, emitted = torch.empty(35 + shift)[shift:].view(5, 7).copy_(values), []
        for step in range(3):
            local.train_step(x, labels, lr=0.5, seed=step, emit=emitted.append)
        local.infer(x, labels, emitted.append)
        ends.append((local.tensors(), emitted, local.take_totals()))
    for end in ends[1:]:
        nets.assert_same(ends[0], end)


def test_the_output_is_emitted_before_the_step(nets):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=VANGL))
    before, emitted = copy.deepcopy(local), []
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=1.0, seed=0, emit=emitted.append)
    before.train()
    assert torch.equal(emitted[0], before.trunk(x))
    assert not emitted[0].requires_grad


def test_infer_leaves_the_module_as_it_was(nets):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=TRGL))
    for step, (x, y) in enumerate(nets.batches(2)):
        local.train_step(x, y, lr=0.1, seed=step)
    local.take_totals()
    before = {name: tensor.clone() for name, tensor in local.tensors().items()}
    ((x, y),) = nets.batches(1, seed=7)
    emitted = []
    local.infer(x, y, emitted.append)
    assert all(torch.equal(tensor, before[name]) for name, tensor in local.tensors().items())
    plain = copy.deepcopy(local).eval()
    expected = plain.trunk(x)
    assert torch.equal(emitted[0], expected)
    logits = plain.head(expected)
    num_images, loss, correct, transport, *_ = local.take_totals()
    assert (num_images, correct, transport) == (6, int((logits.argmax(1) == y).sum()), 0)
    assert loss == pytest.approx(6 * functional.cross_entropy(logits, y).item(), rel=1e-6)


def test_infer_without_labels_counts_nothing(nets):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=TRGL))
    ((x, _),) = nets.batches(1)
    local.infer(x, None, None)
    assert local.take_totals() == Totals()


def test_training_goes_on_after_an_evaluation(nets):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=VANGL))
    ((x, y),) = nets.batches(1)
    local.infer(x, y, None)
    local.train_step(x, y, lr=0.1, seed=0)
    assert int(local.tensors()["trunk.1.norm.num_batches_tracked"]) == 1


def test_a_module_made_on_meta_is_given_memory(nets):
    with torch.device("meta"):
        local = LocalModule(nets.CHAINS["norm"](), 0, (4, 8, 8), StepConfig(transport=VANGL))
    tensors = local.materialise("cpu").tensors()
    assert not any(tensor.is_meta for tensor in tensors.values())
    assert all(not tensor.any() for name, tensor in tensors.items() if name.startswith("momentum."))


def test_a_head_that_does_not_suit_is_named(nets):
    chain = Chain.from_blocks([nn.Identity], input_shape=(4,), num_classes=2, head="conv")
    with pytest.raises(
        ValueError, match=r"conv head reads maps \[C, H, W\] or windows \[C, L\]; this module's output is \[4\]"
    ):
        LocalModule(chain, 0, (4,), StepConfig(transport=VANGL))


def _conv_norm_relu():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


def test_a_plain_sequential_block_has_one_residue(nets):
    local = nets.built(nets.chain_of(_conv_norm_relu), 0, StepConfig(transport=TRGL))
    ((x, y),) = nets.batches(1)
    with torch.no_grad():
        inner = local.trunk[0](x)
        expected = (copy.deepcopy(local.trunk[1])(inner) - inner).pow(2).mean()
    local.train_step(x, y, lr=0.0, seed=0)
    assert local.take_totals()[3] / len(x) == pytest.approx(expected.item(), rel=1e-5)


def test_recompute_takes_a_sequential_block_with_an_in_place_activation(nets):
    chain = nets.chain_of(_conv_norm_relu)
    nets.assert_same(*(nets.trained(chain, VANGL, recompute=recompute) for recompute in MODES))


def _pooled_first():
    return Pieces(nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()))


@pytest.mark.parametrize("seed", range(5))
def test_recompute_changes_no_bit_of_a_plain_layer_behind_a_piece_without_weights(nets, seed):
    """What enters the layer has a gradient only where the pieces are computed one by one."""
    chain, ends = Chain.from_blocks([_pooled_first], input_shape=(3, 8, 8), num_classes=5), []
    for recompute in MODES:
        local = LocalModule(chain.seeded(seed), 0, (3, 4, 4), StepConfig(transport=TRGL, recompute=recompute))
        local.materialise("cpu")
        for step, (x, y) in enumerate(nets.batches(3, shape=(3, 8, 8))):
            local.train_step(x, y, lr=0.1, seed=step)
        ends.append(local.tensors())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_recompute_takes_a_first_block_without_weights(nets):
    blocks = [nn.Tanh, lambda: nn.Conv2d(3, 4, 3, padding=1)]
    chain = Chain.from_blocks(blocks, input_shape=(3, 8, 8), num_classes=5, num_modules=1)
    chain = replace(chain, gain=0.7)
    nets.assert_same(*(nets.trained(chain, VANGL, recompute=recompute) for recompute in MODES))


def test_frozen_weights_stay_frozen(nets):
    chain = nets.chain_of(lambda: nets.PlainBlock().requires_grad_(False))
    local = nets.built(chain, 0, StepConfig(transport=VANGL))
    before = local.trunk[1].weight.clone()
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=1.0, seed=0)
    assert torch.equal(local.trunk[1].weight, before)


LEAN = """
import sys
import torch
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.method.transport import Multipliers, Transport

growing = Transport(tau=None, multipliers=Multipliers())
configs = [
    StepConfig(transport=Transport(tau=0.5), weight_decay=1e-4, label_smoothing=0.1),
    StepConfig(transport=Transport(tau=0.5), recompute="blocks"),
    StepConfig(transport=Transport(tau=0.5), bfloat16=True, early_update=False),
    StepConfig(transport=growing, micro_batch=2, recompute="blocks"),
]
chain = km_resnet(1, 2, input_shape=(3, 8, 8), num_classes=3, width=4)
x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
for config in configs:
    local = LocalModule(chain, 0, (4, 4, 4), config)
    chain.initialise(0, local.trunk, local.head, 0)
    local.materialise("cpu")
    for step in range(3):
        local.train_step(x, y, lr=0.1, seed=step, emit=lambda out: None)
    local.infer(x, y, None)
    local.take_totals()
    local.ascend(x, seed=0, emit=lambda out: None)
    gradient = torch.randn(4, 4, 4, 4).to(torch.bfloat16 if config.bfloat16 else torch.float32)
    local.backward_step(x, gradient, lr=0.1, seed=0, send_back=lambda out: None)
print(*(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
"""


@pytest.mark.slow
def test_no_step_loads_what_the_budget_would_pay_for():
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_all_the_transports_differ(nets):
    """Were two of them the same, the comparisons above would compare less than they seem to."""
    ends = [nets.trained(nets.CHAINS["norm"](), transport)[0] for transport in TRANSPORTS.values()]
    name = "trunk.1.conv.weight"
    assert all(not torch.equal(a[name], b[name]) for a, b in itertools.combinations(ends, 2))
