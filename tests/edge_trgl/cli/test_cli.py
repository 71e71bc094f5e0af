"""The command as a user runs it: real processes, real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from preloaded import command

from edge_trgl.cli.command import VERBS, verb_named
from edge_trgl.run.folder import Run

SMALL = (
    *("--model", "km-3-1", "--width", "4", "--epochs", "2", "--batch-size", "16", "--threads", "1"),
    *("--set", "data.limit=80", "--set", "data.validation=0.2"),
)

UNPROBED = (*SMALL, "--no-probe")
"""Where it is not asked what a step takes: measuring it is a process of its own."""

PROGRESS = "images/s"
"""In every line that a training process prints."""

SUMMARY = {
    "schema": None,
    "regime": None,
    "modules": None,
    "params": None,
    "accuracy": {"last", "chosen", "chosen_depth", "chosen_on", "per_depth", "depth", "gain"},
    "memory": {"budget_mb", "peak_mb", "planned_peak_mb", "fixed_mb", "method", "cgroup_peak_mb"},
    "storage": {"read_mb", "written_mb", "planned_written_mb", "major_faults", "wear", "planned_disk_mb"},
    "data": None,
    "time_s": None,
    "images_per_s": None,
    "restarts": None,
    "lossy": None,
    "weights_sha256": None,
}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With processes that begin from nothing, whose memory and environment are the user's."""
    command = [sys.executable, "-m", "edge_trgl", *arguments]
    started = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=started, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_from_train_to_report(tmp_path, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    trained = run(tmp_path, "train", "--budget-mb", "400", *SMALL, "--export", "--json", HOME=str(home))
    assert trained.returncode == 0, trained.stderr
    # Everything is in one folder.
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"0001", ".prepared"}
    assert not list(home.iterdir())
    summary = json.loads(trained.stdout)
    folder = tmp_path / "runs" / "0001"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert set(summary) == set(SUMMARY)
    for section, names in SUMMARY.items():
        if names is not None:
            assert set(summary[section]) == names
    assert summary["schema"] == 1
    assert summary["modules"] == len(summary["accuracy"]["per_depth"]) == 3
    assert 100 < summary["memory"]["fixed_mb"] < summary["memory"]["planned_peak_mb"] <= 400
    assert summary["memory"]["peak_mb"] <= 400
    assert (folder / "model.onnx").stat().st_size > 1000
    page = (folder / "report.html").read_text()
    assert len(page) < 1_000_000
    assert summary["weights_sha256"][:12] in page

    scores = json.loads(command(tmp_path, "evaluate", "runs/0001", "--json").stdout)
    for name in SUMMARY["accuracy"] - {"depth", "gain"}:
        assert scores[name] == summary["accuracy"][name]
    assert scores["weights_sha256"] == summary["weights_sha256"]

    exported = json.loads(run(tmp_path, "export", "runs/0001", "--json").stdout)
    assert all(one["ok"] for one in exported["exits"])
    assert exported["num_images"] == 16
    assert exported["peak_mb"] <= 400
    assert exported == json.loads((folder / "export.json").read_text())
    everything = run(
        tmp_path, "export", "runs/0001", "--depth", "all", "--target", "ort", "--batch", "8", "--fp16"
    )
    assert "depths 1 to 3, " in everything.stdout
    assert "opset 20" in everything.stdout
    assert "model.fp16.onnx" in everything.stdout
    assert "model.fp16.onnx" in (folder / "report.html").read_text()
    assert json.loads((folder / "export.json").read_text())["smaller"].keys() == {"fp16"}
    assert "early-exit-title" not in (folder / "report.html").read_text()
    in_stages = run(tmp_path, "export", "runs/0001", "--depth", "last", "--exits", "auto:1", "--stages", "1,3")
    assert "model.exits  2 stages, left from a probability of " in in_stages.stdout
    assert "early-exit-title" in (folder / "report.html").read_text()
    assert json.loads((folder / "export.json").read_text())["peak_mb"] <= 400
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    for model in (("runs/0001/model.exits",), ("runs/0001", "--exits", "0")):
        predicted = command(tmp_path, "predict", *model, "black.png", "--threads", "1")
        assert predicted.returncode == 0, predicted.stderr
        assert "exit " in predicted.stdout
        assert "of the network's FLOPs on average" in predicted.stderr
    refused = command(tmp_path, "export", "runs/0001", "--depth", "9")
    assert refused.returncode == 2
    assert "depths 1 to 3 have one" in refused.stderr

    again = run(tmp_path, "train", "--run", "runs/0001", "--budget-mb", "400", *SMALL, "--json")
    assert json.loads(again.stdout)["weights_sha256"] == summary["weights_sha256"]
    assert json.loads(again.stdout)["time_s"] == summary["time_s"]

    # The allocator's settings change no weight.
    plain = run(tmp_path, "train", "--budget-mb", "400", *UNPROBED, "--without", "allocator", "--json")
    assert json.loads(plain.stdout)["weights_sha256"] == summary["weights_sha256"]

    other = command(tmp_path, "train", "--run", "runs/0001", "--budget-mb", "400", *SMALL, "--seed", "1")
    assert other.returncode == 2
    assert "train.seed: 0 in the run, 1 now" in other.stderr


