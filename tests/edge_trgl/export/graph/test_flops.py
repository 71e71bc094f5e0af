"""FLOPs of written models, against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edge_trgl.export.graph.flops import flops_of
from edge_trgl.export.graph.stage import Normalisation

SHAPE = (4, 8, 8)


class Attention(nn.Module):
    """Products of two values that are computed, and of one with a weight."""

    def __init__(self):
        super().__init__()
        self.mixed = nn.Linear(4, 12)

    def forward(self, x):
        query, key, value = self.mixed(x.flatten(2).transpose(1, 2)).chunk(3, dim=2)
        return (query @ key.transpose(1, 2)).softmax(dim=2) @ value


TRUNKS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "in groups": lambda: nn.Conv2d(4, 6, (3, 1), stride=2, groups=2, bias=False),
    "no product": lambda: nn.ReLU(),
    "attention": Attention,
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_as_torch_counts(unpublished, tmp_path, trunk, batch):
    torch.manual_seed(0)
    first, x = TRUNKS[trunk](), torch.zeros(1, *SHAPE)
    second = nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.ReLU())
    boundary = first(x)
    second(boundary)
    modules = [(first, None), (second, nn.Linear(7, 5))]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        modules[1][1](second(first(x)))
    normalisation = Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4, scale=1, input_shape=SHAPE)
    written = unpublished(tmp_path, modules, normalisation, batch=batch).read()
    assert flops_of(written, range(1, 3)) == counter.get_total_flops()
    assert flops_of(written, range(2, 3)) == 2 * (boundary.numel() * 7 + 7 * 5)


def test_never_nothing(unpublished, tmp_path):
    normalisation = Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4, scale=1, input_shape=SHAPE)
    written = unpublished(tmp_path, [(nn.ReLU(), nn.Flatten())], normalisation).read()
    assert flops_of(written, range(1, 2)) == 1
