"""Runs exported and checked by their jobs: depths, targets, batches, budgets, refusals."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_runs import deploy, logits_of, run_file
from made_up_jobs import make_up
from nearness import SMALL, assert_near, scale_of
from plans import PLENTY

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.engine.open_run import open_run
from edge_trgl.export import write_models as writing
from edge_trgl.export.check_models import check_models
from edge_trgl.export.compare import comparison
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.write_models import write_models
from edge_trgl.jobs.requests import EXPORT
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.export_record import FileRecord
from edge_trgl.run.exported_files import read_export
from edge_trgl.runtime.errors import (
    DoesNotFitError,
    ExportRejectedError,
    OverBudgetError,
    StoppedError,
    StorageError,
    UsageError,
)
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits


@pytest.fixture
def trained(trained_copy):
    return trained_copy("run").run


def test_it_is_checked_on_images_from_all_over_the_set(trained, monkeypatch):
    """The same ones on both sides, with their labels."""
    monkeypatch.setattr(writing, "CHECKED_IMAGES", 4)
    document = deploy(trained, "last")
    assert document.num_images == 4
    _, logits = logits_of(trained, 16)
    reader = RecordReader(trained.data, "val", open_dataset(trained.data))
    right = logits[-1].argmax(1).numpy()[::4] == reader.labels[::4]
    reader.close()
    (found,) = document.exits
    assert found.ok
    assert found.max_abs_diff < SMALL * scale_of(logits[-1])
    assert found.accuracy == found.accuracy_onnx == pytest.approx(right.mean())


def test_every_exit_in_one_file(trained):
    document = deploy(trained, "all")
    assert document == read_export(trained)
    assert [one.depth for one in document.exits] == [1, 2, 3]
    pixels, expected = logits_of(trained, 16)
    found = run_file(trained.onnx_file, pixels)
    assert list(found) == ["logits_1", "logits_2", "logits_3"]
    opened = open_run(trained)
    accuracies = opened.facts.result.scores.per_depth
    opened.facts.close()
    for one, logits, accuracy in zip(document.exits, expected, accuracies, strict=True):
        assert_near(found[f"logits_{one.depth}"], logits)
        assert one.accuracy == one.accuracy_onnx == pytest.approx(accuracy)
        assert one.num_images == 16
        assert one.ok


@pytest.mark.parametrize(("depth", "number"), [("last", 3), ("2", 2), ("1", 1)])
def test_one_depth(trained, depth, number):
    document = deploy(trained, depth)
    assert document.depth == number
    pixels, expected = logits_of(trained, 5)
    found = run_file(trained.onnx_file, pixels)
    assert list(found) == ["logits"]
    assert_near(found["logits"], expected[number - 1])
    weights = {tensor.name.split("/")[0] for tensor in onnx.load(trained.onnx_file).graph.initializer}
    assert weights == {f"module{module}" for module in range(1, number + 1)}


def test_the_chosen_depth_is_the_runs(trained):
    facts = trained.facts()
    result = facts.result
    facts.result = replace(result, scores=replace(result.scores, chosen_depth=2))
    facts.close()
    assert deploy(trained).depth == 2


def test_what_export_json_says(trained):
    document = deploy(trained, "last", "jetpack6", "4", budget_mb=5000.0)
    (file,) = document.files
    data = trained.onnx_file.read_bytes()
    assert file == FileRecord(name="model.onnx", num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    model = onnx.load(trained.onnx_file)
    assert (document.target, document.opset, document.ir) == ("jetpack6", 20, 9)
    assert (model.opset_import[0].version, model.ir_version) == (20, 9)
    assert (document.batch, document.budget_mb) == (4, 5000.0)
    # The check of this test is in a process that has torch.
    assert document.peak_mb >= 300
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["depth"] == "3"
    assert metadata["target"] == "jetpack6"
    assert len(json.loads(metadata["class_names"])) == 10
    assert metadata["preprocessing"].startswith("Give float32 images [N, C, H, W] with values from 0 to 255;")


@pytest.mark.parametrize("batch", ["1", "5", "64"])
def test_a_fixed_batch(trained, batch):
    assert deploy(trained, "last", batch=batch).num_images == 16
    pixels, expected = logits_of(trained, 16)
    full = np.resize(pixels, (int(batch), *pixels.shape[1:]))
    compared = min(int(batch), 16)
    assert_near(run_file(trained.onnx_file, full)["logits"][:compared], expected[-1][:compared])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run_file(trained.onnx_file, np.concatenate([full, full]))


def test_the_profile_chooses_the_target(train_run):
    run = train_run("run", board__target="jetpack6").run
    assert deploy(run).target == "jetpack6"
    assert deploy(run, target="jetpack5").opset == 17


def test_weights_beside_the_model(trained, monkeypatch):
    monkeypatch.setattr(writing.onnx_file.write, "__kwdefaults__", {"max_inside": 1000})
    document = deploy(trained, "all")
    assert [file.name for file in document.files] == ["model.onnx.data", "model.onnx"]
    for file in document.files:
        data = (trained.folder / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.num_bytes, file.sha256)
    onnx.checker.check_model(str(trained.onnx_file), full_check=True)
    pixels, expected = logits_of(trained, 3)
    for name, logits in run_file(trained.onnx_file, pixels).items():
        assert_near(logits, expected[int(name[-1]) - 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": "4"}, "--depth 4 has no classifier; depths 1 to 3 have one"),
        ({"depth": "deepest"}, "--depth must be chosen, last, all or a number, not deepest"),
        ({"batch": "0"}, "--batch must be dynamic or a number of samples, not 0"),
        ({"batch": "many"}, "--batch must be dynamic or a number of samples, not many"),
    ],
)
def test_usage(trained, options, message):
    with pytest.raises(UsageError) as caught:
        deploy(trained, **options)
    assert message in caught.value.message


def test_frozen_modules_have_no_exit(train_run):
    run = train_run("run", train__freeze=1).run
    assert [one.depth for one in deploy(run, "all").exits] == [2, 3]
    assert list(run_file(run.onnx_file, logits_of_pixels(run))) == ["logits_2", "logits_3"]
    with pytest.raises(UsageError, match="depths 2 to 3 have one"):
        deploy(run, "1")


def logits_of_pixels(run):
    opened = open_run(run)
    pixels = opened.feed("val").pixels(np.arange(2)).contiguous().numpy()
    opened.facts.close()
    return pixels


def test_end_to_end_has_one_exit(train_run):
    run = train_run("run", train__regime="end-to-end").run
    document = deploy(run, "all")
    assert len(document.exits) == 1
    assert list(run_file(run.onnx_file, logits_of_pixels(run))) == ["logits"]


def test_bfloat16_training_is_exported_as_float32(train_run):
    document = deploy(train_run("run", train__precision="bf16").run, "all")
    assert all(one.ok for one in document.exits)


def test_a_budget_that_is_too_small_is_told_with_the_number(trained):
    with pytest.raises(DoesNotFitError, match=r"exporting depth 3 takes about (\d+) MiB, 0 MiB of it") as caught:
        deploy(trained, "last", budget_mb=100.0)
    needed = int(caught.value.message.split("about ")[1].split(" MiB")[0])
    assert f"--budget-mb {needed + 1} --export" in caught.value.hint
    assert not trained.onnx_file.exists()


def test_the_jobs_are_held_to_the_budget(trained, monkeypatch):
    rooms_mb = []
    monkeypatch.setattr(guard, "set_guard", lambda limits, others_mb: rooms_mb.append(limits.room_mb(others_mb)))
    deploy(trained, "1", budget_mb=4000.0)
    assert len(rooms_mb) == 2
    assert rooms_mb[0] < 4000 and rooms_mb[1] == 4000


def test_a_file_that_differs_is_kept_as_rejected(trained, monkeypatch):
    deploy(trained, "last")
    good, told = trained.onnx_file.read_bytes(), trained.export_file.read_bytes()
    written = write_models(trained, depth="all", target=None, batch="dynamic", limits=PLENTY)
    new = trained.folder / "model.onnx.new"
    weight = onnx_file.stream_reader.read(new).weights["module2/head.linear.bias"]
    with new.open("r+b") as file:
        file.seek(weight.start)
        file.write(np.float32(weight.read()[0] + 0.01).tobytes())
    with pytest.raises(ExportRejectedError, match=r"at depth 2, over 16 images, .* is 0\.01,"):
        check_models(trained, written=written, export_mb=0.0, others_mb=0.0, limits=PLENTY)
    assert trained.onnx_file.read_bytes() == good
    assert trained.export_file.read_bytes() == told
    kept = json.loads((trained.folder / "model.onnx.rejected.json").read_text())
    assert "at depth 2" in kept["reason"]
    assert [one["ok"] for one in kept["exits"]] == [True, False, True]
    assert (trained.folder / "model.onnx.rejected").is_file()
    assert not new.exists()


def test_a_check_that_is_cut_leaves_the_old_model(trained, monkeypatch):
    deploy(trained, "last")
    good = trained.onnx_file.read_bytes()
    monkeypatch.setattr(comparison.Tally, "add", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deploy(trained, "1")
    monkeypatch.undo()
    assert trained.onnx_file.read_bytes() == good
    assert deploy(trained, "1").depth == 1
    assert not list(trained.folder.glob("*.new"))
    assert not list(trained.scratch.iterdir())


def test_an_export_that_is_stopped_leaves_nothing_half_done(trained, monkeypatch):
    def stopped(job, request):
        assert job is EXPORT
        for name in ("model.onnx.new", "model.onnx.data.new", "model.int8.onnx.new", "model.fp16.onnx.data2.new"):
            (trained.folder / name).write_bytes(b"half")
        raise StoppedError("stopped")

    deploy(trained)
    before = {path.name for path in trained.folder.iterdir()}
    make_up(monkeypatch, stopped)
    with pytest.raises(StoppedError):
        Pipeline(trained.folder, lambda message: None).export()
    assert {path.name for path in trained.folder.iterdir()} == before


def test_an_export_that_is_refused_memory_tells_the_budget(trained, monkeypatch):
    def refused(job, request):
        raise OverBudgetError("an allocation was refused")

    facts = trained.facts()
    facts.limits = Limits(budget_mb=321.0)
    facts.close()
    make_up(monkeypatch, refused)
    with pytest.raises(OverBudgetError, match="exporting took more than the budget of 321 MiB") as caught:
        Pipeline(trained.folder, lambda message: None).export()
    assert f"resume {trained.folder} --budget-mb 354 --export" in caught.value.hint


def test_a_damaged_module_is_named(trained):
    facts = trained.facts()
    path = trained.modules / facts.modules()[1].name
    facts.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=path.name):
        deploy(trained, "last")
    assert deploy(trained, "1").depth == 1


def test_one_module_is_in_memory_at_a_time(trained, monkeypatch):
    alive, most = set(), []
    original = writing.OpenRun.deployed

    def deployed(opened, module, *, head):
        local = original(opened, module, head=head)
        alive.add(module)
        export_finalize(local, alive, module)
        most.append(len(alive))
        return local

    def export_finalize(local, alive, module):
        import weakref

        weakref.finalize(local, alive.discard, module)

    monkeypatch.setattr(writing.OpenRun, "deployed", deployed)
    deploy(trained, "all")
    assert most == [1, 1, 1]


def test_the_check_loads_no_torch():
    code = "import edge_trgl.export.check_models, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