@pytest.mark.slow
def test_growing_trains_and_exports_what_pays(tmp_path):
    flags = (*UNPROBED, "--model", "km-6-1", "--regime", "sequential", "--grow", "--run", "grown")
    trained = command(tmp_path, "train", *flags, "--set", "train.grow_patience=1", "--export")
    assert trained.returncode == 0, trained.stderr
    summary = json.loads((tmp_path / "grown" / "summary.json").read_text())
    depth, chosen = summary["accuracy"]["depth"], summary["accuracy"]["chosen_depth"]
    assert depth < summary["modules"] == 6
    assert len(summary["accuracy"]["per_depth"]) == depth
    assert summary["accuracy"]["gain"] in trained.stdout
    assert "depth 1: " in trained.stderr
    assert f"gained nothing on validation images (depth {chosen} is the best: " in trained.stderr
    assert json.loads((tmp_path / "grown" / "export.json").read_text())["depth"] == chosen
    page = (tmp_path / "grown" / "report.html").read_text()
    assert f"Depth {chosen} of 6 was chosen: " in page
    evaluated = json.loads(command(tmp_path, "evaluate", "grown", "--json").stdout)
    assert evaluated["weights_sha256"] == summary["weights_sha256"]
    refused = command(tmp_path, "export", "grown", "--depth", "6")
    assert refused.returncode == 2
    assert f"depths 1 to {depth} have one" in refused.stderr


@pytest.mark.slow
def test_a_report_compares_runs_and_frozen_modules_have_no_score(tmp_path):
    for name, flags in (("ours", ()), ("theirs", ("--no-transport",))):
        trained = command(tmp_path, "train", "--run", name, *UNPROBED, "--freeze", "1", "--views", "2", *flags)
        assert trained.returncode == 0, trained.stderr
    lines = command(tmp_path, "evaluate", "ours").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("depth")] == ["2", "3"]
    assert command(tmp_path, "report", "ours", "--against", "theirs").returncode == 0
    page = (tmp_path / "ours" / "report.html").read_text()
    assert "theirs (transport.enabled = false)" in page
    planned = tmp_path / "planned"
    planned.mkdir()
    shutil.copy(tmp_path / "ours" / "run.toml", planned)
    for wrong, words in (
        (["--against", "planned"], "planned is not fully trained"),
        (["--against", "nowhere"], "nowhere is not a run"),
        (["--against", "theirs"] * 5, "5 runs are too many to compare with"),
    ):
        refused = command(tmp_path, "report", "ours", *wrong)
        assert refused.returncode == 2
        assert words in refused.stderr
    assert list(planned.iterdir()) == [planned / "run.toml"]
    assert (tmp_path / "ours" / "report.html").read_text() == page


