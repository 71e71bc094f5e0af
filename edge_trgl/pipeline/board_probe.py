"""Measures this machine for `edge-trgl probe`, and saves the result as a profile. No torch here."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomli_w

from edge_trgl.config.sources import own_profiles
from edge_trgl.jobs.requests import MACHINE, Nothing
from edge_trgl.run.folder import RUNS
from edge_trgl.runtime.errors import OverBudgetError, StoppedError, StorageError, UsageError
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.processes import processor
from edge_trgl.runtime.processes.machine_speed import MachineSpeed
from edge_trgl.runtime.processes.supervisor import run_child
from edge_trgl.runtime.records import Document, document_of, read_record
from edge_trgl.runtime.storage import files, storage_speed

MARK = "# Measured by edge-trgl probe, which replaces this file where it is told to.\n"
SAVE_ELSEWHERE = "Choose another --save."


@dataclass(frozen=True, kw_only=True)
class MeasuredBoard:
    """The section `board` of a profile, as measured; sizes in MiB, disk speeds in MB/s.

    Attributes:
        dtypes: the number types that are at least as fast as fp32.
        storage: the kind of file system and device.
        storage_random_iops: random reads of 4 KiB per second.
        images_per_s: images per second in the local step of the reference module.
        counters: names of the memory counters that can be read.
    """

    name: str
    usable_mb: float
    gpu: str
    dtypes: tuple[str, ...]
    storage: str
    storage_read_mbs: float
    storage_write_mbs: float
    storage_random_iops: float
    images_per_s: float
    counters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BoardProbe:
    """The measurements of a machine: `board` and `device` make a profile, the rest is for people to read.

    Attributes:
        device: where to train, cuda or cpu.
        available_mb: memory available before measuring, in MiB.
        folder: the folder on the measured disk.
        storage_method: how the disk was measured, in words.
        storage_file_mb: size of the file that was written, in MiB.
        relative_speeds: speed of each number type relative to fp32; None where it does not work.
    """

    board: MeasuredBoard
    device: str
    available_mb: float
    folder: str
    storage_method: str
    storage_file_mb: float
    relative_speeds: Mapping[str, float | None]

    def profile(self) -> Document:
        """Return the two sections of a profile."""
        return {"board": document_of(self.board), "defaults": {"train": {"device": self.device}}}

    def document(self) -> Document:
        """Return the JSON object that `edge-trgl probe --json` prints."""
        measured = document_of(self)
        del measured["board"], measured["device"]
        return {**self.profile(), **measured}


def probe(disk: Path | None, say: Callable[[str], None]) -> BoardProbe:
    """Measure this machine and a disk.

    Args:
        disk: a folder on the disk to measure; None for that of the runs.
        say: called with a sentence about what is being measured.

    Raises:
        StorageError: the disk cannot be measured.
        StoppedError: a signal stopped it.
    """
    folder = disk or (RUNS if RUNS.is_dir() else Path())
    available_mb = counters.available_mb()
    say(f"measuring the disk of {folder.resolve()} ...")
    speed = storage_speed.measure(folder)
    say("measuring how fast this machine computes ...")
    machine = _machine(folder)
    return BoardProbe(
        board=_board(folder, speed, machine),
        device=machine.device,
        available_mb=round(available_mb, 1),
        folder=str(folder.resolve()),
        storage_method=speed.method,
        storage_file_mb=speed.file_mb,
        relative_speeds=machine.relative_speeds,
    )


def _machine(folder: Path) -> MachineSpeed:
    arguments = ["-m", "edge_trgl.jobs", MACHINE.name, str(folder), json.dumps(document_of(Nothing()))]
    try:
        outcome = run_child(arguments, on_message=lambda message: None)
    except (OverBudgetError, StoppedError) as error:
        error.hint = "Nothing was saved."  # the usual hint names a run to resume, and there is none
        raise
    return read_record(MachineSpeed, outcome.result)


def _board(folder: Path, speed: storage_speed.StorageSpeed, machine: MachineSpeed) -> MeasuredBoard:
    return MeasuredBoard(
        name=_name(),
        usable_mb=round(counters.total_mb(), 1),
        gpu=machine.gpu,
        dtypes=_worthwhile(machine.relative_speeds),
        storage=storage_speed.kind(folder),
        storage_read_mbs=round(speed.read_mbs, 1),
        storage_write_mbs=round(speed.write_mbs, 1),
        storage_random_iops=round(speed.random_iops, 1),
        images_per_s=round(machine.images_per_s, 1),
        counters=machine.counters,
    )


def _name() -> str:
    name, kinds = processor.board_name(), processor.processor()
    return name or f"{platform.machine() if kinds == 'unknown' else kinds}, {psutil.cpu_count()} CPUs"


def _worthwhile(relative_speeds: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return the number types that are at least as fast as fp32; slower ones are emulated and bring nothing."""
    return tuple(name for name, speed in relative_speeds.items() if speed is not None and speed >= 1)


def profile_file(text: str) -> Path:
    """Return the file that `--save TEXT` writes: TEXT if it ends in .toml, else a user profile of that name.

    Raises:
        UsageError: TEXT is neither, or the file exists and probe did not write it.
    """
    path = Path(text)
    if not text.endswith(".toml"):
        if not text or path.name != text:
            raise UsageError(
                f"--save {text}: this is neither a name nor a .toml file",
                hint="For example --save shed, or --save shed.toml.",
            )
        path = own_profiles() / f"{text}.toml"
    if path.exists() and not _is_ours(path):
        raise UsageError(f"{path} was not written by probe and is not replaced", hint=SAVE_ELSEWHERE)
    return path


def _is_ours(path: Path) -> bool:
    try:
        return path.read_bytes().startswith(MARK.encode())
    except OSError:
        return False


def save(probed: BoardProbe, path: Path) -> None:
    """Write the profile part of the result of `probe` to `path`.

    Raises:
        StorageError: it cannot be written; an older profile is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_durable(path, [MARK.encode(), tomli_w.dumps(probed.profile()).encode()])
    except OSError as error:
        raise StorageError(
            f"{path.parent} cannot be created: {(error.strerror or str(error)).lower()}", hint=SAVE_ELSEWHERE
        ) from error
    except StorageError as error:
        error.hint = SAVE_ELSEWHERE  # the usual hint names a run to resume, and there is none
        raise
