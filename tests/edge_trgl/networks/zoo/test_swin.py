"""Swin-Tiny compared with torchvision's and with attention token by token; splits; equal bits when recomputing."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from nearness import assert_near
from torch import nn

from edge_trgl.method.transport import Residue, Transport
from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.networks.zoo import swin_tiny
from edge_trgl.networks.zoo.swin import PatchMerging, SwinBlock
from edge_trgl.networks.zoo.window_attention import WindowAttention


def _swin(side, **options):
    return swin_tiny(input_shape=(3, side, side), num_classes=5, **options)


def _randomised(part):
    for parameter in part.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return part


def test_parameters_are_those_of_torchvisions(models):
    trunks = models.trunks(_swin(224))
    # Without the last norm and linear layer.
    assert models.num_parameters(*trunks) == 28_288_354 - 2 * 768 - 769 * 1000
    assert [len(trunk) for trunk in trunks] == [2, 2, 6, 2]
    assert [sum(isinstance(part, Residue) for part in trunk.modules()) for trunk in trunks] == [4, 4, 12, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "patch", "windows", "sides"),
    [
        (224, 4, (7, 7, 7, 7), (56, 28, 14, 7)),
        (96, 4, (6, 6, 6, 3), (24, 12, 6, 3)),
        (64, 4, (4, 4, 4, 2), (16, 8, 4, 2)),
        (32, 2, (4, 4, 4, 2), (16, 8, 4, 2)),
        (28, 1, (7, 7, 7, 4), (28, 14, 7, 4)),
        (92, 4, (7, 7, 6, 3), (23, 12, 6, 3)),
    ],
)
def test_patches_windows_and_maps(side, patch, windows, sides, models):
    chain = _swin(side)
    channels = 96, 192, 384, 768
    assert models.shapes(chain)[1:] == [(width, size, size) for width, size in zip(channels, sides, strict=True)]
    trunks = models.trunks(chain)
    assert trunks[0][0][0].conv.kernel_size == (patch, patch)
    attentions = [[part for part in trunk.modules() if isinstance(part, WindowAttention)] for trunk in trunks]
    assert [{part.window for part in stage} for stage in attentions] == [{window} for window in windows]
    # Every second block is shifted by half a window, where one window does not cover the map.
    shifts = [window // 2 if size > window else 0 for window, size in zip(windows, sides, strict=True)]
    for stage, shift in zip(attentions, shifts, strict=True):
        assert [part.shifts for part in stage] == [(0, 0), (shift, shift)] * (len(stage) // 2)


def test_maps_need_not_be_square(models):
    chain = swin_tiny(input_shape=(1, 32, 48), num_classes=5)
    assert models.shapes(chain)[1:] == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]


@pytest.mark.parametrize(
    ("num_modules", "starts"),
    [(1, (0,)), (3, (0, 4, 8)), (4, (0, 2, 4, 10)), (5, (0, 3, 6, 8, 10)), (12, tuple(range(12)))],
)
def test_one_stage_a_module_else_equal_depth(num_modules, starts):
    chain = _swin(32, num_modules=num_modules)
    assert (chain.starts, chain.head, chain.gain) == (starts, "tokens", 0.1)


@pytest.mark.slow
def test_computes_what_torchvision_computes(models):
    theirs = _theirs().eval()
    chain = _swin(224)
    ours = nn.Sequential(*(chain.trunk(module) for module in range(4))).eval()
    _same_weights(ours, _randomised(theirs.features))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected, found = theirs.features(images).permute(0, 3, 1, 2), ours(images)
    assert expected.abs().max() > 1
    assert_near(found, expected)


def _theirs():
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    return model_factory("torchvision:swin_t", (3, 224, 224), 1000)()


def _same_weights(ours, theirs):
    with torch.no_grad():
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert own.shape == other.shape
            own.copy_(other)


def _attended(attention, tokens):
    """Attention of every token to those in its window of the shifted grid, without padding."""
    window, (down, across), heads = attention.window, attention.shifts, attention.num_heads
    height, width, channels = tokens.shape

    def cell(row, column):
        return (row - down) // window, (column - across) // window

    query, key, value = attention.qkv(tokens).reshape(height, width, 3, heads, channels // heads).unbind(2)
    found = torch.empty(height, width, heads, channels // heads)
    places = [(row, column) for row in range(height) for column in range(width)]
    for row, column in places:
        beside = [place for place in places if cell(*place) == cell(row, column)]
        scores = torch.stack(
            [
                (query[row, column] * key[place]).sum(-1) / math.sqrt(channels // heads)
                + attention.position_bias[
                    (row - place[0] + window - 1) * (2 * window - 1) + column - place[1] + window - 1
                ]
                for place in beside
            ]
        )
        values = torch.stack([value[place] for place in beside])
        found[row, column] = (scores.softmax(0)[..., None] * values).sum(0)
    return attention.proj(found.flatten(2))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [(6, 6), (3, 6), (6, 9), (3, 3)])
def test_attention_token_by_token(size, shift):
    attention = _randomised(WindowAttention(8, 2, size, 3, shift))
    tokens = torch.randn(2, *size, 8)
    with torch.no_grad():
        expected = torch.stack([_attended(attention, sample) for sample in tokens])
        torch.testing.assert_close(attention(tokens), expected)


def test_a_map_that_windows_do_not_cover_is_padded_with_zeros():
    attention = _randomised(WindowAttention(8, 2, (5, 4), 3, 1))
    whole = _randomised(WindowAttention(8, 2, (6, 6), 3, 1))
    whole.load_state_dict(attention.state_dict())
    tokens = torch.randn(2, 5, 4, 8)
    padded = nn.functional.pad(tokens, (0, 0, 0, 2, 0, 1))
    with torch.no_grad():
        assert torch.equal(attention(tokens), whole(padded)[:, :5, :4])


def test_merging_token_by_token():
    merging, x = _randomised(PatchMerging(2)), torch.randn(1, 2, 4, 3)
    padded = nn.functional.pad(x, (0, 1))
    with torch.no_grad():
        out = merging(x)
        assert out.shape == (1, 4, 2, 2)
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            order = ((0, 0), (1, 0), (0, 1), (1, 1))
            four = torch.cat([padded[0, :, 2 * row + down, 2 * column + right] for down, right in order])
            torch.testing.assert_close(out[0, :, row, column], merging.reduction(merging.norm(four)))


def test_two_residues_a_block():
    block = _randomised(SwinBlock(8, 2, (4, 4), 2, 1, 0.0))
    x = torch.randn(3, 8, 4, 4)
    out = block(x)
    tokens = x.permute(0, 2, 3, 1)
    first = block.attention(block.norm1(tokens))
    second = block.mlp(block.norm2(tokens + first))
    torch.testing.assert_close(out, (tokens + first + second).permute(0, 3, 1, 2))
    for mark, residue in ((block.residue1, first), (block.residue2, second)):
        (energy,) = mark.take()
        torch.testing.assert_close(energy.mean, residue.square().mean())
        assert energy.size == 8 * 4 * 4


def test_stochastic_depth_leaves_branches_out_of_samples():
    block = _randomised(SwinBlock(8, 2, (4, 4), 2, 0, 0.5))
    x = torch.randn(64, 8, 4, 4)
    torch.manual_seed(0)
    out = block(x)
    untouched = [torch.equal(a, b) for a, b in zip(out, x, strict=True)]
    assert 4 <= sum(untouched) <= 28  # a quarter
    block.eval()
    assert not any(torch.equal(a, b) for a, b in zip(block(x), x, strict=True))


def test_stochastic_depth_grows_with_depth():
    chain = _swin(32, stochastic_depth=0.22)
    with torch.device("meta"):
        blocks = [part for part in chain.regroup((0,)).trunk(0).modules() if isinstance(part, SwinBlock)]
    assert [block.stochastic_depth for block in blocks] == pytest.approx([0.02 * place for place in range(12)])
    with torch.device("meta"):
        assert _swin(32).trunk(3)[-1].stochastic_depth == 0


TRANSPORTS = {"vangl": Transport(tau=None), "trgl": Transport(tau=0.4), "cubes": Transport(tau=0.4, power=3)}


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stochastic_depth", [0.0, 0.4])
def test_what_is_computed_again_changes_no_bit(nets, models, transport, stochastic_depth):
    blocks = (
        partial(SwinBlock, 4, 2, (8, 8), 3, 1, stochastic_depth),
        partial(SwinBlock, 4, 2, (8, 8), 4, 2, stochastic_depth),
        partial(PatchMerging, 4),
        partial(SwinBlock, 8, 2, (4, 4), 4, 0, stochastic_depth),
    )
    chain = nets.chain_of(*blocks, head="tokens")
    for starts in ((0,), (0, 2, 4)):
        for module in range(len(starts)):
            found = models.assert_recompute_changes_no_bit(
                nets, chain.regroup(starts), module, transport=TRANSPORTS[transport]
            )
            assert (found > 0) == (transport != "vangl")


@pytest.mark.slow
def test_every_kind_of_block_trains(nets, models):
    chain = models.distinct(_swin(32))
    assert len(chain) == 9
    for module in range(len(chain)):
        assert models.assert_recompute_changes_no_bit(nets, chain, module) > 0


@pytest.mark.slow
def test_exported(models, tmp_path, exported):
    models.assert_exported(models.distinct(_swin(16)).regroup((0, 4)), tmp_path, exported)


LEAN = """
import sys
import torch
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.zoo import swin_tiny
from edge_trgl.method.transport import Transport

chain = swin_tiny(input_shape=(3, 8, 8), num_classes=3, stochastic_depth=0.2)
x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
local = LocalModule(chain, 0, (96, 8, 8), StepConfig(transport=Transport(tau=0.5), recompute="blocks"))
chain.initialise(0, local.trunk, local.head, 0)
local.materialise("cpu").train_step(x, y, lr=0.1, seed=0)
print(*(name for name in ("torch._dynamo", "sympy", "torchvision") if name in sys.modules))
"""


@pytest.mark.slow
def test_training_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
