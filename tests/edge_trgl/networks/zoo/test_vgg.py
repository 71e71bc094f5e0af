"""VGG-19: parameters, shapes, splits, order of layers, residues, and equal bits with recomputing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import vgg19
from edge_trgl.networks.zoo.vgg import ConvBlock

TINY = {"input_shape": (3, 64, 64), "num_classes": 200}


def _convolutions(trunk):
    """Channels of each convolution, M for a max-pool, in order."""
    layers = (layer for layer in trunk.modules() if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)))
    return " ".join("M" if isinstance(layer, nn.MaxPool2d) else str(layer.out_channels) for layer in layers)


def test_layers_are_those_of_configuration_e_and_modules_of_equal_depth(models):
    assert " / ".join(map(_convolutions, models.trunks(vgg19(**TINY)))) == (
        "64 64 M 128 128 / M 256 256 256 256 / M 512 512 512 512 / M 512 512 512 512 M"
    )


def test_parameters_are_those_of_torchvisions_convolutions_and_norms(models):
    # 20 024 384 of the 16 convolutions with their biases, and two for each of their 5 504 channels.
    assert models.num_parameters(*models.trunks(vgg19(**TINY))) == 20_024_384 + 2 * 5_504


@pytest.mark.parametrize(("side", "sides"), [(64, (32, 16, 8, 2)), (32, (16, 8, 4, 1)), (28, (14, 7, 4, 1))])
def test_maps_are_halved_five_times(side, sides, models):
    chain = vgg19(input_shape=(3, side, side), num_classes=10)
    channels = 128, 256, 512, 512
    assert models.shapes(chain)[1:] == [(width, size, size) for width, size in zip(channels, sides, strict=True)]


@pytest.mark.parametrize("num_modules", [1, 3, 5, 16])
def test_any_number_of_modules(num_modules, models):
    chain = vgg19(**TINY, num_modules=num_modules)
    depths = [len(chain.module_blocks(module)) for module in range(num_modules)]
    assert sum(depths) == 16
    assert max(depths) - min(depths) <= 1


@pytest.mark.slow
def test_every_convolution_that_keeps_its_channels_has_a_residue(nets, models):
    chain = models.distinct(vgg19(input_shape=(3, 32, 32), num_classes=5))
    assert len(chain) == 10
    for module in range(len(chain)):
        transport = models.assert_recompute_changes_no_bit(nets, chain, module)
        (conv,) = (layer for layer in models.trunks(chain)[module].modules() if isinstance(layer, nn.Conv2d))
        assert (transport > 0) == (conv.in_channels == conv.out_channels)


@pytest.mark.parametrize("channels", [4, 6])
def test_block_step_by_step(channels):
    block, x = ConvBlock(4, channels), torch.randn(3, 4, 6, 5)
    for parameter in block.parameters():
        nn.init.normal_(parameter, 0.2, 0.3)
    out = functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    out = functional.batch_norm(out, None, None, block.norm.weight, block.norm.bias, training=True)
    torch.testing.assert_close(block(x), torch.relu(out))


@pytest.mark.slow
@pytest.mark.parametrize("transport", [Transport(tau=None), Transport(tau=0.4)], ids=["vangl", "trgl"])
@pytest.mark.parametrize("channels", [1, 8, 24])
def test_what_is_computed_again_changes_no_bit(nets, models, channels, transport):
    chain = nets.chain_of(partial(ConvBlock, 4, channels), *[partial(ConvBlock, channels, channels)] * 2)
    for starts in ((0,), (0, 2)):
        for module in range(len(starts)):
            models.assert_recompute_changes_no_bit(nets, chain.regroup(starts), module, transport=transport)


def test_exported(models, tmp_path, exported):
    # One of the maps has odd sides: 12, 6, 3, 2, 1.
    chain = models.distinct(vgg19(input_shape=(3, 12, 12), num_classes=5))
    models.assert_exported(replace(chain, starts=(0, 4, 8)), tmp_path, exported)
