"""ResNet-50, -101, -152: parameters, shapes, splits, order of layers, and equal bits with recomputing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.method.transport import Residue, Transport
from edge_trgl.networks.zoo import resnet
from edge_trgl.networks.zoo.resnet import BottleneckBlock, Stem

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 100}
TINY = {"input_shape": (3, 64, 64), "num_classes": 200}

# Parameters of torchvision's networks without the last layer; the small stem has 3 · 64 · (49 − 9) fewer.
PARAMETERS = {50: 25_557_032 - 2_049_000, 101: 44_549_160 - 2_049_000, 152: 60_192_808 - 2_049_000}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameters(depth, models):
    assert models.num_parameters(*models.trunks(resnet(depth, **TINY))) == PARAMETERS[depth]
    assert models.num_parameters(*models.trunks(resnet(depth, **CIFAR))) == PARAMETERS[depth] - 7_680


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "sides"), [(28, (28, 14, 7, 4)), (32, (32, 16, 8, 4)), (64, (32, 16, 8, 4)), (224, (112, 56, 28, 14))]
)
def test_images_of_more_than_32_pixels_are_halved_once_more(side, sides, models):
    chain = resnet(50, input_shape=(3, side, side), num_classes=10)
    channels = 256, 512, 1024, 2048
    assert models.shapes(chain)[1:] == [(width, size, size) for width, size in zip(channels, sides, strict=True)]


# The paper's splits: blocks x width of each module; d if the first block downsamples.
SPLITS = {
    (50, 4): "3x64 / 4x128d / 6x256d / 3x512d",
    (101, 2): "3x64 4x128d 10x256d / 13x256 3x512d",
    (152, 2): "3x64 8x128d 14x256d / 22x256 3x512d",
    (101, 4): "3x64 4x128d / 9x256d / 9x256 / 5x256 3x512d",
    (152, 4): "3x64 8x128d / 13x256d / 13x256 / 10x256 3x512d",
}


def _described(trunk):
    runs = []
    for block in (part for part in trunk.modules() if isinstance(part, BottleneckBlock)):
        width, halves = block.conv2.out_channels, block.conv2.stride == (2, 2)
        if runs and runs[-1][1] == width and not halves:
            runs[-1][0] += 1
        else:
            runs.append([1, width, halves])
    return " ".join(f"{number}x{width}{'d' * halves}" for number, width, halves in runs)


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_the_papers(split, models):
    depth, num_modules = split
    trunks = models.trunks(resnet(depth, **CIFAR, num_modules=num_modules))
    assert " / ".join(map(_described, trunks)) == SPLITS[split]
    stems = [sum(isinstance(part, Stem) for part in trunk.modules()) for trunk in trunks]
    assert stems == [1] + [0] * (num_modules - 1)


@pytest.mark.parametrize("num_modules", [1, 3, 5, 16])
def test_any_number_of_modules(num_modules, models):
    chain = resnet(50, **CIFAR, num_modules=num_modules)
    depths = [len(chain.module_blocks(module)) for module in range(num_modules)]
    assert sum(depths) == 16
    assert max(depths) - min(depths) <= 1
    assert models.num_parameters(*models.trunks(chain)) == PARAMETERS[50] - 7_680


@pytest.mark.parametrize(
    ("given", "positions"),
    [(CIFAR, [4, 4, 4, 1]), (TINY, [4, 4, 4, 1]), ({**TINY, "input_shape": (3, 224, 224)}, [4] * 4)],
)
def test_heads_leave_one_to_four_positions(given, positions, models):
    chain = resnet(50, **given)
    with torch.device("meta"):
        heads = [chain.classifier(module, shape) for module, shape in enumerate(models.shapes(chain)[1:])]
    assert [head.linear.in_features // head.conv.out_channels for head in heads] == positions
    assert chain.gain == 0.1


def _randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.2, 0.3)
    return module.train()


def _normed(x, conv, norm, **options):
    out = functional.conv2d(x, conv.weight, None, **options)
    return functional.batch_norm(out, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_bottleneck_block_step_by_step(in_channels, stride):
    block, x = _randomised(BottleneckBlock(in_channels, 2, stride)), torch.randn(3, in_channels, 7, 6)
    inner = torch.relu(_normed(x, block.conv1, block.norm1))
    inner = torch.relu(_normed(inner, block.conv2, block.norm2, padding=1, stride=stride))
    branch = _normed(inner, block.conv3, block.norm3)
    changes = (in_channels, stride) != (8, 1)
    shortcut = _normed(x, block.shortcut.conv, block.shortcut.norm, stride=stride) if changes else x
    torch.testing.assert_close(block(x), torch.relu(shortcut + branch))
    (energy,) = block.residue.take()  # after its last norm, before the sum
    torch.testing.assert_close(energy.mean, branch.square().mean())


@pytest.mark.parametrize(("small", "size"), [(True, 9), (False, 5)])
def test_stem_step_by_step(small, size):
    stem, x = _randomised(Stem(3, small=small)), torch.randn(2, 3, 9, 9)
    options = {"padding": 1} if small else {"padding": 3, "stride": 2}
    out = stem(x)
    torch.testing.assert_close(out, torch.relu(_normed(x, stem.conv, stem.norm, **options)))
    assert out.shape == (2, 64, size, size)


TRANSPORTS = {"vangl": Transport(tau=None), "trgl": Transport(tau=0.4), "cubes": Transport(tau=0.4, power=3)}


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("width", [1, 2, 4, 16])
def test_what_is_computed_again_changes_no_bit(nets, models, width, transport):
    channels = 4 * width
    blocks = [(4, width, 1), (channels, width, 1), (channels, 2 * width, 2), (2 * channels, 2 * width, 1)]
    chain = nets.chain_of(*(partial(BottleneckBlock, *block) for block in blocks))
    for starts in ((0,), (0, 1, 2, 3, 4)):
        cut = chain.regroup(starts)
        for module in range(len(cut)):
            models.assert_recompute_changes_no_bit(nets, cut, module, transport=TRANSPORTS[transport])


@pytest.mark.slow
@pytest.mark.parametrize(("side", "num_kinds"), [(8, 8), (36, 1)], ids=["small stem", "large stem"])
def test_every_kind_of_block_trains(nets, models, side, num_kinds):
    chain = models.distinct(resnet(50, input_shape=(3, side, side), num_classes=5))
    assert len(chain) == 8  # of which only the first has a stem
    for module in range(num_kinds):
        assert models.assert_recompute_changes_no_bit(nets, chain, module, size=3) > 0


@pytest.mark.slow
def test_exported(models, tmp_path, exported):
    chain = resnet(50, input_shape=(3, 8, 8), num_classes=5)
    models.assert_exported(replace(models.distinct(chain), starts=(0, 3, 6)), tmp_path, exported)


def test_one_residue_a_block(models):
    trunks = models.trunks(resnet(101, **CIFAR, num_modules=2))
    assert [sum(isinstance(part, Residue) for part in trunk.modules()) for trunk in trunks] == [17, 16]
