"""The decoder: every side comes back, whatever was halved on the way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_trgl.networks.chain import Chain
from edge_trgl.networks.heads import DECODER, HEADS, Decoder
from edge_trgl.networks.heads.decoder import MAX_CHANNELS, halved
from edge_trgl.networks.zoo import km_resnet

SIDES = st.integers(1, 40)


@given(st.lists(SIDES, min_size=1, max_size=2), st.integers(0, 4), st.integers(1, 3))
def test_what_was_halved_comes_back_in_the_size_it_had(sides, times, channels):
    inner = sides
    for _ in range(times):
        inner = [-(-side // 2) for side in inner]
    decoder = Decoder((6, *inner), (channels, *sides)).eval()
    rebuilt = decoder(torch.zeros(2, 6, *inner))
    assert rebuilt.shape == (2, channels, *sides)
    assert len(decoder.layers) >= 1


def test_no_side_is_stretched_where_halvings_round_up():
    assert halved((33, 7), (9, 2)) == [(9, 2), (17, 4), (33, 7)]
    assert halved((28, 28), (28, 28)) == [(28, 28)]


@pytest.mark.parametrize("inner", [(5, 5), (30, 31), (1, 1)])
def test_sides_that_no_halving_gives_are_taken_as_well(inner):
    assert Decoder((4, *inner), (1, 28, 28)).eval()(torch.zeros(1, 4, *inner)).shape == (1, 1, 28, 28)


def test_the_layers_mirror_the_encoder():
    """At width 256 as the authors have it: 5x5 of stride 2 to half the channels, then 3x3 to the image."""
    decoder = Decoder((256, 14, 14), (1, 28, 28))
    (layer,) = decoder.layers
    assert isinstance(layer[0], nn.ConvTranspose2d)
    assert layer[0].weight.shape == (256, 128, 5, 5)
    assert layer[0].stride == (2, 2)
    assert decoder.last.weight.shape == (1, 128, 3, 3)


def test_wide_nets_have_a_narrow_decoder():
    decoder = Decoder((2048, 4, 4), (3, 16, 16))
    assert [layer[0].weight.shape[1] for layer in decoder.layers] == [MAX_CHANNELS, MAX_CHANNELS // 2]


@pytest.mark.parametrize(
    ("output", "sample"), [((6,), (3, 8, 8)), ((6, 16), (3, 8, 8)), ((6, 4, 4), (3, 8)), ((6, 0, 4), (3, 8, 8))]
)
def test_what_cannot_be_rebuilt(output, sample):
    with pytest.raises(ValueError, match=r"an autoencoder rebuilds images \[C, H, W\] from maps"):
        Decoder(output, sample)


def test_no_user_names_it():
    assert DECODER not in HEADS


def test_a_chain_may_end_early():
    chain = km_resnet(3, 2, input_shape=(1, 8, 8), num_classes=2, width=4)
    assert [chain.first(n).starts for n in (1, 2, 3, 6)] == [(0,), (0,), (0, 2), (0, 2, 4)]
    assert len(chain.first(3).blocks) == 3
    named = Chain.from_blocks(
        [nn.Identity] * 3, input_shape=(2,), num_classes=2, head=("linear", "lite", "tokens")
    )
    assert named.first(2).head == ("linear", "lite")
