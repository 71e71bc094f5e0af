"""Writing, comparing and publishing on a small network whose batch norms have been trained."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edge_trgl.export import Comparison, Deployed, compare, describe, onnx_file, publish, write
from edge_trgl.runtime import files
from edge_trgl.runtime.errors import ExportRejectedError, StorageError

SHAPE = (3, 8, 8)
NAMES = ["cat", "dog", "öäü", "a,b", "e"]


class FullDisk(files.FileSystem):
    def pwrite(self, fd, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")


class Residual(nn.Module):
    """A block with the operations of a padded, strided shortcut."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        )

    def forward(self, x):
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)) + self.branch(x)


def network(scale=255.0):
    torch.manual_seed(3)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Residual())
    head = nn.Sequential(
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    model = Deployed(trunk, head, [0.5, 0.4, 0.3], [0.2, 0.3, 0.25], scale, SHAPE)
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    for _ in range(3):
        model(torch.rand(16, *SHAPE) * scale)
    return model


def batch(model, num_images, seed=0):
    images = torch.rand(num_images, *SHAPE, generator=torch.Generator().manual_seed(seed)) * model.scale
    with torch.no_grad():
        return images.numpy(), model.eval()(images).numpy()


@pytest.fixture
def written(tmp_path):
    model = network()
    path = tmp_path / "model.onnx.new"
    write(model, path, input_shape=SHAPE, metadata=describe(model, NAMES))
    return model, path


def sabotage(path):
    """Change one weight of the file by a little."""
    model = onnx.load(path)
    (weight,) = (t for t in model.graph.initializer if t.name == "head.5.bias")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1)])
def test_deployed_normalises_then_runs_trunk_and_head(shape):
    model = Deployed(nn.Identity(), nn.Flatten(), [0.5, 0.25], [0.5, 0.125], 255, shape)
    images = torch.tensor([255.0, 127.5]).reshape(1, *shape)
    assert model(images).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("mean", "std", "scale"), [([0.0], [1.0, 1.0], 1), ([0.0], [0.0], 1), ([0.0], [1.0], 0)])
def test_deployed_refuses_impossible_normalisation(mean, std, scale):
    with pytest.raises(ValueError, match="std"):
        Deployed(nn.Identity(), nn.Flatten(), mean, std, scale, (1, 1, 1))


