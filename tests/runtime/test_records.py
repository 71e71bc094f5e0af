"""What becomes JSON comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.runtime.records import document_of, from_json, read_record, to_json


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    size: float | None = None


@dataclass(frozen=True, kw_only=True)
class Other:
    reason: str


@dataclass(frozen=True, kw_only=True)
class Whole:
    first: Part
    others: tuple[Part, ...]
    pair: tuple[int, str]
    by_name: Mapping[str, Part]
    by_number: Mapping[int, float]
    kind: Literal["stream", "cache"]
    shapes: tuple[tuple[int, ...], ...]
    mixed: int | str
    lines: Sequence[str]
    either: Part | Other
    maybe: Part | None = None


FLOATS = st.floats(allow_nan=False)
PARTS = st.builds(Part, name=st.text(), size=st.none() | FLOATS)
WHOLES = st.builds(
    Whole,
    first=PARTS,
    others=st.lists(PARTS, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
    by_name=st.dictionaries(st.text(), PARTS, max_size=3),
    by_number=st.dictionaries(st.integers(), FLOATS, max_size=3),
    kind=st.sampled_from(["stream", "cache"]),
    shapes=st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple),
    mixed=st.integers() | st.text(),
    lines=st.lists(st.text(), max_size=3),
    either=PARTS | st.builds(Other, reason=st.text()),
    maybe=st.none() | PARTS,
)


@given(WHOLES)
def test_a_record_comes_back_from_json_as_it_was(whole):
    assert read_record(Whole, json.loads(json.dumps(document_of(whole)))) == whole


@given(st.lists(st.dictionaries(st.text(), PARTS, max_size=2), max_size=2))
def test_records_in_lists_and_mappings_come_back_as_well(values):
    document = json.loads(json.dumps(to_json(values)))
    assert from_json(Sequence[Mapping[str, Part]], document) == values


def test_what_json_has_no_name_for_is_a_list_at_any_depth():
    assert document_of(Part(name="a")) == {"name": "a", "size": None}
    assert to_json({"pairs": ((1, 2), [Part(name="b")])}) == {"pairs": [[1, 2], [{"name": "b", "size": None}]]}


def test_what_is_left_out_has_its_default():
    assert read_record(Part, {"name": "a"}) == Part(name="a")


@pytest.mark.parametrize("document", [{"size": 1.0}, {"name": "a", "weight": 2}])
def test_a_missing_or_unknown_field_is_an_error(document):
    with pytest.raises(TypeError):
        read_record(Part, document)


def test_an_integer_where_a_number_is_expected_becomes_one():
    found = read_record(Part, {"name": "a", "size": 3})
    assert isinstance(found.size, float)
    assert found == replace(Part(name="a"), size=3.0)
