"""How values lie in memory between the parts of a module, and which part completes a weight's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge_trgl.learning.segments import ALIGNMENT, Segment, laid_out, last_uses, segments_of
from edge_trgl.networks.chain import Pieces
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.record_codec import decoded, empty_rows

SHAPES = [(7,), (1,), (5, 3), (4, 3, 2), (1, 3, 3), (4, 1, 1), (1, 1, 1), (4, 1, 5), (2, 3, 4, 5)]


def _views(shape):
    """The same numbers lying in many ways."""
    values = torch.arange(3 * torch.Size(shape).numel(), dtype=torch.float32).view(3, *shape)
    last = values.dim() - 1
    shifted = torch.empty(values.numel() + 1)[1:].view(values.shape).copy_(values)
    yield values
    yield shifted
    yield values.transpose(1, last).contiguous().transpose(1, last)
    yield torch.cat([values, values], dim=1)[:, : values.shape[1]]
    yield values[:1].expand(values.shape)
    if values.dim() == 4:
        yield values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_lie_as_a_boundary_gives_them_back(shape):
    spec = BoundarySpec(name="b", shape=shape, dtype="float32", records=3)
    boundary = decoded(empty_rows(spec, 3), spec)
    for values in _views(shape):
        found = laid_out(values)
        assert torch.equal(found, values)
        assert found.stride() == boundary.stride()
        assert found.data_ptr() % ALIGNMENT == boundary.data_ptr() % ALIGNMENT == 0
        assert laid_out(found) is found


def test_gradients_go_through():
    values = torch.randn(2, 3, 4, 5, requires_grad=True)
    (laid_out(values) * torch.arange(120.0).view(2, 3, 4, 5)).sum().backward()
    assert torch.equal(values.grad, torch.arange(120.0).view(2, 3, 4, 5))


def _other_layout(x):
    return x.mean(dim=(2, 3), keepdim=True).expand(x.shape)


def test_a_gradient_reaches_a_segment_as_it_reaches_a_module():
    """That of a mean over positions is one number a map, expanded: no such tensor comes out of a boundary."""

    class Watched(nn.Module):
        def forward(self, x):
            inner = x * 2
            inner.register_hook(lambda gradient: strides.append(gradient.stride()))
            return inner + 1

    strides = []
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    _other_layout(Segment(Watched(), (0, 0))(x, 0)).sum().backward()
    assert strides == [x.stride()]


def test_segments_are_blocks_or_their_pieces():
    first, second, third = nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    found = segments_of(nn.Sequential(Pieces(first, second), third), 4)
    assert [segment.layer for segment in found] == [first, second, third]
    assert [segment.place for segment in found] == [(4, 0), (4, 1), (5, 0)]


def test_draws_depend_on_seed_and_place_alone():
    def drawn(seed, place):
        torch.rand(3)
        return Segment(nn.Dropout(), place)(torch.ones(100), seed)

    assert torch.equal(drawn(1, (2, 0)), drawn(1, (2, 0)))
    others = [drawn(2, (2, 0)), drawn(1, (3, 0)), drawn(1, (2, 1))]
    assert not any(torch.equal(drawn(1, (2, 0)), other) for other in others)


def test_a_shared_weight_is_complete_where_it_stands_first():
    shared, own = nn.Linear(2, 2), nn.Linear(2, 2)
    stages = [[Segment(shared, (0, 0))], [Segment(own, (1, 0)), Segment(shared, (2, 0))]]
    first, second = last_uses(stages)
    assert first == list(shared.parameters())
    assert second == list(own.parameters())
