"""The Python API: what it does is what the command does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

import edge_trgl
from edge_trgl import api

SMALL = {"model": "km-3-1", "width": 4, "epochs": "1", "batch_size": 16, "threads": 1, "no_probe": True}
FEW = {"data.limit": 64, "data.validation": 0.25}


def test_from_a_plan_to_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = edge_trgl.plan(budget_mb=5000, settings=FEW, **SMALL)
    assert planned["budget_mb"] == 5000
    assert not (tmp_path / "runs").exists()
    heard = []
    run = edge_trgl.train(budget_mb=5000, settings=FEW, listener=heard.append, **SMALL)
    assert run.folder.resolve() == tmp_path / "runs" / "0001"
    phases = [message["name"] for message in heard if message["kind"] == "phase"]
    assert phases[-3:] == ["work", "evaluate", "report"]
    assert run.summary == json.loads((run.folder / "summary.json").read_text())
    assert run.evaluate()["per_depth"] == run.summary["accuracy"]["per_depth"]
    exported = run.export(depth=2, batch=4, exits=0.5, stages=[1, 2], fp16=True)
    assert [one["depth"] for one in exported["exits"]] == [2]
    assert json.loads((run.folder / "export.json").read_text())["file"] == exported["file"]
    assert (run.folder / "model.fp16.onnx").is_file()
    assert not (run.folder / "model.int8.onnx").exists()
    assert sorted(path.name for path in (run.folder / "model.exits").glob("*.onnx")) != []
    assert run.report().read_text().startswith("<!doctype html>")
    with pytest.raises(edge_trgl.EdgeTrglError, match="there is no classifier"):
        run.export(depth=9)


def test_it_is_what_the_command_trains(tmp_path):
    run = edge_trgl.train(tmp_path / "python", budget_mb=5000, settings=FEW, **SMALL)
    assert run.resume() == run.summary
    flags = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"
        for name, value in SMALL.items()
    ]
    flags += [f"--set={name}={value}" for name, value in FEW.items()]
    command = [
        sys.executable,
        "-m",
        "edge_trgl",
        "train",
        "--budget-mb=5000",
        "--run",
        str(tmp_path / "command"),
        *flags,
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["weights_sha256"] == run.summary["weights_sha256"]
    assert (tmp_path / "command" / "run.toml").read_text() == (run.folder / "run.toml").read_text()


def test_warnings_are_warnings(tmp_path):
    with pytest.warns(UserWarning, match="more than is available; lowered"):
        api.begin(
            tmp_path / "run", api.configuration(SMALL | {"budget_mb": 1e9}, values=[{"data": {"limit": 64}}])
        ).resume()


def test_that_an_export_needs_more_is_told_before_training(tmp_path):
    with pytest.warns(
        UserWarning, match="exporting the trained network may take .* more than the budget; edge-trgl resume"
    ):
        run = edge_trgl.train(tmp_path / "run", budget_mb="min", settings=FEW, **SMALL)
    with pytest.raises(edge_trgl.EdgeTrglError, match="exporting depth"):
        run.export()
    run.resume(budget_mb=5000)
    assert run.export()["top1_agreement"] == 1


def test_in_a_thread(tmp_path):
    """Where no signal can be taken over."""
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(edge_trgl.train(tmp_path / "run", settings=FEW, budget_mb=5000, **SMALL))
    )
    thread.start()
    thread.join()
    assert runs[0].summary is not None


def test_mistakes(tmp_path):
    with pytest.raises(edge_trgl.EdgeTrglError, match="is not a run"):
        edge_trgl.Training(tmp_path)
    with pytest.raises(edge_trgl.EdgeTrglError, match="settings: momentum"):
        edge_trgl.train(tmp_path / "run", settings={"momentum": 0.5})
    assert not (tmp_path / "run").exists()
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        edge_trgl.predict  # noqa: B018


def test_what_was_exported_does_not_load_what_trains():
    unwanted = {"edge_trgl.api", "edge_trgl.pipeline", "click"}
    code = f"import sys, edge_trgl.deploy; print({unwanted} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )
