"""Files of a small network: what they give, what they hold, and what becomes of an older one."""

from __future__ import annotations

import copy
import errno
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nearness import assert_near, is_near
from torch import nn

from edge_trgl.config.export_request import TARGETS
from edge_trgl.export.graph.stage import Normalisation
from edge_trgl.export.onnx_file import onnx_file, stream_reader, stream_writer
from edge_trgl.runtime.errors import ExportRejectedError, StorageError
from edge_trgl.runtime.storage import files


class FailingDisk(files.FileSystem):
    """Fails the operation number `failing` of those that change something, and all after it."""

    def __init__(self, failing):
        self.left = failing

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def pwrite(self, fd, data, offset):
        self._count()
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self._count()
        super().fsync(fd)

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def unlink(self, path):
        self._count()
        super().unlink(path)


def assert_gives(path, net, x, small):
    found = small.run_file(path, x)
    for number, expected in enumerate(net.infer(x), 1):
        assert_near(found[f"logits_{number}"], expected)


def initializers(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [255.0, 1.0])
@pytest.mark.parametrize("max_inside", [onnx_file.MAX_INSIDE_BYTES, 0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_exit_of_a_file_gives_the_networks_logits(tmp_path, exported, small, scale, max_inside, layout):
    net = small.network(scale)
    for trunk, _ in net.modules:
        trunk.to(memory_format=layout)
    path = exported(tmp_path, net.modules, net.normalisation, max_inside=max_inside)
    onnx.checker.check_model(str(path), full_check=True)
    for size in (1, 5, 64):
        assert_gives(path, net, small.images(size, scale), small)
    there = {file.name for file in tmp_path.iterdir() if "onnx" in file.name}
    assert there == ({"model.onnx"} if max_inside else {"model.onnx", "model.onnx.data"})


@pytest.mark.parametrize("max_inside", [onnx_file.MAX_INSIDE_BYTES, 0])
def test_every_weight_is_in_the_file_bit_for_bit(tmp_path, net, exported, max_inside):
    path = exported(tmp_path, net.modules, net.normalisation, max_inside=max_inside)
    expected = {
        f"module{number}/{part}.{name}": tensor.numpy()
        for number, module in enumerate(net.modules, 1)
        for part, layers in zip(("trunk", "head"), module, strict=True)
        for name, tensor in layers.state_dict().items()
        if "num_batches" not in name
    }
    found = initializers(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_weights_beside_the_model_begin_at_pages(tmp_path, net, exported):
    path = exported(tmp_path, net.modules, net.normalisation, max_inside=0)
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    assert {place["location"] for place in places} == {"model.onnx.data"}
    assert all(int(place["offset"]) % 65_536 == 0 for place in places)  # the largest pages there are
    ends = [int(place["offset"]) + int(place["length"]) for place in places]
    assert max(ends) == (tmp_path / "model.onnx.data").stat().st_size
    assert path.stat().st_size < 20_000


def test_the_limit_is_the_size_of_the_file(tmp_path, net, exported):
    path = exported(tmp_path, net.modules, net.normalisation)
    num_bytes = path.stat().st_size
    assert exported(tmp_path, net.modules, net.normalisation, max_inside=num_bytes).stat().st_size == num_bytes
    assert not (tmp_path / "model.onnx.data").exists()
    exported(tmp_path, net.modules, net.normalisation, max_inside=num_bytes - 1)
    assert (tmp_path / "model.onnx.data").exists()


def test_a_batch_of_a_fixed_size_refuses_others(tmp_path, net, exported, small):
    path = exported(tmp_path, net.modules, net.normalisation, batch=3)
    assert_gives(path, net, small.images(3), small)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Expected: 3"):
        small.run_file(path, small.images(2))


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_decides_opset_and_format(tmp_path, net, exported, small, target):
    path = exported(tmp_path, net.modules, net.normalisation, target=target)
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", TARGETS[target].opset)]
    assert model.ir_version == TARGETS[target].ir
    assert onnx.helper.find_min_ir_version_for(model.opset_import) <= model.ir_version
    assert_gives(path, net, small.images(2), small)


def test_names_and_metadata(tmp_path, net, exported):
    (trunk, _), last = net.modules
    path = exported(tmp_path, [(trunk, None), last], net.normalisation, metadata={"class_names": '["a", "ö"]'})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape, entry.type) == ("input", ["batch", 3, 8, 8], "tensor(float)")
    assert (result.name, result.shape) == ("logits", ["batch", 5])
    about = session.get_modelmeta()
    assert about.producer_name == "edge-trgl"
    assert json.loads(about.custom_metadata_map["class_names"]) == ["a", "ö"]


def test_shared_weights_are_written_once(tmp_path, exported, small):
    shared = nn.Conv2d(3, 3, 3, padding=1)
    trunk, head = nn.Sequential(shared, nn.ReLU(), shared), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    normalisation = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1, input_shape=small.SHAPE)
    path = exported(tmp_path, [(trunk, head)], normalisation)
    assert sum("trunk" in name and "weight" in name for name in initializers(path)) == 1
    x = small.images(2, 1.0)
    with torch.no_grad():
        assert_near(small.run_file(path, x)["logits"], head(trunk(x)))


def test_weights_that_are_equal_stay_two(tmp_path, exported, small):
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 5))
    normalisation = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1, input_shape=small.SHAPE)
    path = exported(tmp_path, [(trunk, head)], normalisation)
    assert {"module1/trunk.1.weight", "module1/trunk.4.weight"} <= initializers(path).keys()


