"""`edge-trgl probe`: what it measures, what it prints, and the profile that it writes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner

from edge_trgl.cli.command import cli
from edge_trgl.config.sources import read_profile, read_toml, resolve
from edge_trgl.pipeline import board_probe
from edge_trgl.planning import machine
from edge_trgl.runtime.errors import OverBudgetError, StoppedError, StorageError, UsageError
from edge_trgl.runtime.memory import counters, high_water
from edge_trgl.runtime.processes import processor
from edge_trgl.runtime.processes.machine_speed import MachineSpeed
from edge_trgl.runtime.records import read_record
from edge_trgl.runtime.storage import files, storage_speed
from edge_trgl.runtime.storage.storage_speed import StorageSpeed
from edge_trgl.runtime.units import MIB

SPEED = StorageSpeed(read_mbs=88.14, write_mbs=30.2, random_iops=2811.0, method="O_DIRECT", file_mb=64.0)
MACHINE = {
    "device": "cpu",
    "gpu": "none",
    "images_per_s": 61.34,
    "relative_speeds": {"fp32": 1.0, "fp16": None, "bf16": 0.213},
    "counters": ["VmHWM reset", "memory cgroup"],
}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A machine that takes no time to measure; the list of what was measured."""
    asked = []

    def measure(folder):
        asked.append(folder)
        return SPEED

    def compute(folder):
        asked.append("machine")
        return read_record(MachineSpeed, MACHINE)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(storage_speed, "measure", measure)
    monkeypatch.setattr(storage_speed, "kind", lambda folder: "ext4 on mmcblk0p2")
    monkeypatch.setattr(board_probe, "_machine", compute)
    return asked


