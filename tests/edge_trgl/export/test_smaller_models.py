"""Trained runs in smaller forms, what is written, what is refused, what is left behind."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from plans import PLENTY

from edge_trgl.cli.predict import predict
from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy import Predictor, latency
from edge_trgl.deploy.latency import measure_latency
from edge_trgl.export import smaller_models
from edge_trgl.export.check_models import check_models
from edge_trgl.export.compare import verdicts
from edge_trgl.export.int8 import activation_ranges
from edge_trgl.export.int8.ranges import METHODS
from edge_trgl.export.smaller_models import write_smaller
from edge_trgl.export.write_models import write_models
from edge_trgl.run.export_record import FileRecord
from edge_trgl.runtime.errors import ExportRejectedError, InputError, OverBudgetError
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits

WIDE = {"data__limit": 400, "data__validation": 0.4, "train__epochs": "3", "model__width": 8}
MLP = """
    from torch import nn

    from edge_trgl.networks.chain import Chain

    def net(input_shape, num_classes):
        first = lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 24), nn.ReLU())
        block = lambda: nn.Sequential(nn.Linear(24, 24), nn.ReLU())
        return Chain.from_blocks([first, block], input_shape=input_shape, num_classes=num_classes)
"""


def deploy(run, depth="chosen", target="generic", batch="dynamic"):
    """model.onnx, as `Pipeline.export` writes it."""
    written = write_models(run, depth=depth, target=target, batch=batch, limits=PLENTY)
    return check_models(run, written=written, export_mb=300.0, others_mb=0.0, limits=PLENTY)


def shrink(run, form):
    return write_smaller(run, form=form, others_mb=0.0, limits=PLENTY)


@pytest.fixture
def trained(trained_copy):
    return trained_copy("run", **WIDE).run


@pytest.fixture(scope="session")
def frequencies(tmp_path_factory):
    """Windows of three frequencies, as an archive."""
    draws, y = np.random.default_rng(0), np.arange(420) % 3
    turns = (1 + 2 * y)[:, None, None] * np.arange(32) / 32 + draws.uniform(size=(420, 1, 1))
    x = (np.sin(2 * np.pi * turns) + draws.normal(0, 0.3, (420, 3, 32))).astype(np.float32)
    archive = tmp_path_factory.mktemp("frequencies") / "windows.npz"
    np.savez(archive, x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:], axes="NCL")
    return str(archive)


@pytest.fixture
def windows(trained_copy, frequencies):
    """A net of one-dimensional convolutions, trained on windows of three frequencies."""
    return trained_copy("run", **{**WIDE, "data__source": frequencies, "data__limit": None}).run


@pytest.fixture
def mlp(trained_copy, tmp_path, monkeypatch):
    """A net of nothing but linear layers."""
    (tmp_path / "mlp_to_shrink.py").write_text(textwrap.dedent(MLP))
    monkeypatch.syspath_prepend(str(tmp_path))
    return trained_copy("run", **WIDE, model__name="mlp_to_shrink:net").run


def samples_of(run, split="val"):
    """What a user gives, [N, ...], and the labels."""
    reader = RecordReader(run.data, split, open_dataset(run.data))
    records = reader.read(np.arange(len(reader))).astype(np.float32)
    reader.close()
    return np.moveaxis(records, -1, 1), reader.labels


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort", "jetpack5"])
@pytest.mark.parametrize("family", ["trained", "windows", "mlp"])
def test_int8_is_as_accurate(request, family, target):
    run = request.getfixturevalue(family)
    deploy(run, "last", target)
    document = shrink(run, "int8")
    assert document.accuracy_fp32 - document.accuracy <= 0.02
    assert document.top1_agreement >= 0.9
    assert document.method in METHODS
    assert list(document.methods) == list(METHODS)
    x, labels = samples_of(run)
    whole, small = (Predictor(run.folder / name, "cpu").predict(x) for name in ("model.onnx", "model.int8.onnx"))
    assert (whole.labels == labels).mean() == pytest.approx(document.accuracy_fp32)
    assert (small.labels == whole.labels).mean() >= 0.9
    assert not np.array_equal(small.logits, whole.logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # Behind every Conv, and 3 tensors a module that did not leave one; biases of 5 folded norms and 3 Gemms.
        ("generic", (12 + 9, 12 + 9 + 15 + 8)),
        # No two of these read the same tensor.
        ("jetpack6", (15 + 15, 15 + 15)),
    ],
)
def test_nodes_of_a_trained_net(trained, target, expected):
    """Every exit of km-3-1 has 12 Convs, the heads' among them, and 3 Gemms."""
    deploy(trained, "all", target)
    shrink(trained, "int8")
    found = kinds(trained.smaller_file("int8"))
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == expected


