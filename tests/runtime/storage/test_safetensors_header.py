"""The header of a safetensors file: a contradiction is refused, and nothing is allocated for it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import safetensors_file
from edge_trgl.runtime.storage.safetensors_file import TensorInfo


def framed(header, data):
    return len(header).to_bytes(8, "little") + header + data


F32 = {"dtype": "F32", "shape": [1]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff{}", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read"),
        (b'{"a": {}, "a": {}}', "cannot be read"),
        ([], "not an object"),
        ({"__metadata__": []}, "metadata is not text"),
        ({"__metadata__": {"a": 1}}, "metadata is not text"),
        ({"a": None}, "'a' contradicts"),
        ({"a": F32}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [0, 4], "more": 1}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [0, 4, 8]}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [0, 4.0]}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [4, 0]}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [8, 12]}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [0, 8]}}, "'a' contradicts"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "'a' contradicts"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "'a' contradicts"),
        ({"a": {"dtype": "F32", "shape": [2**62] * 1000, "data_offsets": [0, 8]}}, "'a' contradicts"),
        ({"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}, "'a' contradicts"),
        ({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, "'a' contradicts"),
        ({"a": {**F32, "data_offsets": [0, 4]}}, "end at byte"),
        ({"a": {**F32, "data_offsets": [4, 8]}}, "overlap or leave a gap"),
        ({"a": {**F32, "data_offsets": [0, 4]}, "b": {**F32, "data_offsets": [0, 4]}}, "overlap or leave"),
        ({}, "end at byte"),
    ],
)
def test_damaged_header_is_refused(tmp_path, header, message):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "file").write_bytes(framed(text, bytes(8)))
    with pytest.raises(StorageError, match=message):
        safetensors_file.read_header(tmp_path / "file")


@pytest.mark.parametrize("length", [9, 2**31, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_is_refused_before_anything_is_allocated(tmp_path, length):
    (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + b"{}      ")
    with pytest.raises(StorageError, match=f"claims {length} bytes, the file has 16"):
        safetensors_file.read_header(tmp_path / "file")


def test_header_over_the_limit_is_refused_before_anything_is_allocated(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.write((safetensors_file.MAX_HEADER_BYTES + 8).to_bytes(8, "little"))
        file.truncate(2 * safetensors_file.MAX_HEADER_BYTES)
    with pytest.raises(StorageError, match="its header claims"):
        safetensors_file.read_header(tmp_path / "file")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)
sizes = st.lists(st.integers(-1, 9) | json_values, max_size=3) | json_values
entries = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "U8", "F8"]) | json_values, "shape": sizes, "data_offsets": sizes}
)
headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entries | json_values, max_size=3)


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda header, data: framed(json.dumps(header).encode(), data), headers, st.binary(max_size=16)),
    )
)
def test_any_bytes_are_either_a_header_or_a_storage_error(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        with contextlib.suppress(StorageError):
            infos = safetensors_file.read_header(path)
            assert all(isinstance(info, TensorInfo) and info.stop <= len(data) for info in infos.values())
            assert sum(info.stop - info.start for info in infos.values()) <= len(data)


@settings(max_examples=400)
@given(st.data())
def test_whatever_we_accept_the_library_accepts(data):
    """Mutations of a good file: a reader that takes more than the format allows would hide damage."""
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
        }
    ).encode()
    content = bytearray(framed(header, bytes(11)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        with contextlib.suppress(StorageError):
            infos = safetensors_file.read_header(path)
            assert set(safetensors.torch.load(bytes(content))) == set(infos)
