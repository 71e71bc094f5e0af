"""First weights: orthogonal ones that depend on seed and block, or those of a block that was built before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.zoo import km_resnet

CONFIG = StepConfig(transport=Transport(tau=None))


def _orthogonal(weight, gain):
    flat = weight.flatten(1).double()
    small = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    return torch.allclose(small, gain**2 * torch.eye(len(small), dtype=torch.float64), atol=1e-6)


def test_weights_start_orthogonal_with_the_chains_gain(nets):
    chain = km_resnet(2, 2, input_shape=(3, 8, 8), num_classes=3, width=4)
    local = nets.built(chain, 1, CONFIG, shape=(8, 2, 2))
    layers = [part for part in local.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 7  # halving, two blocks of two, head's conv and linear
    assert all(_orthogonal(layer.weight.detach(), 0.05) for layer in layers)
    assert all(not layer.bias.any() for layer in layers if layer.bias is not None)
    norms = [part for part in local.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms)
    assert nets.chain_of(nets.NormBlock).gain == 0.7
    other = nets.built(nets.chain_of(nets.NormBlock), 0, CONFIG)
    assert _orthogonal(other.trunk[1].conv.weight.detach(), 0.7)


def test_first_weights_depend_on_seed_and_module_alone(nets):
    def first_weights(order, seed):
        chain = km_resnet(4, 1, input_shape=(3, 8, 8), num_classes=3, width=4, downsample=())
        return {module: nets.built(chain, module, CONFIG, shape=(4, 4, 4), seed=seed) for module in order}

    forwards, backwards = first_weights([0, 1, 2, 3], 5), first_weights([3, 1, 0, 2], 5)
    for module, local in forwards.items():
        others = backwards[module].final_tensors()
        assert all(torch.equal(tensor, others[name]) for name, tensor in local.final_tensors().items())
    name = "trunk.0.conv1.weight"
    assert not torch.equal(forwards[1].final_tensors()[name], forwards[2].final_tensors()[name])
    other_seed = first_weights([1], 6)[1].final_tensors()[name]
    assert not torch.equal(forwards[1].final_tensors()[name], other_seed)


def test_built_blocks_keep_their_weights_and_are_copied(nets):
    block = nn.Linear(4, 4)
    chain = replace(Chain.from_blocks([block], input_shape=(4,), num_classes=2), gain=0.1)
    local = nets.built(chain, 0, CONFIG, shape=(4,))
    assert torch.equal(local.trunk[0].weight, block.weight)
    assert _orthogonal(local.head.linear.weight.detach(), 0.1)
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 0])
    before = block.weight.clone()
    local.train_step(x, y, lr=1.0, seed=0)
    assert torch.equal(block.weight, before)
    assert not torch.equal(local.trunk[0].weight, before)