@pytest.mark.parametrize("family", ["trained", "windows", "mlp"])
def test_fp16_is_half_the_size_and_the_same(request, family):
    run = request.getfixturevalue(family)
    exported = deploy(run, "last")
    document = shrink(run, "fp16")
    assert document.num_bytes < (0.6 if family == "mlp" else 0.8) * exported.num_bytes
    assert document.max_relative_diff < 1e-2
    x, _ = samples_of(run)
    whole, small = (Predictor(run.folder / name, "cpu").predict(x) for name in ("model.onnx", "model.fp16.onnx"))
    assert np.abs(whole.logits - small.logits).max() < 1e-2 * np.abs(whole.logits).max()


def test_int8_of_linear_layers_is_a_quarter(mlp):
    exported = deploy(mlp, "last")
    assert shrink(mlp, "int8").num_bytes < 0.4 * exported.num_bytes


@pytest.mark.slow
def test_every_exit_and_a_fixed_batch(trained):
    deploy(trained, "all", batch="7")
    for form in ("int8", "fp16"):
        document = shrink(trained, form)
        assert [one.depth for one in document.exits] == [1, 2, 3]
        assert {one.num_images for one in document.exits} == {160}
        graph = onnx.load(trained.smaller_file(form)).graph
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 7
        assert [value.name for value in graph.output] == ["logits_1", "logits_2", "logits_3"]


def test_what_is_said_of_the_file(trained):
    deploy(trained, "last")
    document = shrink(trained, "int8")
    path = trained.smaller_file("int8")
    data = path.read_bytes()
    (file,) = document.files
    assert file == FileRecord(name=path.name, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert document.num_calibrated == 240
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert metadata["precision"] == "int8"
    assert len(json.loads(metadata["class_names"])) == 10
    assert not list(trained.folder.glob("*.new"))
    assert not list(trained.scratch.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ((0.010, 0.010, 0.0), "entropy"),
        ((0.0009, 0.0, 0.0), "minmax"),
        ((0.02, 0.001, 0.0), "percentile"),
        ((0.0, 0.5, -0.001), "minmax"),
    ],
)
def test_the_first_method_near_the_best_is_taken(trained, monkeypatch, losses, chosen):
    deploy(trained, "1")
    given = iter(losses)
    monkeypatch.setattr(smaller_models, "largest_loss", lambda verdicts: next(given))
    monkeypatch.setattr(verdicts, "LARGEST_LOSS", 1.0)  # what each of them truly loses is not asked here
    document = shrink(trained, "int8")
    assert document.method == chosen
    assert [one.loss for one in document.methods.values()] == list(losses)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "limit"), [("int8", "LARGEST_LOSS"), ("fp16", "LARGEST_DIFFERENCE")])
def test_what_is_not_as_good_is_kept_as_rejected(trained, monkeypatch, form, limit):
    deploy(trained, "1")
    shrink(trained, form)
    path = trained.smaller_file(form)
    good = path.read_bytes()
    monkeypatch.setattr(verdicts, limit, -1.0)
    with pytest.raises(ExportRejectedError, match=rf"model\.{form}\.onnx .* at depth 1") as caught:
        shrink(trained, form)
    assert caught.value.exit_code == 7
    assert path.read_bytes() == good
    kept = path.with_name(path.name + ".rejected")
    assert kept.is_file()
    assert json.loads(kept.with_name(kept.name + ".json").read_text())["reason"] == caught.value.message
    assert not list(trained.scratch.iterdir())


def test_a_new_export_takes_the_smaller_files_of_the_old_one_away(trained):
    deploy(trained, "last")
    shrink(trained, "fp16")
    assert trained.smaller_file("fp16").is_file()
    deploy(trained, "1")
    assert not trained.smaller_file("fp16").exists()


def test_no_more_than_a_batch_is_ever_counted_at_once(trained, monkeypatch):
    deploy(trained, "last")
    sizes, original = [], activation_ranges.Histogram.add

    def add(histogram, values):
        sizes.append(len(values))
        original(histogram, values)

    monkeypatch.setattr(activation_ranges.Histogram, "add", add)
    shrink(trained, "int8")
    assert max(sizes) == trained.config().train.batch_size
    assert sum(sizes) % 240 == 0


