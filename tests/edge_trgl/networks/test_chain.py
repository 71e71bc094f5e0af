"""Grouping blocks into modules, compared with brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge_trgl.networks.chain import Chain, split_by_depth, split_by_weight


def _sizes(starts, num_blocks):
    return [stop - start for start, stop in zip(starts, [*starts[1:], num_blocks], strict=True)]


COUNTS = st.integers(1, 60).flatmap(lambda blocks: st.tuples(st.just(blocks), st.integers(1, blocks)))


@given(COUNTS)
def test_by_depth_is_as_equal_as_can_be(counts):
    num_blocks, num_modules = counts
    starts = split_by_depth(num_blocks, num_modules)
    sizes = _sizes(starts, num_blocks)
    assert starts[0] == 0
    assert len(sizes) == num_modules
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes)


def test_by_depth_puts_the_deeper_modules_first():
    assert _sizes(split_by_depth(54, 4), 54) == [14, 14, 13, 13]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).flatmap(
    lambda weights: st.tuples(st.just(weights), st.integers(1, len(weights)))
))  # fmt: skip
@settings(max_examples=200)
def test_by_weight_finds_the_lightest_heaviest_module(case):
    weights, num_modules = case

    def heaviest(starts):
        stops = [*starts[1:], len(weights)]
        return max(sum(weights[start:stop]) for start, stop in zip(starts, stops, strict=True))

    starts = split_by_weight(weights, num_modules)
    assert len(starts) == num_modules
    assert starts[0] == 0
    assert all(a < b for a, b in pairwise(starts))
    cuts = combinations(range(1, len(weights)), num_modules - 1)
    assert heaviest(starts) == min(heaviest((0, *cut)) for cut in cuts)


def test_by_weight_by_hand():
    assert split_by_weight([9, 1, 1, 1], 2) == (0, 1)
    assert split_by_weight([1, 1, 1, 9], 2) == (0, 3)


def _chain(num_blocks=5, **options):
    blocks = [nn.Identity] * num_blocks
    return Chain.from_blocks(blocks, input_shape=(4,), num_classes=2, **options)


def test_blocks_are_shared_out_to_modules():
    chain = _chain(num_modules=2)
    assert len(chain) == 2
    assert [list(chain.module_blocks(module)) for module in range(2)] == [[0, 1, 2], [3, 4]]
    assert [len(chain.trunk(module)) for module in range(2)] == [3, 2]
    assert len(_chain()) == 5


def test_regroup_keeps_the_blocks():
    chain = _chain()
    regrouped = chain.regroup((0, 4))
    assert regrouped.blocks is chain.blocks
    assert [list(regrouped.module_blocks(module)) for module in range(2)] == [[0, 1, 2, 3], [4]]


def test_the_last_module_alone_has_a_head_end_to_end():
    chain = _chain(num_modules=3)
    assert [chain.has_head(module) for module in range(3)] == [True] * 3
    whole = replace(chain, end_to_end=True)
    assert [whole.has_head(module) for module in range(3)] == [False, False, True]
    assert whole.regroup((0,)).has_head(0)


def test_constructors_draw_the_same_in_every_grouping():
    chain = Chain.from_blocks([lambda: nn.Linear(4, 4)] * 4, input_shape=(4,), num_classes=2).seeded(5)
    apart = [block.weight for module in range(4) for block in chain.trunk(module)]
    torch.rand(1)
    together = [block.weight for block in chain.regroup((0,)).trunk(0)]
    assert all(map(torch.equal, apart, together))
    assert not torch.equal(apart[0], apart[1])
    other = Chain.from_blocks([lambda: nn.Linear(4, 4)], input_shape=(4,), num_classes=2).seeded(6)
    assert not torch.equal(other.trunk(0)[0].weight, apart[0])


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 3, 2), (0, 5), (0, 9)])
def test_modules_without_a_block_are_refused(starts):
    with pytest.raises(ValueError, match="modules of blocks must start at rising blocks below 5, the first at 0"):
        _chain().regroup(starts)


def test_a_factory_is_called_when_a_module_is_opened_and_not_before():
    calls = []

    def factory(number):
        calls.append(number)
        return nn.Linear(4, 4)

    factories = [lambda number=number: factory(number) for number in range(3)]
    chain = Chain.from_blocks(factories, input_shape=(4,), num_classes=2)
    assert calls == []
    assert not chain.built
    chain.trunk(1)
    assert calls == [1]


def test_built_blocks_are_handed_out_as_copies():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    chain = Chain.from_blocks(net, input_shape=(4,), num_classes=2)
    assert chain.built
    first, second = chain.trunk(0)[0], chain.trunk(0)[0]
    assert torch.equal(first.weight, net[0].weight)
    assert len({first.weight.data_ptr(), second.weight.data_ptr(), net[0].weight.data_ptr()}) == 3