@pytest.mark.parametrize("scale", [255.0, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_round_trip_with_batches_of_one_and_five(tmp_path, scale, layout):
    model = network(scale).to(memory_format=layout)
    path = tmp_path / "model.onnx"
    write(model, path, input_shape=SHAPE, metadata={})
    comparison = compare(path, [batch(model, 1), batch(model, 5, seed=1)])
    assert comparison.ok
    assert comparison.num_images == 6
    assert comparison.max_abs_diff < 1e-5
    assert comparison.top1_agreement == 1.0
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_is_left_in_eval_mode(tmp_path):
    model = network()
    assert model.training
    write(model, tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert not model.training


def test_every_weight_is_in_the_file_bit_for_bit(written):
    model, path = written
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    expected = {name: t.numpy() for name, t in model.state_dict().items() if "num_batches" not in name}
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)


def test_shared_weights_are_written_once(tmp_path):
    shared = nn.Conv2d(3, 3, 3, padding=1)
    trunk = nn.Sequential(shared, nn.ReLU(), shared)
    model = Deployed(trunk, nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), [0.0] * 3, [1.0] * 3, 1, SHAPE)
    write(model, tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    names = [t.name for t in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert len(names) == len(set(names))
    assert sum("trunk" in name and "weight" in name for name in names) == 1
    assert compare(tmp_path / "model.onnx", [batch(model, 2)]).ok


def test_untrained_batch_norms_whose_tensors_are_equal_come_through(tmp_path):
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 5))
    model = Deployed(trunk, head, [0.0] * 3, [1.0] * 3, 1, SHAPE)
    write(model, tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert compare(tmp_path / "model.onnx", [batch(model, 2)]).ok


def test_windows(tmp_path):
    trunk = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU())
    head = nn.Sequential(nn.AvgPool1d(4), nn.Flatten(), nn.Linear(12, 5))
    model = Deployed(trunk, head, [0.5, 0.4, 0.3], [0.2, 0.3, 0.25], 1, (3, 12))
    metadata = describe(model, NAMES)
    assert "windows [N, C, L]" in metadata["preprocessing"]
    write(model, tmp_path / "model.onnx", input_shape=(3, 12), metadata=metadata)
    windows = torch.randn(5, 3, 12)
    with torch.no_grad():
        assert compare(tmp_path / "model.onnx", [(windows.numpy(), model(windows).numpy())]).ok


def test_names_versions_and_metadata(written):
    _, path = written
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape, entry.type) == ("input", ["batch", 3, 8, 8], "tensor(float)")
    assert (result.name, result.shape) == ("logits", ["batch", 5])
    model = onnx.load(path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert model.producer_name == "edge-trgl"
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == NAMES
    assert metadata["preprocessing"] == (
        "Give float32 images [N, C, H, W] with values from 0 to 255; (input / 255 - mean) / std, "
        "mean [0.5, 0.4, 0.3], std [0.2, 0.3, 0.25], is part of the graph."
    )


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_opset_is_the_one_asked_for(tmp_path, opset):
    model = network()
    write(model, tmp_path / "model.onnx", input_shape=SHAPE, metadata={}, opset=opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    assert compare(tmp_path / "model.onnx", [batch(model, 3)]).ok


def test_a_good_file_is_published_over_the_old_one(written, tmp_path):
    model, path = written
    final = tmp_path / "model.onnx"
    final.write_bytes(b"old")
    data = path.read_bytes()
    publish(path, final, compare(path, [batch(model, 4)]))
    assert final.read_bytes() == data
    assert list(tmp_path.iterdir()) == [final]


def test_a_sabotaged_file_is_rejected_and_kept(written, tmp_path):
    model, path = written
    final = tmp_path / "model.onnx"
    final.write_bytes(b"old but good")
    sabotage(path)
    data = path.read_bytes()
    comparison = compare(path, [batch(model, 4)])
    assert not comparison.ok
    assert comparison.max_abs_diff == pytest.approx(0.01, rel=1e-2)
    with pytest.raises(ExportRejectedError, match=r"over 4 images .* 0\.01, the median 0\.01") as caught:
        publish(path, final, comparison)
    assert "model.onnx.rejected" in caught.value.hint
    assert final.read_bytes() == b"old but good"
    assert (tmp_path / "model.onnx.rejected").read_bytes() == data
    assert not path.exists()


def test_comparison_numbers(written):
    model, path = written
    images, logits = batch(model, 3)
    logits = logits.copy()
    logits[0, 0] += 1000
    logits[1, 0] += 5e-5
    comparison = compare(path, [(images, logits)])
    assert not comparison.ok
    assert comparison.max_abs_diff == pytest.approx(1000, rel=1e-3)
    assert comparison.median_abs_diff == pytest.approx(5e-5, rel=0.1)
    assert comparison.top1_agreement == pytest.approx(
        (int(logits[0].argmax() == (logits[0] - np.eye(5)[0] * 1000).argmax()) + 2) / 3
    )


def test_tolerance_decides(written):
    model, path = written
    images, logits = batch(model, 2)
    assert not compare(path, [(images, logits + 1e-3)]).ok
    assert compare(path, [(images, logits + 1e-3)], tolerance=2e-3).ok


def test_nan_and_nothing_are_not_ok(written):
    model, path = written
    images, logits = batch(model, 2)
    assert not compare(path, [(images, np.full_like(logits, np.nan))]).ok
    assert compare(path, []) == Comparison(
        num_images=0, max_abs_diff=0.0, median_abs_diff=0.0, top1_agreement=0.0, ok=False
    )


def test_a_file_over_the_limit_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", 4000)
    with pytest.raises(ExportRejectedError, match="MiB at most") as caught:
        write(network(), tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert "smaller depth" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_predicted_size_is_the_size_of_the_file(written, tmp_path, monkeypatch):
    model, path = written
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", path.stat().st_size)
    write(model, tmp_path / "fits.onnx", input_shape=SHAPE, metadata=describe(model, NAMES))
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(ExportRejectedError):
        write(model, tmp_path / "large.onnx", input_shape=SHAPE, metadata=describe(model, NAMES))


def test_an_operation_without_a_translation_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    model = Deployed(Odd(), nn.Flatten(), [0.0] * 3, [1.0] * 3, 1, SHAPE)
    with pytest.raises(ExportRejectedError, match=r"opset 17.*bessel_j0"):
        write(model, tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_file_the_checker_refuses_is_kept_aside(tmp_path, monkeypatch):
    def damaged(graph, weights):
        graph.graph.node[0].op_type = "NoSuchOperator"
        return original(graph, weights)

    original = onnx_file.stream
    monkeypatch.setattr(onnx_file, "stream", damaged)
    with pytest.raises(ExportRejectedError, match=r"model\.onnx was refused by the ONNX checker"):
        write(network(), tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx.rejected"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"old")
    monkeypatch.setattr(files, "system", FullDisk())
    with pytest.raises(StorageError, match="the disk is full"):
        write(network(), tmp_path / "model.onnx", input_shape=SHAPE, metadata={})
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"old"


MEMORY = """
import sys
from pathlib import Path
import torch
from torch import nn
from edge_trgl.export import write

def high_water_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def network(width):
    layers = [nn.Conv2d(3, width, 3)] + [nn.Conv2d(width, width, 1) for _ in range(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)

torch.set_num_threads(1)
folder = Path(sys.argv[1])
write(network(8), folder / "warm-up.onnx", input_shape=(3, 4, 4), metadata={})
model = network(2048)
before = high_water_mb()
write(model, folder / "model.onnx", input_shape=(3, 4, 4), metadata={})
print((high_water_mb() - before) / ((folder / "model.onnx").stat().st_size / 2**20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_writing_costs_less_than_two_and_a_half_copies_of_the_file(tmp_path):
    result = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 2.5
