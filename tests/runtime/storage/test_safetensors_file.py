"""One safetensors file: any tensor comes back bit for bit, nothing else does, and nothing is held twice."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import safetensors_file
from edge_trgl.runtime.storage.checksum import Checksum

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def random_tensor(dtype, shape):
    """Any bit pattern of the dtype, NaNs included."""
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    num_bytes = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (num_bytes,), dtype=torch.uint8).view(dtype).view(shape)


def bits(tensor):
    return bytes(safetensors_file.bytes_of(tensor.contiguous()))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor), name


def empty_like(tensors):
    """Targets of the same strides: `read_into` must respect them."""
    return {name: torch.empty_like(tensor) for name, tensor in tensors.items()}


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "trunk.weight": torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last),
        "head.bias": torch.nn.Parameter(torch.randn(5)),
        "num_batches": torch.tensor(7),
        "none": torch.empty(0, 3),
        "transposed": torch.randn(6, 4).bfloat16().t(),
    }


shapes = st.lists(st.integers(0, 5), max_size=4)
layouts = st.sampled_from(["contiguous", "transposed", "every_second"])


def laid_out(tensor, layout):
    if tensor.dim() == 0 or layout == "contiguous":
        return tensor
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), shapes, layouts), max_size=5),
    st.sampled_from([7, 64, safetensors_file.SLICE_BYTES]),
)
def test_round_trip(specs, slice_bytes):
    """Small slices take every way through the cutting of tensors."""
    given_tensors = {
        f"tensor {i}": laid_out(random_tensor(dtype, shape), layout)
        for i, (dtype, shape, layout) in enumerate(specs)
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_file, "SLICE_BYTES", slice_bytes)
        path = Path(folder) / "file"
        record = safetensors_file.write(path, given_tensors, durable=False)
        found = empty_like(given_tensors)
        safetensors_file.read_into(path, found, record)
        assert_same(found, given_tensors)
        assert_same(safetensors.torch.load_file(path), given_tensors)
        assert (record.num_bytes, record.checksum) == (
            path.stat().st_size,
            Checksum(path.read_bytes()).hexdigest(),
        )


def test_read_into_keeps_memory_strides_and_parameters(tmp_path, tensors):
    record = safetensors_file.write(tmp_path / "file", tensors, durable=False)
    found = {**empty_like(tensors), "head.bias": torch.nn.Parameter(torch.zeros(5))}
    before = {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in found.items()}
    safetensors_file.read_into(tmp_path / "file", found, record)
    assert {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in found.items()} == before
    assert_same(found, tensors)
    assert found["head.bias"].requires_grad


def test_we_read_what_the_library_writes(tmp_path, tensors):
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, tmp_path / "file", metadata={"made": "elsewhere"})
    data = (tmp_path / "file").read_bytes()
    record = safetensors_file.FileRecord(name="file", num_bytes=len(data), checksum=Checksum(data).hexdigest())
    found = empty_like(tensors)
    safetensors_file.read_into(tmp_path / "file", found, record)
    assert_same(found, tensors)


def test_header_tells_where_each_tensor_lies_in_the_file(tmp_path, tensors):
    safetensors_file.write(tmp_path / "file", tensors, durable=False, metadata={"module": "3"})
    data = (tmp_path / "file").read_bytes()
    infos = safetensors_file.read_header(tmp_path / "file")
    assert list(infos) == list(tensors)
    for name, tensor in tensors.items():
        assert (infos[name].dtype, infos[name].shape) == (tensor.dtype, tuple(tensor.shape))
        assert data[infos[name].start : infos[name].stop] == bits(tensor)
    assert infos["trunk.weight"].start % 8 == 0
    with safetensors.safe_open(tmp_path / "file", "pt") as opened:
        assert opened.metadata() == {"module": "3"}


def test_a_durable_write_waits_for_the_disk_and_another_does_not(tmp_path, tensors, faults, use_system):
    system = use_system(faults.FaultySystem())
    safetensors_file.write(tmp_path / "file", tensors, durable=False)
    assert "fsync" not in system.calls
    safetensors_file.make_durable(tmp_path / "file")
    assert system.calls[-4:] == ["open", "fsync", "open", "fsync"]
    safetensors_file.write(tmp_path / "file", tensors, durable=True)
    assert system.calls[-4:] == ["fsync", "rename", "open", "fsync"]


@pytest.mark.parametrize("keeps_entries", [False, True])
def test_file_made_durable_later_survives_a_power_cut(tmp_path, tensors, faults, use_system, keeps_entries):
    system = use_system(faults.PowerCutSystem(tmp_path, 999, keeps_entries=keeps_entries, keeps_bytes=False))
    record = safetensors_file.write(tmp_path / "kept", tensors, durable=False)
    safetensors_file.make_durable(tmp_path / "kept")
    safetensors_file.write(tmp_path / "lost", tensors, durable=False)
    use_system()
    system.cut()
    found = empty_like(tensors)
    safetensors_file.read_into(tmp_path / "kept", found, record)
    assert_same(found, tensors)
    assert not (tmp_path / "lost").exists() or (tmp_path / "lost").read_bytes() == b""


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "short", "crash"])
def test_every_operation_of_a_write_may_fail(tmp_path, tensors, faults, use_system, fault):
    path = tmp_path / "file"
    old = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    counted = use_system(faults.FaultySystem())
    new_record = safetensors_file.write(path, tensors, durable=True)
    for at in range(1, len(counted.calls) + 1):
        use_system()
        old_record = safetensors_file.write(path, old, durable=True)
        system = use_system(faults.FaultySystem(fault, at))
        with contextlib.nullcontext() if fault == "short" else pytest.raises((StorageError, faults.Crash)):
            safetensors_file.write(path, tensors, durable=True)
        use_system()
        assert system.has_failed
        # Only opening and syncing the folder come after the rename.
        is_new = fault == "short" or at > len(counted.calls) - 2
        found = empty_like(tensors)
        safetensors_file.read_into(path, found, new_record if is_new else old_record)
        assert_same(found, tensors if is_new else old)
        assert fault == "crash" or [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fault", ["EIO", "short"])
def test_every_operation_of_a_read_may_fail(tmp_path, tensors, faults, use_system, fault):
    record = safetensors_file.write(tmp_path / "file", tensors, durable=False)
    counted = use_system(faults.FaultySystem())
    safetensors_file.read_into(tmp_path / "file", empty_like(tensors), record)
    for at in range(1, len(counted.calls) + 1):
        use_system(faults.FaultySystem(fault, at))
        found = empty_like(tensors)
        if fault == "short":
            safetensors_file.read_into(tmp_path / "file", found, record)
            assert_same(found, tensors)
        else:
            with pytest.raises(StorageError, match="input/output error"):
                safetensors_file.read_into(tmp_path / "file", found, record)


def test_every_flipped_byte_is_found(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False])}
    path = tmp_path / "file"
    record = safetensors_file.write(path, tensors, durable=False, metadata={"module": "3"})
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in (0x01, 0x80):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            with pytest.raises(StorageError, match=str(path)):
                safetensors_file.read_into(path, empty_like(tensors), record)


def test_every_cut_is_found(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3)}
    path = tmp_path / "file"
    record = safetensors_file.write(path, tensors, durable=False)
    data = path.read_bytes()
    for length in [*range(len(data)), len(data) + 1]:
        path.write_bytes((data + b"\0")[:length])
        with pytest.raises(StorageError, match=f"it has {length} bytes where {len(data)} were written"):
            safetensors_file.read_into(path, empty_like(tensors), record)
        with pytest.raises(StorageError):
            safetensors_file.read_header(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b": torch.zeros(2)}, "'a' is not expected"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(2), "c": torch.zeros(1)}, "'c' is missing"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(2)}, r"'a' is F32 \[2, 3\], expected F32 \[3, 2\]"),
        (
            {"a": torch.zeros(2, 3), "b": torch.zeros(2).bfloat16()},
            r"'b' is F32 \[2\], expected BF16 \[2\]",
        ),
    ],
)
def test_another_set_of_tensors_is_named(tmp_path, changed, message):
    record = safetensors_file.write(tmp_path / "file", {"a": torch.ones(2, 3), "b": torch.ones(2)}, durable=False)
    with pytest.raises(StorageError, match=message):
        safetensors_file.read_into(tmp_path / "file", changed, record)
    assert all((tensor == 0).all() for tensor in changed.values())


def test_another_file_of_the_same_form_is_found(tmp_path):
    safetensors_file.write(tmp_path / "file", {"a": torch.ones(3)}, durable=False)
    other = safetensors_file.write(tmp_path / "other", {"a": torch.zeros(3)}, durable=False)
    with pytest.raises(StorageError, match="its checksum is"):
        safetensors_file.read_into(tmp_path / "file", {"a": torch.zeros(3)}, other)
    missing = dataclasses.replace(other, name="missing")
    with pytest.raises(StorageError, match="does not exist"):
        safetensors_file.read_into(tmp_path / missing.name, {"a": torch.zeros(3)}, missing)


@pytest.mark.slow
def test_no_second_copy_of_a_large_tensor(tmp_path):
    """Writing and reading 96 MiB, in order and not, needs one slice and no copy."""
    code = """