def probe(*arguments):
    result = CliRunner().invoke(cli, ["probe", *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


class TestPrinting:
    def test_the_table(self, measured, tmp_path, monkeypatch):
        monkeypatch.setattr(processor, "board_name", lambda: "Raspberry Pi 5 Model B Rev 1.0")
        monkeypatch.setattr(counters, "total_mb", lambda: 8051.25)
        monkeypatch.setattr(counters, "available_mb", lambda: 7400.0)
        assert probe().stdout.splitlines() == [
            "machine     Raspberry Pi 5 Model B Rev 1.0",
            "memory      8051 MiB, 7400 available now",
            "GPU         none",
            f"disk        ext4 on mmcblk0p2, under {tmp_path.resolve()}",
            "  write     30 MB/s (64 MiB, O_DIRECT)",
            "  read      88 MB/s",
            "  at random 2811 reads of 4 KiB a second",
            "speed       61 images/s on cpu (training one K-M module of width 64, 32x32, batch 32)",
            "arithmetic  fp32, fp16 not supported, bf16 0.21 times as fast",
            "counters    VmHWM reset, memory cgroup",
        ]

    def test_what_is_being_done_is_told_apart_from_the_result(self, measured):
        assert probe().stderr.count("measuring") == 2

    def test_json(self, measured, tmp_path):
        document = json.loads(probe("--json").stdout)
        assert set(document) == {
            *("board", "defaults", "available_mb", "folder"),
            *("storage_method", "storage_file_mb", "relative_speeds"),
        }
        assert 0 < document["available_mb"] < document["board"]["usable_mb"]
        assert document["folder"] == str(tmp_path.resolve())

    def test_without_save_nothing_is_written(self, measured, tmp_path):
        probe()
        assert list(tmp_path.iterdir()) == []

    def test_memory_that_looks_like_a_disk_is_named(self, measured, tmp_path, monkeypatch):
        monkeypatch.setattr(storage_speed, "kind", lambda folder: "tmpfs on tmpfs")
        assert f"{tmp_path.resolve()} is in memory; --disk FOLDER" in probe().stdout.splitlines()[-1]

    def test_a_machine_without_a_device_tree_is_named_by_its_processor(self, measured, tmp_path, monkeypatch):
        monkeypatch.setattr(processor, "board_name", lambda: None)
        monkeypatch.setattr(processor, "processor", lambda: "Fast One")
        assert json.loads(probe("--json").stdout)["board"]["name"].startswith("Fast One, ")
        monkeypatch.setattr(processor, "processor", lambda: "unknown")
        name = json.loads(probe("--json").stdout)["board"]["name"]
        assert name == f"{os.uname().machine}, {os.cpu_count()} CPUs"


class TestFolder:
    def test_the_current_one_where_there_are_no_runs(self, measured):
        probe()
        assert measured[0] == Path()

    def test_that_of_the_runs(self, measured, tmp_path):
        (tmp_path / "runs").mkdir()
        probe()
        assert measured[0] == Path("runs")

    def test_another_one(self, measured, tmp_path):
        (tmp_path / "runs").mkdir()
        probe("--disk", "else")
        assert measured[0] == Path("else")


class TestSaving:
    def test_a_name_is_what_profile_takes(self, measured, tmp_path):
        told = probe("--save", "shed").stderr
        file = tmp_path / "config" / "edge-trgl" / "profiles" / "shed.toml"
        assert f"saved as {file}; --profile shed uses it" in told
        config = resolve(read_profile("shed"))
        assert (config.board.storage_read_mbs, config.board.storage_random_iops) == (88.1, 2811)
        assert (config.board.images_per_s, config.board.counters) == (61.3, ("VmHWM reset", "memory cgroup"))
        assert config.board.estimates == ()
        assert config.train.device == "cpu"

    def test_a_path_is_a_file(self, measured, tmp_path):
        document = json.loads(probe("--save", "deep/er/mine.toml", "--json").stdout)
        assert read_toml(tmp_path / "deep/er/mine.toml") == {
            "board": document["board"],
            "defaults": document["defaults"],
        }
        assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["mine.toml"]

    def test_its_own_file_is_replaced(self, measured, monkeypatch):
        probe("--save", "mine.toml")
        monkeypatch.setitem(MACHINE, "images_per_s", 7.0)
        probe("--save", "mine.toml")
        assert resolve(read_profile("mine.toml")).board.images_per_s == 7

    @pytest.mark.parametrize("content", [b"[board]\n", b"", b"\xff\xfe"])
    def test_another_file_is_not(self, measured, tmp_path, content):
        (tmp_path / "mine.toml").write_bytes(content)
        with pytest.raises(UsageError, match=r"mine\.toml was not written by probe and is not replaced"):
            probe("--save", "mine.toml")
        assert (tmp_path / "mine.toml").read_bytes() == content
        assert measured == []

    def test_nor_is_a_folder(self, measured, tmp_path):
        (tmp_path / "mine.toml").mkdir()
        with pytest.raises(UsageError, match="not written by probe"):
            probe("--save", "mine.toml")

    @pytest.mark.parametrize("text", ["a/b", "/tmp/x", "", "x/"])
    def test_what_is_neither_a_name_nor_a_file_is_refused(self, measured, text):
        with pytest.raises(UsageError, match=r"is neither a name nor a \.toml file"):
            probe("--save", text)
        assert measured == []

    def test_a_folder_that_cannot_be_made(self, measured, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="file cannot be created: file exists"):
            probe("--save", "file/mine.toml")

    def test_a_full_disk_leaves_the_old_profile(self, measured, tmp_path, monkeypatch):
        class Full(files.FileSystem):
            def pwrite(self, fd, data, offset):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        probe("--save", "mine.toml")
        before = (tmp_path / "mine.toml").read_bytes()
        monkeypatch.setattr(files, "system", Full())
        with pytest.raises(StorageError, match="the disk is full") as caught:
            probe("--save", "mine.toml")
        assert caught.value.hint == "Choose another --save."
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]

    @pytest.mark.parametrize(
        ("speeds", "expected"),
        [
            ({"fp32": 1.0, "fp16": 2.1, "bf16": 1.0}, ["fp32", "fp16", "bf16"]),
            ({"fp32": 1.0, "fp16": 0.99, "bf16": None}, ["fp32"]),
        ],
    )
    def test_a_type_that_is_slower_than_fp32_has_no_use(self, measured, monkeypatch, speeds, expected):
        monkeypatch.setitem(MACHINE, "relative_speeds", speeds)
        assert json.loads(probe("--json").stdout)["board"]["dtypes"] == expected


@pytest.mark.parametrize("error", [StoppedError, OverBudgetError])
def test_there_is_no_run_to_go_on_with(tmp_path, monkeypatch, error):
    def fail(arguments, *, on_message):
        raise error("stopped", hint="resume it")

    monkeypatch.setattr(board_probe, "run_child", fail)
    with pytest.raises(error) as caught:
        board_probe.probe(tmp_path, lambda text: None)
    assert caught.value.hint == "Nothing was saved."


class TestMachine:
    @pytest.fixture
    def quick(self, monkeypatch):
        """Small tensors and few steps."""
        monkeypatch.setattr(machine, "WIDTH", 4)
        monkeypatch.setattr(machine, "SIDE", 8)
        monkeypatch.setattr(machine, "BATCH_SIZE", 4)
        monkeypatch.setattr(machine, "SECONDS", 0.0)

    def test_all_is_measured(self, quick):
        found = asdict(machine.measure())
        assert set(found) == set(MACHINE)
        assert found["images_per_s"] > 0
        assert found["relative_speeds"]["fp32"] == 1
        assert set(found["relative_speeds"]) == {"fp32", "fp16", "bf16"}
        assert (found["device"] == "cuda") == ("CUDA" in found["counters"]) == (found["gpu"] != "none")

    def test_a_type_that_torch_cannot_compute_in(self, quick, monkeypatch):
        monkeypatch.setattr(machine, "NARROW", {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn})
        speeds = machine._relative_speeds("cpu")
        assert speeds["bf16"] > 0
        assert speeds["fp8"] is None

    def test_the_median_counts_after_a_step_that_loads(self, monkeypatch):
        """Steps of 1, 5 and 2 s, and one before them that is not timed."""
        moments = iter([0.0, 1.0, 1.0, 6.0, 6.0, 8.0])
        monkeypatch.setattr(machine.time, "perf_counter", lambda: next(moments))
        steps = []
        assert machine._seconds(lambda: steps.append(1)) == 2.0
        assert len(steps) == 4

    def test_fast_steps_are_many(self, monkeypatch):
        monkeypatch.setattr(machine, "SECONDS", 1e9)
        steps = []
        machine._seconds(lambda: steps.append(1))
        assert len(steps) == 1 + machine.MAX_STEPS

    def test_counters_that_are_not_there(self, monkeypatch):
        for name in ("_mark_falls", "_has_cgroups"):
            monkeypatch.setattr(machine, name, lambda: False)
        monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
        assert machine._counters(cuda=False) == []
        monkeypatch.setattr(machine.os, "access", lambda path, mode: path.name == "clients")
        assert machine._counters(cuda=True) == ["CUDA", "nvmap"]

    def test_a_mark_that_cannot_be_reset(self, monkeypatch):
        assert machine._mark_falls() == _mark_can_be_reset()
        monkeypatch.setattr(high_water, "reset", lambda process=high_water.SELF: None)
        assert not machine._mark_falls()


def _mark_can_be_reset():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def command(*arguments):
    return [sys.executable, "-m", "edge_trgl", *arguments]


@pytest.mark.slow
def test_a_real_machine(tmp_path, monkeypatch):
    """Measured, saved, and used by its name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    document = json.loads(subprocess.run(command("probe", "--save", "here", "--json"), **options).stdout)
    assert document["storage_file_mb"] <= 64
    assert min(document["board"][name] for name in ("storage_read_mbs", "images_per_s", "usable_mb")) > 0
    assert document["board"]["dtypes"][0] == "fp32"
    assert [path.name for path in tmp_path.iterdir()] == ["config"]
    dry = subprocess.run(command("train", "--profile", "here", "--dry-run"), **options).stdout
    assert f"storage_read_mbs = {document['board']['storage_read_mbs']}" in dry
    assert f'device = "{document["defaults"]["train"]["device"]}"' in dry


def test_a_disk_that_cannot_be_measured(tmp_path):
    done = subprocess.run(command("probe", "--disk", "nowhere"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert "nowhere cannot be measured: no such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_interrupted(tmp_path, start, number, code):
    process = start("probe", "--save", "mine.toml", until="computes")
    _wait_for_a_child(process.pid)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait() == code, rest
    assert "Traceback" not in rest
    assert "Nothing was saved." in rest
    assert list(tmp_path.iterdir()) == []


def _wait_for_a_child(pid):
    """Until it computes, for a signal before it is listened for ends the parent alone."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not any(_is_a_job(int(child)) for child in children.read_text().split()):
        time.sleep(0.01)


def _is_a_job(pid):
    # Its memory is the parent's until its command line is its own.
    process = psutil.Process(pid)
    return "edge_trgl.jobs" in process.cmdline() and process.memory_info().rss > 20 * MIB


def test_the_parent_is_light():
    code = "import edge_trgl.pipeline.board_probe, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
