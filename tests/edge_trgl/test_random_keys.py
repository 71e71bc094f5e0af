"""Keys are stable, 63-bit, and different for different parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.random_keys import key

PARTS = st.lists(st.integers() | st.text(), max_size=4)


@given(PARTS, PARTS)
def test_different_parts_give_different_keys(first, second):
    assert (key(*first) == key(*second)) == (first == second)


@given(PARTS)
def test_a_key_fits_63_bits(parts):
    assert 0 <= key(*parts) < 2**63


def test_the_encoding_is_frozen():
    assert key(0, "order", 1) == 3119674941621380089
    assert len({key("a", "bc"), key("ab", "c"), key("abc"), key("a", "b", "c")}) == 4
    assert key(1) != key("1")
