"""Compare training with and without some savings where PyTorch lies on a slow disk.

    python -m tools.bench.slow_disk --without NAMES [--rounds N] [--threads N] [--mbs X] [--json FILE|-]

PyTorch is copied to a loop device that is slowed to 20 MB/s, and a run trains in a memory cgroup of its budget and
a little page cache: what it gave back of its libraries may have to be read from the slow disk again. Runs with all
savings and runs without those named take turns. It needs root and cgroups of version 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from edge_trgl.runtime.memory.cgroup import CgroupUnavailableError, memory_cgroup
from edge_trgl.runtime.units import MIB
from tools.common.intervals import median_ratio
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import CommandError, edge_trgl, output_of

BLKIO = Path("/sys/fs/cgroup/blkio")
DEVICE_MB = 1536
"""MiB of the loop device: PyTorch's package and room for it."""

CACHE_MB = 48
"""MiB of page cache that a run has beside its budget."""

RUN = ("train", "--model", "km-10-1", "--width", "16", "--no-probe")
JOIN = ("sh", "-c", 'for g in "$1" "$2"; do echo $$ > "$g/cgroup.procs"; done; shift 2; exec "$@"', "sh")
"""Joins two groups and then runs a command."""

LIMIT = 1.05


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The slow disk: where it is mounted, and the group whose processes read it slowly."""

    folder: Path
    group: Path


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".slow-", dir=RUNS) as scratch:
        try:
            found = _measure(options, Path(scratch).absolute())
        except (OSError, CommandError, CgroupUnavailableError) as error:
            print(f"that cannot be measured here: {error}", file=sys.stderr)
            return 2
    document = {**origin(options.threads), **found}
    if options.json not in (None, "-"):
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if options.json == "-" else "\n".join(lines(document)))
    return 0 if document["ok"] else 1


def judge(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """The ratio of training times with and without the savings, and major faults a minute.

    Args:
        rows: a round each: by arm (`with`, `without`), `seconds` of training and `faults`.
    """
    median, low, high = median_ratio([(row["with"]["seconds"], row["without"]["seconds"]) for row in rows])
    minutes = {arm: sum(row[arm]["seconds"] for row in rows) / 60 for arm in ("with", "without")}
    faults = {arm: sum(row[arm]["faults"] for row in rows) / minutes[arm] for arm in minutes}
    return {"median": median, "low": low, "high": high, "faults_per_minute": faults, "ok": median <= LIMIT}


def lines(document: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    faults = document["faults_per_minute"]
    return [
        f"time with / without {document['without']}: {document['median']:.3f} "
        f"[{document['low']:.3f}, {document['high']:.3f}], at most {LIMIT}",
        f"major faults a minute: {faults['with']:.0f} with, {faults['without']:.0f} without",
    ]


def _measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    arms = {"with": (), "without": ("--without", options.without)}
    with _slow_disk(scratch, options.mbs) as disk:
        rows = [
            {arm: _trained(disk, scratch / f"{number}-{arm}", options, more) for arm, more in arms.items()}
            for number in range(options.rounds + 1)
        ][1:]  # the first prepares the data
    return {"without": options.without, "mbs": options.mbs, "rounds": rows, **judge(rows)}


def _trained(disk: Disk, run: Path, options: argparse.Namespace, more: Sequence[str]) -> dict[str, float]:
    """Seconds of training in a cgroup of the budget and a little page cache, and major faults of all processes."""
    _forget(disk.folder)
    command = edge_trgl(
        *RUN, "--budget-mb", str(options.budget_mb), "--epochs", str(options.epochs), "--data", "sample"
    )
    command += ["--threads", str(options.threads), "--run", str(run), "--json", *more]
    with memory_cgroup(options.budget_mb + CACHE_MB, f"edge-trgl-slow-{os.getpid()}") as group:
        done = subprocess.run(
            [*JOIN, str(group.path), str(disk.group), *command],
            env={**os.environ, "PYTHONPATH": f"{disk.folder}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(done.stderr[-2000:])
        faults = _major_faults(group.path)
    shutil.rmtree(run)
    return {"seconds": float(json.loads(done.stdout)["time_s"]), "faults": faults}


def _major_faults(group: Path) -> int:
    """Of the processes that are or were in a memory cgroup."""
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(counts["pgmajfault"])


@contextmanager
def _slow_disk(scratch: Path, mbs: float) -> Iterator[Disk]:
    """A file system on a loop device with a copy of PyTorch; the group's processes read it at `mbs` MB/s."""
    image, folder, group = scratch / "image", scratch / "disk", BLKIO / f"edge-trgl-slow-{os.getpid()}"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(DEVICE_MB * MIB)
    with ExitStack() as stack:
        loop = output_of(["losetup", "--find", "--show", str(image)]).strip()
        stack.callback(subprocess.run, ["losetup", "--detach", loop], check=False)
        output_of(["mkfs.ext4", "-q", loop])
        output_of(["mount", loop, str(folder)])
        stack.callback(subprocess.run, ["umount", str(folder)], check=False)
        spec = find_spec("torch")
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, folder / "torch", symlinks=True)
        os.sync()
        group.mkdir()
        stack.callback(group.rmdir)
        device = (Path("/sys/block") / Path(loop).name / "dev").read_text().strip()
        (group / "blkio.throttle.read_bps_device").write_text(f"{device} {mbs * 1e6:.0f}")
        yield Disk(folder=folder, group=group)


def _forget(folder: Path) -> None:
    """Drop all files below `folder` from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.slow_disk", __doc__)
    parser.add_argument("--without", default="diet,file-pages", metavar="NAMES", help="savings [diet,file-pages]")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs [5]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument("--mbs", type=float, default=20.0, help="MB/s of the disk [20]")
    parser.add_argument("--budget-mb", type=int, default=320, help="budget of a run [320]")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a run [4]")
    parser.add_argument("--json", metavar="FILE|-", help="write the figures to a file of JSON, or print it")
    parser.add_argument("--quick", action="store_true", help="two short rounds, only to try the tool")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.epochs = 2, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
