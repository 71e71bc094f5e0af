"""Descriptions of pieces: what is written is read again, and equal pieces have equal texts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge_trgl.networks.cutting.layers import describe_layer
from edge_trgl.networks.cutting.piece import build_block
from edge_trgl.networks.cutting.piece_source import CallSource, PieceSource, WeightSource


def source(title="Scaled"):
    """conv(x) * scale, the scale being a parameter of the model's own."""
    return PieceSource(
        title=title,
        layers={"conv": describe_layer(nn.Conv2d(3, 4, 1, bias=False))},
        weights={"scale": WeightSource.of(nn.Parameter(torch.ones(4, 1, 1)))},
        calls=(
            CallSource(
                target="layer conv", arguments=["list", ["value", 0]], options=["dict"], result=["value", 1]
            ),
            CallSource(
                target="torch.mul",
                arguments=["list", ["value", 1], ["weight", "scale"]],
                options=["dict"],
                result=["value", 2],
            ),
        ),
        output=2,
        channels_last=(False, False),
    )


def test_json_gives_the_same_description():
    assert PieceSource.from_json(source().to_json()) == source()


def test_equal_descriptions_have_one_text():
    assert source().to_json() == source().to_json() != source("Other").to_json()


def test_a_block_is_built_from_the_text():
    block = build_block([source().to_json()])
    assert type(block).__name__ == "Scaled"
    assert [name for name, _ in block.named_parameters()] == ["net.scale", "net.conv.weight"]
    with torch.no_grad():
        block.net.scale.fill_(2.0)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(block(x), block.net.conv(x) * 2)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.arange(6).reshape(2, 3),
        torch.tensor([0.1, -0.0, float("inf")]),
        torch.tensor(True),
        torch.empty(0, 4),
        torch.randn(3).bfloat16(),
    ],
)
def test_a_buffer_keeps_its_bits(buffer):
    built = WeightSource.of(buffer).build()
    assert not isinstance(built, nn.Parameter)
    assert (built.dtype, built.shape) == (buffer.dtype, buffer.shape)
    assert torch.equal(built, buffer)


@pytest.mark.parametrize("trained", [True, False])
def test_a_parameter_keeps_its_shape_alone(trained):
    built = WeightSource.of(nn.Parameter(torch.ones(2, 3), requires_grad=trained)).build()
    assert isinstance(built, nn.Parameter)
    assert built.requires_grad == trained
    assert torch.equal(built.detach(), torch.zeros(2, 3))