def test_windows(tmp_path, exported, small):
    trunk = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU())
    head = nn.Sequential(nn.AvgPool1d(4), nn.Flatten(), nn.Linear(12, 5))
    normalisation = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), scale=1, input_shape=(3, 12))
    path = exported(tmp_path, [(trunk, head)], normalisation)
    x = torch.randn(5, 3, 12)
    with torch.no_grad():
        expected = head(trunk(normalisation(x)))
    assert_near(small.run_file(path, x)["logits"], expected)


def test_a_module_that_changes_nothing(tmp_path, net, exported, small):
    first, second = net.modules
    path = exported(tmp_path, [first, (nn.Sequential(), None), second], net.normalisation)
    x = small.images(2)
    expected = net.infer(x)
    for name, logits in zip(("logits_1", "logits_3"), expected, strict=True):
        assert_near(small.run_file(path, x)[name], logits)


def test_axes_are_counted_from_the_front(tmp_path, exported, small):
    class Turned(nn.Module):
        def forward(self, x):
            return x.permute(0, -1, 1)

    plain = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1, input_shape=(3, 4))
    path = exported(tmp_path, [(Turned(), nn.Flatten())], plain)
    x = torch.randn(2, 3, 4)
    assert torch.equal(small.run_file(path, x)["logits"], x.transpose(1, 2).flatten(1))


def test_an_operation_without_a_translation_is_named(tmp_path, exported, small, net):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(ExportRejectedError, match=r"opset 17.*bessel_j0"):
        exported(tmp_path, [(Odd(), nn.Flatten())], net.normalisation)
    assert not list(tmp_path.glob("model*"))


def test_a_graph_that_the_checker_refuses_is_kept_aside(tmp_path, net, unpublished, monkeypatch):
    def damaged(model, weights):
        model.graph.node[0].op_type = "NoSuchOperator"
        return original(model, weights)

    original = stream_writer.inside
    monkeypatch.setattr(stream_writer, "inside", damaged)
    with pytest.raises(ExportRejectedError, match=r"model\.onnx was refused by the ONNX checker"):
        unpublished(tmp_path, net.modules, net.normalisation)
    assert {file.name for file in tmp_path.glob("model*")} == {"model.onnx.rejected", "model.onnx.rejected.json"}
    assert "NoSuchOperator" in json.loads((tmp_path / "model.onnx.rejected.json").read_text())["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("before", [onnx_file.MAX_INSIDE_BYTES, 0])
@pytest.mark.parametrize("after", [onnx_file.MAX_INSIDE_BYTES, 0])
def test_an_interrupted_export_leaves_the_old_model_or_the_new(
    tmp_path, exported, joined, small, monkeypatch, before, after
):
    old, new, x = small.network(), small.network(1.0), small.images(2)
    written, folder = tmp_path / "old", tmp_path / "model"
    written.mkdir()
    exported(written, old.modules, old.normalisation, max_inside=before)
    model, weights = joined(tmp_path, new.modules, new.normalisation)
    failing, published = 0, False
    while not published:
        # Beside what the interruption before has left.
        path = shutil.copytree(written, folder, dirs_exist_ok=True) / "model.onnx"
        monkeypatch.setattr(files, "system", FailingDisk(failing))
        try:
            onnx_file.publish(onnx_file.write(copy.deepcopy(model), weights, path, max_inside=after))
            published = True
        except StorageError:
            failing += 1
        monkeypatch.setattr(files, "system", files.FileSystem())
        found = small.run_file(path, x)["logits_2"]
        matching = [net for net in (old, new) if is_near(found, net.infer(x)[1])]
        assert len(matching) == 1
        assert matching == [new] or not published
    assert failing > 8
    kept = {file.name for file in folder.glob("model.onnx.data*") if ".new" not in file.name}
    assert len(kept) == (0 if after else 1)


def test_the_old_weights_go_when_the_new_model_is_there(tmp_path, net, exported, small):
    for _ in range(3):
        path = exported(tmp_path, net.modules, net.normalisation, max_inside=0)
        assert_gives(path, net, small.images(2), small)
        assert len(list(tmp_path.glob("model.onnx.data*"))) == 1
    exported(tmp_path, net.modules, net.normalisation)
    assert not list(tmp_path.glob("model.onnx.data*"))


def test_a_model_of_others_is_replaced(tmp_path, net, exported, small):
    (tmp_path / "model.onnx").write_bytes(b"no model at all")
    assert_gives(exported(tmp_path, net.modules, net.normalisation), net, small.images(2), small)


@pytest.mark.parametrize("max_inside", [onnx_file.MAX_INSIDE_BYTES, 0])
def test_what_is_read_back_is_what_was_written(tmp_path, net, exported, max_inside):
    path = exported(tmp_path, net.modules, net.normalisation, max_inside=max_inside, metadata={"depth": "1,2"})
    found, expected = stream_reader.read(path), onnx.load(path)
    assert [(entry.key, entry.value) for entry in found.model.metadata_props] == [("depth", "1,2")]
    for name, value in initializers(path).items():
        np.testing.assert_array_equal(found.weights[name].read(), value, strict=True)
        assert b"".join(map(bytes, found.weights[name].slices())) == value.tobytes()
    del expected.graph.initializer[:]
    assert found.model == expected


def test_a_damaged_file_is_not_read(tmp_path, net, exported):
    path = exported(tmp_path, net.modules, net.normalisation)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="the field ends at"):
        stream_reader.read(path)
    path.write_bytes(data + b"\x07")
    with pytest.raises(ValueError, match="not the beginning of a protobuf field"):
        stream_reader.read(path)