def test_images_come_from_all_over_the_split(trained):
    found = smaller_models._Samples(trained, "train", 6, 4)
    x, labels = samples_of(trained, "train")
    assert found.images.labels(range(6)).tolist() == labels[::40].tolist()
    parts = [found.images.pixels(samples).copy() for samples in found.batches]
    np.testing.assert_array_equal(np.concatenate(parts), x[::40])
    found.reader.close()


def test_the_files_are_measured_in_turn(trained):
    deploy(trained, "1", batch="2")
    shrink(trained, "int8")
    document = measure_latency([trained.onnx_file, trained.smaller_file("int8")], others_mb=0.0, limits=PLENTY)
    assert list(document.p50_ms) == ["model.onnx", "model.int8.onnx"]
    assert all(found > 0 for found in document.p50_ms.values())
    assert (document.threads, document.batch) == (1, 2)


@pytest.mark.parametrize(
    ("reason", "told"), [("std::bad_alloc", OverBudgetError), ("no such operation", InputError)]
)
def test_files_that_the_budget_has_no_room_for_are_not_called_bad(trained, monkeypatch, reason, told):
    def refuse(*arguments, **options):
        raise InputError("model.onnx cannot be loaded") from onnxruntime_errors.RuntimeException(reason)

    monkeypatch.setattr(latency.bench, "side_by_side", refuse)
    with pytest.raises(told):
        measure_latency([trained.onnx_file], others_mb=0.0, limits=PLENTY)


def test_predict_takes_an_int8_file(trained, tmp_path):
    from click.testing import CliRunner

    deploy(trained, "last")
    shrink(trained, "int8")
    x, _ = samples_of(trained)
    np.savez(tmp_path / "some.npz", x=np.moveaxis(x[:3], 1, -1).astype(np.uint8))
    result = CliRunner().invoke(predict, [str(trained.smaller_file("int8")), str(tmp_path / "some.npz")])
    assert result.exit_code == 0, result.output
    assert len([line for line in result.output.splitlines() if "some.npz[" in line]) == 3


def test_the_jobs_load_no_torch():
    code = (
        "import edge_trgl.export.smaller_models, edge_trgl.deploy.latency, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_jobs_are_held_to_the_budget(trained, monkeypatch):
    deploy(trained, "1")
    guards, limits = [], Limits(budget_mb=500.0)
    monkeypatch.setattr(guard, "set_guard", lambda *given: guards.append(given))
    write_smaller(trained, form="fp16", others_mb=30.0, limits=limits)
    measure_latency([trained.onnx_file], others_mb=30.0, limits=limits)
    assert guards == [(limits, 30.0)] * 2


FAMILIES = {
    "vgg19": {"model__name": "vgg19", "model__modules": 2, "model__head": "linear"},
    "swin": {"model__name": "swin-tiny", "model__modules": 2},
    "resnet50": {"model__name": "resnet50", "model__modules": 2, "model__head": "linear"},
    "mobilenet": {"model__name": "torchvision:mobilenet_v2", "model__modules": 2},
    "vit": {"model__name": "timm:vit_tiny_patch16_224", "model__modules": 2},
}


# Attention is swin's, too; depthwise convolutions with a scale for each channel are mobilenet's alone.
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(train_run, monkeypatch, tmp_path, family):
    """Hardly trained on noise, they have no accuracy to lose: the logits stay near, and the files are loaded."""
    draws = np.random.default_rng(0).integers(0, 256, (28, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(28) % 4
    archive = tmp_path / "noise.npz"
    np.savez(archive, x_train=draws[:20], y_train=labels[:20], x_test=draws[20:], y_test=labels[20:])
    data = {"data__source": str(archive), "data__limit": None, "data__image_size": 32}
    run = train_run("run", **data, train__epochs="1", train__batch_size=8, **FAMILIES[family]).run
    monkeypatch.setattr(verdicts, "LARGEST_LOSS", 1.0)
    x, _ = samples_of(run)
    for target in ("ort", "jetpack6") if family == "mobilenet" else ("ort",):
        exported = deploy(run, "last", target)
        assert shrink(run, "fp16").num_bytes < 0.6 * exported.num_bytes
        int8 = shrink(run, "int8")
        assert int8.max_relative_diff < 0.5
        if target == "ort":
            assert int8.num_bytes < 0.4 * exported.num_bytes
        for form in ("fp16", "int8"):
            assert np.isfinite(Predictor(run.smaller_file(form), "cpu").predict(x).logits).all()
