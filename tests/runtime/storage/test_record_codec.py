"""int8 records: a scale a channel, half a step of error at most, the same from any layout and split."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.runtime.storage import record_codec
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.record_codec import decoded, empty_rows, encoded, store


def _spec(shape):
    return BoundarySpec(name="b1", shape=shape, dtype="int8", records=8)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    st.integers(1, 4),
    st.floats(1e-6, 1e6),
    st.integers(0, 99),
)
def test_values_are_half_a_step_off_at_most(shape, num, size, seed):
    generator = torch.Generator().manual_seed(seed)
    values = size * torch.randn(num, *shape, generator=generator)
    spec = _spec(shape)
    found = decoded(encoded(values, spec), spec)
    within = tuple(range(2 if len(shape) > 1 else 1, values.dim()))
    step = values.abs().amax(within, keepdim=True) / 127
    assert ((found - values).abs() <= 0.5001 * step).all()


def test_the_largest_value_of_a_channel_and_zero_are_exact():
    values = torch.tensor([[[[0.0, 3.5], [-7.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    spec = _spec((2, 2, 2))
    found = decoded(encoded(values, spec), spec)
    assert found[0, 0, 1, 0] == -7.0
    assert found[0, 0, 0, 0] == 0.0
    assert torch.equal(found[0, 1], torch.zeros(2, 2))


def test_channels_do_not_share_a_scale():
    values = torch.stack([torch.full((3, 3), 1e-3), torch.full((3, 3), 1e3)])[None]
    spec = _spec((2, 3, 3))
    assert torch.allclose(decoded(encoded(values, spec), spec), values, rtol=1e-6)


@pytest.mark.parametrize(("shape", "num_bytes"), [((64, 14, 14), 64 * (196 + 4)), ((100,), 104), ((5, 7), 5 * 11)])
def test_a_record_is_its_scales_and_a_byte_a_value(shape, num_bytes):
    spec = _spec(shape)
    assert spec.record_bytes == num_bytes
    assert encoded(torch.randn(3, *shape), spec).shape == (3, num_bytes)


def test_layout_and_parts_make_no_difference(monkeypatch):
    spec, values = _spec((3, 4, 5)), torch.randn(6, 3, 4, 5)
    whole = encoded(values, spec)
    assert torch.equal(encoded(values.contiguous(memory_format=torch.channels_last), spec), whole)
    monkeypatch.setattr(record_codec, "_PART_BYTES", 2 * 4 * 60)
    rows = empty_rows(spec, 6)
    store(rows, values, spec)
    assert torch.equal(rows, whole)


def test_images_come_back_channels_last():
    spec = _spec((3, 4, 5))
    assert decoded(encoded(torch.randn(2, 3, 4, 5), spec), spec).stride() == (60, 1, 15, 3)