LONGER = [*UNPROBED, "--epochs", "40"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The checksum of the weights that `LONGER` gives in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trained = command(folder, "train", *LONGER, "--json")
    assert trained.returncode == 0, trained.stderr
    return json.loads(trained.stdout)["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(tmp_path, start, number, uninterrupted):
    process = start("train", "--run", "broken", *LONGER, until=PROGRESS)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait() == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], rest
    assert "Traceback" not in rest
    assert "edge-trgl resume broken" in rest

    early = command(tmp_path, "evaluate", "broken")
    assert early.returncode == 2
    assert command(tmp_path, "report", "broken").returncode == 0

    resumed = command(tmp_path, "resume", "broken", "--json")
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads(resumed.stdout)
    assert summary["weights_sha256"] == uninterrupted
    assert summary["restarts"] == 1


@pytest.mark.slow
def test_the_tree_dies_with_its_parent(tmp_path, start):
    process = start("train", "--run", "orphan", *UNPROBED, "--epochs", "500", until=PROGRESS)
    assert _workers(tmp_path / "orphan")
    process.kill()
    process.wait()
    while _workers(tmp_path / "orphan"):
        time.sleep(0.1)
    # It has not just come to its end.
    facts = Run.open(tmp_path / "orphan").facts()
    assert not facts.is_trained
    facts.close()


def _workers(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().decode().split("\0")
                same_place = (entry / "cwd").readlink() == folder.parent
            except OSError:
                continue
            if same_place and "edge_trgl.jobs" in arguments and folder.name in arguments:
                found.append(entry.name)
    return found


@pytest.mark.slow
def test_a_running_run_is_locked(tmp_path, start):
    start("train", "--run", "busy", *UNPROBED, "--epochs", "500", until="training")
    second = command(tmp_path, "resume", "busy")
    assert second.returncode == 2
    assert "in use" in second.stderr


@pytest.mark.slow
def test_a_budget_that_is_too_small(tmp_path):
    refused = run(tmp_path, "train", "--budget-mb", "100", *SMALL)
    assert refused.returncode == 3
    assert "Traceback" not in refused.stderr
    smallest = refused.stderr.split("Give --budget-mb ")[1].split(".")[0]
    assert run(tmp_path, "plan", "--budget-mb", str(float(smallest) + 2), *SMALL).returncode == 0


@pytest.mark.slow
def test_a_disk_that_is_too_small(tmp_path):
    refused = command(tmp_path, "train", "--disk-mb", "1", *UNPROBED)
    assert refused.returncode == 3
    assert "this does not fit 1 MiB of the disk: the least that would do is" in refused.stderr
    assert "Traceback" not in refused.stderr
    least = int(refused.stderr.split("would do is ")[1].split(" MiB")[0])
    resumed = command(tmp_path, "resume", "runs/0001", "--disk-mb", str(least), "--json")
    assert resumed.returncode == 0, resumed.stderr
    storage = json.loads(resumed.stdout)["storage"]
    assert storage["planned_disk_mb"] <= least
    used = subprocess.run(["du", "-sk", tmp_path / "runs/0001/modules"], capture_output=True, check=True)
    assert int(used.stdout.split()[0]) / 1024 <= storage["planned_disk_mb"]


@pytest.mark.slow
def test_plan_trains_nothing_and_leaves_what_it_prepared(tmp_path):
    planned = command(tmp_path, "plan", "--budget-mb", "500", *SMALL, "--json")
    document = json.loads(planned.stdout)
    assert len(document["table"]) == 3
    assert document["plan"]["peak_mb"] <= 500
    assert 0 < document["plan"]["disk_mb"] <= document["disk_limit_mb"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".prepared"]
    text = command(tmp_path, "plan", *SMALL).stdout
    assert re.search(r"^peak \d+ MiB of 2000 MiB: fits;", text, re.MULTILINE)
    assert re.search(r"^disk at most \d+ MiB of \d+ MiB: fits$", text, re.MULTILINE)
    assert re.search(r"^exporting the network takes at most \d+ MiB: fits$", text, re.MULTILINE)


@pytest.mark.slow
def test_own_images(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (60, 20, 20, 3), np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": generator.integers(0, 256, (12, 20, 20, 3), np.uint8),
        "y_test": np.arange(12) % 3,
    }
    np.savez(tmp_path / "own.npz", **arrays)
    small = SMALL[: SMALL.index("--set")]
    for regime in ("sequential", "end-to-end"):
        flags = (*small, "--no-probe", "--regime", regime, "--json")
        result = command(tmp_path, "train", "--data", "own.npz", *flags)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["regime"] == regime


def test_dry_run_prints_the_configuration(tmp_path):
    (tmp_path / "mine.toml").write_text("[train]\nlr = 0.5\nseed = 4\n")
    result = command(tmp_path, "train", "--config", "mine.toml", "--seed", "5", "--dry-run")
    assert "lr = 0.5" in result.stdout
    assert "seed = 5" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml"}


def test_a_recipe_stands_between_the_profile_and_the_file(tmp_path):
    (tmp_path / "board.toml").write_text("[defaults.train]\nlr = 0.5\nthreads = 7\n")
    (tmp_path / "mine.toml").write_text("[train]\nbatch_size = 9\nmomentum = 0.8\n")
    files = ("--profile", "board.toml", "--config", "mine.toml")
    result = run(
        tmp_path, "train", *files, "--recipe", "table14,end-to-end", "--set", "train.momentum=0.7", "--dry-run"
    )
    lines = result.stdout.splitlines()
    for line in ("lr = 0.1", "threads = 7", "batch_size = 9", "momentum = 0.7", 'regime = "end-to-end"'):
        assert line in lines


@pytest.mark.slow
def test_the_authors_protocol_is_told_wherever_its_scores_are(tmp_path):
    flags = (*UNPROBED, "--regime", "sequential", "--recipe", "faithful", "--run", "authors")
    trained = command(tmp_path, "train", *flags)
    assert trained.returncode == 0, trained.stderr
    told = "scored as the paper's authors did: the depth was chosen on half of the test images"
    assert told in trained.stdout
    evaluated = command(tmp_path, "evaluate", "authors").stdout
    assert told in evaluated
    assert "half of the test images" in evaluated.splitlines()[0]
    assert json.loads((tmp_path / "authors" / "summary.json").read_text())["accuracy"]["chosen_on"] == "half-test"
    assert "chosen on half of the test images" in (tmp_path / "authors" / "report.html").read_text()


CONFIGURED = (
    "allow batch-size blocks budget-mb cache cgroup chunk config crop-padding data device disk-mb epochs flip "
    "force freeze grow head image-size json laps loss lr model modules no-augment no-flip no-probe no-transport "
    "normalize precision pretrained profile recalibrate recipe regime resident resize seed set shared-head strict "
    "tau threads views width without"
)
OPTIONS = {
    "train": f"{CONFIGURED} dry-run export run",
    "pretrain": (
        "allow batch-size blocks budget-mb cgroup config crop-padding data device disk-mb dry-run epochs flip "
        "force image-size json lr model no-augment no-flip no-probe normalize precision pretrained profile "
        "recalibrate recipe resize run seed set strict threads width without"
    ),
    "plan": CONFIGURED,
    "resume": "budget-mb disk-mb export json",
    "evaluate": "json",
    "export": "batch depth exits fp16 int8 json stages target",
    "report": "against json",
    "data": "image-size json resize strict",
    "probe": "disk json save",
    "predict": "csv exit exits json optimize provider threads top",
    "clean": "all dry-run json",
    "bench": "batch json optimize provider runs seconds threads",
}


def test_options_change_only_on_purpose():
    found = {
        name: {
            option.removeprefix("--")
            for parameter in verb_named(name).params
            if isinstance(parameter, click.Option)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name in VERBS
    }
    assert found == {name: set(options.split()) for name, options in OPTIONS.items()}
