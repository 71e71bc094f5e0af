"""The Python API: what it does is what the command does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import own_process
import pytest
from preloaded import command

import edge_trgl
from edge_trgl import api

SMALL = {"model": "km-3-1", "width": 4, "epochs": "1", "batch_size": 16, "threads": 1, "no_probe": True}
FEW = {"data.limit": 64, "data.validation": 0.25}


@pytest.mark.slow
def test_from_a_plan_to_a_file(tmp_path, monkeypatch, forked_jobs):
    monkeypatch.chdir(tmp_path)
    planned = edge_trgl.plan(budget_mb=5000, settings=FEW, **SMALL)
    assert planned["budget_mb"] == 5000
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".prepared"]
    heard = []
    run = edge_trgl.train(budget_mb=5000, settings=FEW, listener=heard.append, **SMALL)
    assert run.folder.resolve() == tmp_path / "runs" / "0001"
    phases = [message["name"] for message in heard if message["kind"] == "phase"]
    assert phases[-3:] == ["train", "evaluate", "report"]
    assert run.summary == json.loads((run.folder / "summary.json").read_text())
    assert list(in_a_thread(run.evaluate)["per_depth"]) == run.summary["accuracy"]["per_depth"]
    exported = run.export(depth=2, batch=4, exits=0.5, stages=[1, 2], fp16=True)
    assert [exit_.depth for exit_ in exported.exits] == [2]
    assert json.loads((run.folder / "export.json").read_text())["file"] == exported.file
    assert (run.folder / "model.fp16.onnx").is_file()
    assert not (run.folder / "model.int8.onnx").exists()
    assert sorted(path.name for path in (run.folder / "model.exits").glob("*.onnx")) != []
    assert run.report().read_text().startswith("<!doctype html>")
    with pytest.raises(edge_trgl.EdgeTrglError, match="has no classifier"):
        run.export(depth=9)
    assert run.resume() == run.summary
    as_the_command_trains(run)


def in_a_thread(call):
    """Where no signal can be taken over."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def as_the_command_trains(run):
    """In a folder beside it, with the same settings as flags."""
    flags = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"
        for name, value in SMALL.items()
    ]
    flags += [f"--set={name}={value}" for name, value in FEW.items()]
    done = command(Path.cwd(), "train", "--budget-mb=5000", "--run", "command", *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights_sha256"] == run.summary["weights_sha256"]
    assert Path("command", "run.toml").read_text() == (run.folder / "run.toml").read_text()


@pytest.mark.slow
def test_warnings_are_warnings(tmp_path, forked_jobs):
    with pytest.warns(UserWarning, match="more than is available; lowered"):
        api.begin(
            tmp_path / "run", api.configuration(SMALL | {"budget_mb": 1e9}, values=[{"data": {"limit": 64}}])
        ).resume()


LEAST = """
import json, sys, warnings
import edge_trgl

small, few = map(json.loads, sys.argv[1:])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    run = edge_trgl.train("run", budget_mb="min", settings=few, **small)
try:
    run.export()
    refusal = None
except edge_trgl.EdgeTrglError as error:
    refusal = str(error)
run.resume(edge_trgl.Limits(budget_mb=5000))
print(json.dumps([[str(one.message) for one in caught], refusal, run.export().top1_agreement]))
"""


@pytest.mark.slow
def test_that_an_export_needs_more_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warnings, refusal, agreement = own_process.result_of("-c", LEAST, json.dumps(SMALL), json.dumps(FEW))
    told = "exporting the trained network may take .* more than the budget; to do it then: edge-trgl resume"
    assert any(re.search(told, text) for text in warnings)
    assert "exporting depth" in refusal
    assert agreement == 1


def test_mistakes(tmp_path):
    with pytest.raises(edge_trgl.EdgeTrglError, match="is not a run"):
        edge_trgl.Training(tmp_path)
    with pytest.raises(edge_trgl.EdgeTrglError, match="settings: momentum"):
        edge_trgl.train(tmp_path / "run", settings={"momentum": 0.5})
    assert not (tmp_path / "run").exists()
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        edge_trgl.predict  # noqa: B018


def test_what_was_exported_does_not_load_what_trains():
    unwanted = {"edge_trgl.api", "edge_trgl.pipeline.pipeline", "click"}
    code = f"import sys, edge_trgl.deploy; print({unwanted} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )
