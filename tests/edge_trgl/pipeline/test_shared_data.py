"""`plan` and `train` with the data that one of them prepared: the same weights, and nothing half written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from made_up_jobs import make_up
from PIL import Image
from preloaded import command

from edge_trgl.config.sources import resolve
from edge_trgl.jobs.requests import PREPARE, PrepareResult
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.data_summary import DataSummary, Sizes
from edge_trgl.run.folder import DATASET, Run
from edge_trgl.runtime.errors import InputError, StoppedError
from edge_trgl.runtime.storage import disk_space
from edge_trgl.runtime.storage.link_cache import LinkCache
from edge_trgl.runtime.units import MIB

SMALL = (
    *("--model", "km-3-1", "--width", "4", "--epochs", "2", "--batch-size", "16", "--threads", "1", "--no-probe"),
    *("--set", "data.limit=80", "--set", "data.validation=0.2"),
)
REUSED = "using the images that were prepared before"


def trained(folder, *flags):
    done = command(folder, "train", *SMALL, "--json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["weights_sha256"], done.stderr


def kept(folder):
    """The files of the one set that is kept."""
    (entry,) = (folder / "runs" / ".prepared").glob("*/")
    return entry


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights of a run that neither keeps prepared data nor takes any."""
    folder = tmp_path_factory.mktemp("alone")
    weights, told = trained(folder, "--set", "data.cache_mb=0")
    assert REUSED not in told
    assert not (folder / "runs" / ".prepared").exists()
    return weights


@pytest.mark.slow
def test_train_takes_what_plan_prepared(tmp_path, alone):
    planned = command(tmp_path, "plan", *SMALL)
    assert planned.returncode == 0, planned.stderr
    assert REUSED not in planned.stderr
    before = digests(kept(tmp_path))
    weights, told = trained(tmp_path)
    assert REUSED in told
    assert weights == alone
    data = tmp_path / "runs" / "0001" / "data"
    assert all(path.samefile(kept(tmp_path) / path.name) for path in data.iterdir())
    # The run wrote to none of the files that it shares.
    assert digests(kept(tmp_path)) == digests(data) == before

    elsewhere, told = trained(tmp_path, "--run", "elsewhere")
    assert (elsewhere, REUSED in told) == (alone, True)
    other = command(tmp_path, "plan", *SMALL, "--seed", "1")
    assert REUSED not in other.stderr

    cleaned = command(tmp_path, "clean", "--json")
    assert json.loads(cleaned.stdout)["prepared"]["count"] == 2
    assert digests(data) == before
    assert command(tmp_path, "evaluate", "runs/0001").returncode == 0


@pytest.mark.slow
def test_a_run_elsewhere_leaves_no_trace_of_its_own(tmp_path):
    assert command(tmp_path, "train", *SMALL, "--run", "mine").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_a_damaged_record_is_prepared_again(tmp_path, alone):
    assert command(tmp_path, "plan", *SMALL).returncode == 0
    records = kept(tmp_path) / "train.images"
    whole = records.read_bytes()
    with records.open("r+b") as file:
        file.write(bytes([whole[0] ^ 1]))
    weights, told = trained(tmp_path)
    assert weights == alone
    assert "train.images is damaged: record 0 does not match its checksum; the data are prepared again" in told
    facts = Run.open(tmp_path / "runs" / "0001").facts()
    assert [event.kind for event in facts.events()].count("data") == 1
    facts.close()
    assert (kept(tmp_path) / "train.images").read_bytes() == whole


@pytest.fixture
def photos(tmp_path):
    """Enough photos that decoding them takes a moment."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (400, 400, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
            for copy in range(40):
                os.link(
                    tmp_path / "photos" / name / f"{number}.jpg",
                    tmp_path / "photos" / name / f"{number}-{copy}.jpg",
                )
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_kill_while_decoding(tmp_path, photos):
    flags = ("--data", "photos", "--image-size", "32", "--model", "km-2-1", "--width", "4", "--no-probe")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_trgl", "plan", *flags], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    while not (half := list((tmp_path / "runs").glob(".plan-*/data/train.images.tmp"))):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert half[0].exists()
    assert not list(tmp_path.glob("runs/.prepared/*/"))
    again = command(tmp_path, "plan", *flags)
    assert again.returncode == 0, again.stderr
    assert REUSED not in again.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".prepared"]
    assert REUSED in command(tmp_path, "plan", *flags).stderr


@pytest.mark.slow
def test_ctrl_c_while_decoding(tmp_path, photos):
    flags = ("--data", "photos", "--image-size", "32", "--model", "km-2-1", "--width", "4", "--no-probe")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_trgl", "plan", *flags],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((tmp_path / "runs").glob(".plan-*/data/train.images.tmp")):
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.001)
    process.send_signal(2)
    told = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


SUMMARY = DataSummary(
    source="photos",
    format="image folders",
    shape=(4, 4, 3),
    dtype="uint8",
    sizes=Sizes(smallest=(4, 4), median=(4, 4), largest=(4, 4), distinct=1),
    resize="squash",
    size_from="files",
    classes=(),
    no_images={},
    unreadable=(),
    notices=(),
    decoded=True,
)


def test_a_run_is_not_continued_with_other_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "runs" / "0001", resolve({"data": {"source": "photos"}}))

    def answer(job, request):
        if job is not PREPARE:
            raise StoppedError("the data are prepared")
        assert request.cache == "runs/.prepared"
        return PrepareResult(decoded=True, summary=SUMMARY, fingerprint=found, reused=False, damage="")

    def prepare():
        with pytest.raises(StoppedError):
            Pipeline(run.folder, lambda message: None).plan()

    make_up(monkeypatch, answer)
    found = "first"
    prepare()
    prepare()
    found = "second"
    with pytest.raises(InputError, match=r"photos has changed since .*0001 was begun"):
        Pipeline(run.folder, lambda message: None).plan()
    facts = run.facts()
    assert facts.fingerprint == "first"
    facts.close()


def test_kept_data_count_as_free_and_make_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "runs" / "0001", resolve({}))
    cache = LinkCache(tmp_path / "runs" / ".prepared", DATASET)
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.images").write_bytes(os.urandom(MIB))
        (folder / DATASET).write_text("{}")
        cache.keep(name, folder, 10 * MIB)
        assert limits.idle_mb(run) == pytest.approx(1.0 * (name == "b"), abs=0.1)
        shutil.rmtree(folder)
    monkeypatch.setattr(disk_space, "limit_mb", lambda folder: 5.0)
    facts = run.facts()
    assert limits.disk_mb(run, run.config(), facts) == pytest.approx(7.0, abs=0.1)
    facts.close()
    limits.make_room(run, 5.0)
    assert len(cache.entries()) == 2
    limits.make_room(run, 5.5)
    assert [entry.key for entry in cache.entries()] == ["b"]
    limits.make_room(run, float("inf"))
    assert not cache.entries()