import sys, torch
from pathlib import Path
from edge_trgl.runtime.storage import safetensors_file
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
big = {"in order": torch.ones(12 << 20), "transposed": torch.ones(4096, 3072).t()}
small = {"a": torch.ones(3, 3).t()}
path = Path(sys.argv[1])
record = safetensors_file.write(path, small, durable=True)
safetensors_file.read_into(path, small, record)
start = peak()
record = safetensors_file.write(path, big, durable=False)
safetensors_file.read_into(path, big, record)
print(peak() - start, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    growth_mb, has_dynamo = done.stdout.split()
    assert float(growth_mb) < 2 * safetensors_file.SLICE_BYTES / 2**20
    assert has_dynamo == "False"


@given(chosen=st.sets(st.sampled_from(["first", "middle", "last"])))
@settings(max_examples=20)
def test_some_tensors_of_a_file_are_read_and_all_bytes_checked(chosen):
    tensors = {
        name: random_tensor(torch.float32, (3, size))
        for name, size in zip(("first", "middle", "last"), (5, 0, 7), strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        record = safetensors_file.write(path, tensors, durable=False)
        wanted = {name: tensors[name] for name in chosen}
        found = empty_like(wanted)
        safetensors_file.read_some_into(path, found, record)
        assert_same(found, wanted)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1  # the last byte of a tensor that may be one of those not wanted
        path.write_bytes(data)
        with pytest.raises(StorageError, match="checksum"):
            safetensors_file.read_some_into(path, found, record)


def test_some_tensors_must_be_in_the_file(tmp_path):
    record = safetensors_file.write(tmp_path / "file", {"there": torch.zeros(2)}, durable=False)
    with pytest.raises(StorageError, match="'absent' is missing"):
        safetensors_file.read_some_into(tmp_path / "file", {"absent": torch.zeros(2)}, record)
    with pytest.raises(StorageError, match=r"'there' is F32 \[2\], expected F32 \[3\]"):
        safetensors_file.read_some_into(tmp_path / "file", {"there": torch.zeros(3)}, record)
