"""Runs exported in stages: each stage gives what the network gives, and samples leave as the manifest says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from made_up_jobs import make_up
from nearness import SMALL, assert_near, scale_of
from plans import PLENTY

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy import Cascade, Manifest, Predictor
from edge_trgl.deploy.prediction import softmax
from edge_trgl.export import write_models as writing
from edge_trgl.export.check_models import check_models
from edge_trgl.export.early_exit import exits_folder, search
from edge_trgl.export.early_exit.search import choose_thresholds
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.write_models import write_models
from edge_trgl.jobs import calibrate as calibrate_job
from edge_trgl.jobs import export as export_job
from edge_trgl.jobs.requests import CALIBRATE, CHECK, EXPORT
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.report.gather import gather
from edge_trgl.runtime.errors import ExportRejectedError, StoppedError, UsageError

LIMITS = {"others_mb": 0.0, "limits": PLENTY}


def written_by(run, stages=None, depth="last", batch="dynamic", target=None):
    limits = LIMITS["limits"]
    return write_models(run, depth=depth, target=target, batch=batch, limits=limits, in_stages=True, stages=stages)


def deploy(run, leaving="0.5", **options):
    """What `Pipeline.export` does, in this process."""
    written = written_by(run, **options)
    calibrated = choose_thresholds(run, written=written, leaving=leaving, **LIMITS)
    return check_models(run, written=written, export_mb=300.0, chosen=calibrated, **LIMITS)


def images_of(run, split="val"):
    reader = RecordReader(run.data, split, open_dataset(run.data))
    pixels = np.moveaxis(reader.read(np.arange(len(reader))), -1, 1).astype(np.float32)
    labels = reader.labels.copy()
    reader.close()
    return np.ascontiguousarray(pixels), labels


def logits_of_stages(run, pixels):
    """What every stage gives, whoever is sure: a cascade that is never left early."""
    cascade, arrays, found = Cascade(run.exits_folder, threads=1), None, []
    for index in range(len(cascade.manifest.stages)):
        network = cascade._stage(index)
        arrays = {next(iter(network.inputs)): pixels} if arrays is None else arrays
        arrays = dict(zip(network.outputs, network.run(arrays, network.outputs), strict=True))
        found.append(arrays.pop("logits"))
    assert arrays == {}  # nothing reads a boundary of the last
    return found


@pytest.fixture
def trained(trained_copy):
    return trained_copy("run").run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, (1, 2, 3)),
        ({"stages": "2,3"}, (2, 3)),
        ({"stages": "1,3"}, (1, 3)),
        ({"depth": "2"}, (1, 2)),
        ({"batch": "5"}, (1, 2, 3)),
        ({"depth": "all", "target": "jetpack4"}, (1, 2, 3)),
    ],
)
def test_every_stage_gives_the_logits_of_its_depth(trained, options, ends):
    document = deploy(trained, **options)
    told = document.early_exit
    assert [stage.modules[1] for stage in told.stages] == list(ends)
    assert [one.modules[0] for one in told.stages] == [1, *(end + 1 for end in ends[:-1])]
    assert told.num_images == 16
    pixels, _ = images_of(trained)
    found = logits_of_stages(trained, pixels)
    assert told.max_abs_diff <= SMALL * scale_of(found)
    for path in trained.exits_folder.glob("*.onnx"):
        onnx.checker.check_model(str(path), full_check=True)
        assert onnx.load(path).opset_import[0].version == document.opset
    together = write_models(trained, depth="all", target=None, batch="dynamic", limits=PLENTY)
    check_models(trained, written=together, export_mb=0.0, **LIMITS)
    for depth, logits in zip(ends, found, strict=True):
        whole = Predictor(trained.onnx_file, exit_number=depth, threads=1)
        assert_near(logits, whole.predict(pixels).logits)


@pytest.mark.slow
def test_a_cascade_leaves_as_it_was_calibrated(trained):
    deploy(trained)
    pixels, _ = images_of(trained)
    middle = float(np.median(softmax(logits_of_stages(trained, pixels)[0]).max(axis=1)))
    told = deploy(trained, str(middle)).early_exit
    thresholds = [stage.threshold for stage in told.stages]
    assert thresholds == [middle, middle, None]
    flops = [stage.flops for stage in told.stages]
    for split in ("validation", "test"):
        pixels, labels = images_of(trained, "val" if split == "validation" else "test")
        found = Cascade(trained.exits_folder, threads=1).predict(pixels)
        expected = getattr(told, split)
        assert expected.num_images == len(labels)
        assert expected.exits == tuple(int((found.exits == number).sum()) for number in (1, 2, 3))
        assert len(set(found.exits.tolist())) > 1  # else this would say little
        assert expected.accuracy == pytest.approx((found.labels == labels).mean())
        assert expected.compute_share == pytest.approx(found.compute_shares.mean())
        stages = logits_of_stages(trained, pixels)
        assert expected.per_exit == pytest.approx([(one.argmax(1) == labels).mean() for one in stages])
    assert Manifest.read(trained.exits_folder).stages[0].flops == flops[0]
    assert told.model_flops < sum(flops)  # which count three classifiers


def test_thresholds_that_are_searched(trained):
    told = deploy(trained, "auto:5").early_exit
    scored = told.validation
    assert scored.accuracy >= scored.per_exit[-1] - 0.05 - 1e-9
    assert told.asked == "auto:5"
    assert [row.points for row in scored.searched] == list(search.POINTS)
    assert [row.threshold for row in scored.common] == list(search.THRESHOLDS)
    shares = [row.compute_share for row in scored.common]
    assert shares == sorted(shares)
    assert all(sum(row.exits) == 16 for row in (*scored.common, *scored.searched))
    names = {stage.file: stage.threshold for stage in Manifest.read(trained.exits_folder).stages}
    assert names == {stage.files[-1].name: stage.threshold for stage in told.stages}


def test_the_report_has_the_curve(trained):
    facts = trained.facts()
    assert gather(trained, facts).early_exit is None
    told = deploy(trained, "auto:5").early_exit
    found = gather(trained, facts).early_exit
    assert [one.compute_share for one in found.common] == [row.compute_share for row in told.validation.common]
    assert len(found.searched) == len(search.POINTS)
    assert (found.num_images, found.chosen.accuracy) == (16, told.validation.accuracy)
    assert found.test.compute_share == told.test.compute_share
    together = write_models(trained, depth="all", target=None, batch="dynamic", limits=PLENTY)
    check_models(trained, written=together, export_mb=0.0, **LIMITS)
    assert gather(trained, facts).early_exit is None
    facts.close()


@pytest.mark.slow
def test_images_go_through_in_lots(trained, monkeypatch):
    whole = deploy(trained, "auto:3").early_exit
    monkeypatch.setattr(search, "IMAGES_AT_ONCE", 12)  # of 16 to validate
    in_lots = deploy(trained, "auto:3").early_exit
    assert (in_lots.validation, in_lots.test) == (whole.validation, whole.test)


def test_without_a_test_set_it_is_said(trained, monkeypatch):
    written = written_by(trained)
    calibrated = choose_thresholds(trained, written=written, leaving="0.3", **LIMITS)
    assert calibrated.test.num_images > 0
    info = open_dataset(trained.data)
    monkeypatch.setitem(info.splits, "test", replace(info.splits["test"], num_images=0))
    monkeypatch.setattr(search, "open_dataset", lambda folder: info)
    assert choose_thresholds(trained, written=written_by(trained), leaving="0.3", **LIMITS).test is None


def test_stages_say_what_they_are(trained):
    deploy(trained, stages="2,3")
    first, last = (
        {
            entry.key: entry.value
            for entry in onnx.load(trained.exits_folder / f"stage-{number}.onnx").metadata_props
        }
        for number in (1, 2)
    )
    assert (first["modules"], last["modules"]) == ("1-2", "3-3")
    assert first["class_names"] == last["class_names"]
    assert first["preprocessing"].startswith("Give float32 images")
    assert not {"preprocessing", "scale"} & set(last)  # it takes no images


@pytest.mark.slow
def test_frozen_modules_are_in_the_first_stage(train_run):
    run = train_run("run", train__freeze=1).run
    assert [stage.modules for stage in deploy(run).early_exit.stages] == [(1, 2), (3, 3)]
    with pytest.raises(UsageError, match="must be rising depths from 2 on"):
        written_by(run, stages="1,3")


def test_end_to_end_has_nothing_to_leave_by(train_run):
    run = train_run("run", train__regime="end-to-end").run
    with pytest.raises(UsageError, match="needs a classifier before depth 1"):
        written_by(run)


def test_windows_in_stages(train_run, tmp_path):
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(60, 3, 32)).astype(np.float32), np.arange(60) % 3
    archive = tmp_path / "windows.npz"
    np.savez(archive, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], axes="NCL")
    run = train_run("run", data__source=str(archive), data__limit=None, train__batch_size=8).run
    deploy(run, "0.4")
    assert Cascade(run.exits_folder, threads=1).input_shape == (3, 32)


def test_weights_beside_the_stages(trained, monkeypatch):
    monkeypatch.setattr(writing.onnx_file.write, "__kwdefaults__", {"max_inside": 1000})
    told = deploy(trained, "0.3").early_exit
    files = {file.name for stage in told.stages for file in stage.files}
    assert "stage-1.onnx.data" in files
    assert {path.name for path in trained.exits_folder.iterdir()} == {*files, "manifest.json"}
    pixels, _ = images_of(trained)
    assert len(logits_of_stages(trained, pixels)) == 3


def test_a_stage_that_differs_is_refused_and_the_old_ones_stay(trained):
    deploy(trained, "0.3")
    before = contents(trained)
    model = trained.onnx_file.read_bytes()
    written = written_by(trained)
    calibrated = choose_thresholds(trained, written=written, leaving="0.3", **LIMITS)
    new = onnx_file.new_of(trained.exits_folder / written.stages[1].file)
    weight = onnx_file.stream_reader.read(new).weights["module2/head.linear.bias"]
    with new.open("r+b") as file:
        file.seek(weight.start)
        file.write(np.float32(weight.read()[0] + 0.01).tobytes())
    with pytest.raises(ExportRejectedError, match=r"stage-2-2\.onnx does not give .* at depth 2, over 16 images"):
        check_models(trained, written=written, export_mb=0.0, chosen=calibrated, **LIMITS)
    assert {**contents(trained), **before} == contents(trained)
    assert trained.onnx_file.read_bytes() == model
    assert (trained.exits_folder / "stage-2-2.onnx.rejected").is_file()


def contents(run):
    return {
        path.name: path.read_bytes() for path in run.exits_folder.iterdir() if path.suffix in (".onnx", ".json")
    }


def test_an_export_that_is_stopped_leaves_the_old_stages(trained, monkeypatch):
    def stopped(job, request):
        if job is CHECK:
            raise StoppedError("stopped")
        entry = {EXPORT: export_job, CALIBRATE: calibrate_job}[job]
        return entry.run(trained, request)

    make_up(monkeypatch, stopped)
    pipeline = Pipeline(trained.folder, lambda message: None)
    facts = trained.facts()
    facts.limits = LIMITS["limits"]
    facts.close()
    with pytest.raises(StoppedError):
        pipeline.export(ExportOptions(depth="last", exits="0.5"))
    assert not trained.exits_folder.exists()
    deploy(trained, "0.3")
    before = contents(trained)
    with pytest.raises(StoppedError):
        pipeline.export(ExportOptions(depth="last", exits="0.5"))
    assert contents(trained) == before
    assert len(list(trained.exits_folder.iterdir())) == len(before)


@pytest.mark.slow
def test_a_publication_that_is_cut_leaves_the_old_stages(trained, monkeypatch):
    deploy(trained, "0.3")
    before = contents(trained)
    monkeypatch.setattr(exits_folder.files, "write_durable", cut_at("manifest.json", exits_folder.files))
    with pytest.raises(InterruptedError):
        deploy(trained, "0.6")
    monkeypatch.undo()
    assert {**contents(trained), **before} == contents(trained)
    assert Manifest.read(trained.exits_folder).stages[0].threshold == 0.3
    deploy(trained, "0.6")
    assert Manifest.read(trained.exits_folder).stages[0].threshold == 0.6
    assert len(list(trained.exits_folder.iterdir())) == 4


def cut_at(name, files):
    real = files.write_durable

    def write(path, chunks):
        if path.name == name:
            raise InterruptedError
        return real(path, chunks)

    return write


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stages": "2,3"}, "--stages goes with --exits"), ({"exits": "2"}, "--exits must be a probability")],
)
def test_mistakes_are_told_before_anything_is_done(trained, monkeypatch, options, message):
    make_up(monkeypatch, lambda job, request: pytest.fail("a job was started"))
    with pytest.raises(UsageError, match=message):
        Pipeline(trained.folder, lambda told: None).export(ExportOptions(**options))


def test_calibrating_loads_no_torch():
    code = "import edge_trgl.export.early_exit.search, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
