"""Costs extrapolated from two tiny batches, against counts and allocator measurements at the true batch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.segments import laid_out
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Multipliers, Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.zoo import km_resnet, resnet110
from edge_trgl.planning import count as costs
from edge_trgl.planning import live_bytes
from edge_trgl.planning.count import block_weights, chain_costs
from edge_trgl.runtime.errors import InputError, UsageError

TRGL = StepConfig(transport=Transport(tau=0.5), label_smoothing=0.1)
VANGL = StepConfig(transport=Transport(tau=None))
CONFIGS = {"trgl": TRGL, "vangl": VANGL, "bfloat16": replace(TRGL, bfloat16=True)}


def _tokens():
    blocks = [partial(nn.Linear, 6, 8), partial(nn.Linear, 8, 8), nn.GELU]
    return Chain.from_blocks(blocks, input_shape=(6,), num_classes=3, num_modules=1)


def _resnet():
    chain = resnet110(input_shape=(3, 8, 8), num_classes=3, num_modules=54)
    # One widening block between two others.
    return replace(chain, blocks=(chain.blocks[0], *chain.blocks[17:19]), starts=(0, 1))


MORE = {
    "km-modules": lambda: km_resnet(4, 1, input_shape=(3, 12, 12), num_classes=3, width=4),
    "resnet": _resnet,
    "heads": lambda: replace(MORE["km-modules"](), head=("deep", "pooled", "tokens", "linear")),
    "vectors": _tokens,
    "paged": lambda: replace(km_resnet(3, 2, input_shape=(3, 8, 8), num_classes=3, width=4), end_to_end=True),
}


def _chain(nets, name):
    return {**nets.CHAINS, **MORE}[name]()


NAMES = ["norm", "dropout", "plain", "km", *MORE]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NAMES)
def test_the_extrapolated_peak_is_that_of_a_count_at_the_true_batch(nets, monkeypatch, name, config):
    chain = _chain(nets, name)
    found = chain_costs(chain, CONFIGS[config])
    monkeypatch.setattr(live_bytes, "SMALL", 8)
    monkeypatch.setattr(live_bytes, "LARGER", 9)
    counted = chain_costs(chain, CONFIGS[config])
    monkeypatch.undo()
    for cost, direct in zip(found, counted, strict=True):
        works = [(cost.steps[recompute], direct.steps[recompute]) for recompute in get_args(Recompute)]
        for extrapolated, at_eight in [*works, (cost.forward, direct.forward)]:
            assert extrapolated.peak_tensors(8) == max(at_eight.small)
            assert extrapolated.peak_tensors(9) == max(at_eight.larger)


def _allocated(run):
    """Bytes at most that the allocator had handed out and not got back while `run` ran."""
    run()  # what is made once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    now = most = 0
    for _, num_bytes in changes:
        now += num_bytes
        most = max(most, now)
    return most


SCRATCH_BYTES = 64 << 10  # what kernels allocate inside, which is not counted; it hardly grows with the batch


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"early_update": False}, {"optimizer": "adamw"}], ids=str)
@pytest.mark.parametrize("recompute", get_args(Recompute))
@pytest.mark.parametrize("name", ["norm", "dropout", "plain", "km"])
def test_the_peak_is_that_of_the_allocator(nets, name, recompute, options):
    chain, config = _chain(nets, name), replace(TRGL, **options)
    cost = chain_costs(chain, config)[0]
    local = LocalModule(chain, 0, cost.output_shape, replace(config, recompute=recompute)).materialise("cpu")
    x = torch.zeros(64, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    y = torch.zeros(64, dtype=torch.int64)

    def step():
        local.train_step(x, y, lr=0.1, seed=0, emit=lambda out: None)

    counted = cost.steps[recompute].peak(64)
    assert counted <= _allocated(step) <= counted + SCRATCH_BYTES
    counted = cost.forward.peak(64)
    assert counted <= _allocated(lambda: local.infer(x, y, None)) <= counted + SCRATCH_BYTES


def test_recompute_saves_activations(nets):
    (cost,) = chain_costs(nets.chain_of(*[nets.NormBlock] * 6), VANGL)
    assert cost.steps["blocks"].peak(64) < 0.7 * cost.steps["none"].peak(64)
    assert cost.forward.peak(64) < cost.steps["blocks"].peak(64)


def _wide():
    """Weights that outweigh what a small batch makes of them."""
    blocks = [partial(nn.Linear, 6, 500), *[partial(nn.Linear, 500, 500)] * 4]
    return Chain.from_blocks(blocks, input_shape=(6,), num_classes=3, num_modules=1)


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_updates_in_the_backward_save_gradients(recompute):
    early, late = (chain_costs(_wide(), replace(VANGL, early_update=early))[0] for early in (True, False))
    all_of_them, matrix = late.learning_bytes, 500 * 500 * 4
    one = all_of_them - 3 * matrix  # a matrix, and all that is small: that waits for the end
    assert (early.gradient_bytes, late.gradient_bytes) == (one, all_of_them)
    saved = late.steps[recompute].peak(8) - early.steps[recompute].peak(8)
    # Early, the gradient of one matrix is alive beside what its backward makes; late, all of them.
    assert saved == pytest.approx(all_of_them - one, rel=0.05)


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_micro_batches_keep_the_gradients_of_the_parts_before(recompute):
    whole, parts = (chain_costs(_wide(), replace(VANGL, micro_batch=size))[0] for size in (None, 7))
    assert parts.gradient_bytes == parts.learning_bytes
    more = parts.steps[recompute].peak(8) - whole.steps[recompute].peak(8)
    # One layer's new gradients stand beside the sums of all of them.
    assert more == pytest.approx(parts.learning_bytes, rel=0.05)


def test_multipliers_that_grow_in_some_steps_only_are_counted_in_none(nets):
    growing = Transport(tau=None, multipliers=Multipliers(every=2))
    (cost,) = chain_costs(nets.chain_of(nets.NormBlock), StepConfig(transport=growing))
    (other,) = chain_costs(nets.chain_of(nets.NormBlock), TRGL)
    assert cost.steps["none"].peak(8) == pytest.approx(other.steps["none"].peak(8), rel=0.01)


def test_end_to_end_the_steps_are_backwards(nets):
    """What is counted of a paged module is what the allocator hands out on its way up and down."""
    chain = replace(nets.chain_of(*[nets.NormBlock] * 3), end_to_end=True, starts=(0, 1, 2, 3))
    costs = chain_costs(chain, VANGL)
    for module, recompute in itertools.product((0, 1, 3), get_args(Recompute)):
        cost = costs[module]
        config = replace(VANGL, recompute=recompute)
        local = LocalModule(chain, module, cost.output_shape, config).materialise("cpu")
        run, forward = _works_at(64, local, cost, hands_down=module > 0)
        counted = cost.steps[recompute].peak(64)
        assert counted <= _allocated(run) <= counted + SCRATCH_BYTES
        counted = cost.forward.peak(64)
        assert counted <= _allocated(forward) <= counted + SCRATCH_BYTES


def _works_at(size, local, cost, *, hands_down):
    x = laid_out(torch.zeros(size, *cost.input_shape))
    y = torch.zeros(size, dtype=torch.int64)
    above = laid_out(torch.zeros(size, *cost.output_shape, dtype=getattr(torch, cost.output_dtype)))
    send_back = (lambda gradient: None) if hands_down else None

    def step():
        if local.has_head:
            local.train_step(x, y, lr=0.1, seed=0, send_back=send_back)
        else:
            local.backward_step(x, above, lr=0.1, seed=0, send_back=send_back)

    def forward():
        if local.has_head:
            local.infer(x, y, None)
        else:
            local.ascend(x, seed=0, emit=lambda out: None)

    return step, forward


def test_equal_paged_modules_are_run_once_but_for_the_first_and_last(nets, monkeypatch):
    calls = _counting(monkeypatch)
    blocks = [nets.NormBlock] * 5
    chain = Chain.from_blocks(blocks, input_shape=(4, 8, 8), num_classes=2)
    found = chain_costs(replace(chain, end_to_end=True), VANGL)
    assert calls == [0, 1, 4]
    assert found[1].state_bytes == found[0].state_bytes < found[4].state_bytes


def test_the_largest_tensor_is_a_map_or_a_gradient(nets):
    chain = nets.chain_of(lambda: nn.Sequential(nn.Conv2d(4, 24, 1), nn.Conv2d(24, 4, 1)), head="linear")
    (cost,) = chain_costs(chain, StepConfig(transport=Transport(tau=None)))
    _, height, width = cost.output_shape
    assert cost.steps["none"].largest(10) == 10 * 24 * height * width * 4
    chain = nets.chain_of(lambda: nn.Conv2d(4, 4, 31, padding=15), head="linear")
    (cost,) = chain_costs(chain, StepConfig(transport=Transport(tau=None)))
    assert cost.steps["none"].largest(2) == 4 * 4 * 31 * 31 * 4


def test_a_convolution_holds_copies_of_its_weight(nets):
    """One in the forward pass, two in the backward: those of a wide one on small maps outweigh its maps."""
    wide = nets.chain_of(lambda: nn.Conv2d(4, 4, 3, padding=1), head="linear")
    (cost,) = chain_costs(wide, StepConfig(transport=Transport(tau=None)))
    weight = 4 * 4 * 3 * 3 * 4
    assert max(cost.forward.kernels) == weight
    assert set(cost.steps["none"].kernels) >= {0, weight, 2 * weight}


def test_a_module_by_hand(nets):
    (cost,) = chain_costs(nets.chain_of(nets.NormBlock), TRGL)
    stem, norm, conv = 4 * 3 * 9 + 4, 4 + 4, 4 * 4 * 9 + 4
    head = 4 * 4 * 9 + (4 + 4) + (16 * 5 + 5)
    buffers = 2 * ((4 + 4) * 4 + 8)  # mean and variance in float32 and the int64 count of two norms
    assert cost.num_params == stem + norm + conv
    assert cost.weight_bytes == (stem + norm + conv + head) * 4 + buffers
    assert cost.momentum_bytes == (stem + norm + conv + head) * 4
    assert cost.state_bytes == cost.weight_bytes + cost.momentum_bytes
    assert (cost.input_shape, cost.output_shape, cost.output_dtype) == ((3, 8, 8), (4, 8, 8), "float32")
    assert cost.name == "Stem + NormBlock"


@pytest.mark.parametrize("early", [True, False])
def test_adamw_keeps_two_moments_and_a_number(nets, early):
    chain = nets.chain_of(nets.NormBlock)
    (sgd,), (adamw,) = (
        chain_costs(chain, replace(TRGL, optimizer=optimizer, early_update=early))
        for optimizer in ("sgd", "adamw")
    )
    assert sgd.momentum_bytes == sgd.learning_bytes
    steps = 4
    assert adamw == replace(sgd, momentum_bytes=2 * sgd.momentum_bytes + steps)


def test_shapes_and_numbers_go_along_the_chain():
    found = chain_costs(km_resnet(4, 1, input_shape=(1, 12, 12), num_classes=3, width=4), TRGL)
    assert [cost.module for cost in found] == [0, 1, 2, 3]
    assert [cost.input_shape for cost in found] == [(1, 12, 12), (4, 6, 6), (4, 6, 6), (8, 3, 3)]
    assert [cost.output_shape for cost in found] == [(4, 6, 6), (4, 6, 6), (8, 3, 3), (8, 3, 3)]
    assert [cost.name for cost in found[:2]] == ["Encoder + PreActivationBlock", "PreActivationBlock"]


def test_boundaries_of_bfloat16_are_bfloat16():
    found = chain_costs(_tokens().regroup((0, 1)), CONFIGS["bfloat16"])
    assert [cost.output_dtype for cost in found] == ["bfloat16", "bfloat16"]


def _counting(monkeypatch):
    calls, real = [], costs._module_cost

    def counted(chain, module, *rest):
        calls.append(module)
        return real(chain, module, *rest)

    monkeypatch.setattr(costs, "_module_cost", counted)
    return calls


def test_equal_modules_are_run_once(monkeypatch):
    calls = _counting(monkeypatch)
    chain = km_resnet(8, 1, input_shape=(3, 8, 8), num_classes=3, width=4)
    found = chain_costs(chain, TRGL)
    assert calls == [0, 1, 4, 5]  # with the encoder, plain, halving, plain and wider
    assert found[3] == replace(found[1], module=3)


def test_an_exempt_module_is_not_taken_for_an_equal_one(monkeypatch, nets):
    calls = _counting(monkeypatch)
    blocks = [nets.NormBlock] * 3
    chain = Chain.from_blocks(blocks, input_shape=(4, 8, 8), num_classes=2)
    chain_costs(replace(chain, exempt_blocks=1), TRGL)
    assert calls == [0, 1]


def test_blocks_that_only_look_alike_are_run_each(monkeypatch):
    calls = _counting(monkeypatch)
    wide, narrow = (
        lambda width=width: nn.Sequential(nn.Linear(6, width), nn.Linear(width, 6)) for width in (9, 3)
    )
    found = chain_costs(Chain.from_blocks([wide, narrow, wide], input_shape=(6,), num_classes=2), TRGL)
    assert calls == [0, 1]
    assert [cost.num_params for cost in found] == [123, 45, 123]


@pytest.mark.parametrize("position", [0, 1])
def test_a_block_that_changes_its_input_is_refused(nets, position):
    blocks = [nn.Identity, nn.Identity]
    blocks[position] = partial(nn.ReLU, inplace=True)
    with pytest.raises(InputError, match=f"block {position} of blocks changes its input in place"):
        chain_costs(Chain.from_blocks(blocks, input_shape=(6,), num_classes=2), TRGL)


def test_a_block_that_does_not_fit_the_one_before_is_named():
    blocks = [partial(nn.Linear, 6, 8), partial(nn.Linear, 9, 8)]
    with pytest.raises(InputError, match=r"block 1 of blocks cannot take the shape \[8\]: mat1 and mat2"):
        chain_costs(Chain.from_blocks(blocks, input_shape=(6,), num_classes=2), TRGL)


def test_a_head_that_does_not_suit_is_a_usage_error():
    chain = Chain.from_blocks([partial(nn.Linear, 6, 8)], input_shape=(6,), num_classes=2, head="conv")
    with pytest.raises(UsageError, match=r"module 0 of blocks: the conv head reads maps") as caught:
        chain_costs(chain, TRGL)
    assert "--head linear" in caught.value.hint


def test_block_weights_are_the_steps_of_single_blocks(nets):
    chain = nets.chain_of(nets.NormBlock, nets.NormBlock, nets.DropoutBlock)
    found = block_weights(chain, TRGL, 16, ["conv"])
    assert len(found) == 4
    singles = chain_costs(chain.regroup((0, 1, 2, 3)), TRGL)
    assert found == [cost.steps["none"].peak(16) for cost in singles]
    assert found[1] == found[2] != found[3]
