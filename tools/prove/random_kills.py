"""Kill training at random moments and resume it; the weights must equal those of an undisturbed run.

    python -m tools.prove.random_kills [--kills N] [--seed N] [--json] [--quick]

For each regime an unbroken run gives its time and the sha256 of its weights. Then victims: `edge-trgl train`
gets SIGKILL at a moment drawn uniformly over that time, every phase from start-up to the report included; the
training process alone or the whole tree, by lot. The same command starts again, to be killed again, until it
comes to its end; then its weights are compared. Commits fall after every visit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import CommandError, edge_trgl, job_of, output_of, tree, wait_until_gone

FLAGS = ("--budget-mb", "340", "--data", "sample", "--width", "4", "--batch-size", "16", "--threads", "1")
SETTINGS = ("--set", "train.checkpoint_minutes=0", "--set", "data.limit=200")
REGIMES = {
    "parallel": ("--model", "km-4-1", "--resident", "1", "--chunk", "4", "--epochs", "3"),
    "sequential": ("--model", "km-4-1", "--regime", "sequential", "--epochs", "2"),
    "multi-lap": ("--model", "km-3-1", "--regime", "multi-lap", "--laps", "2", "--epochs", "2", "--views", "2"),
    "end-to-end": ("--model", "km-3-1", "--regime", "end-to-end", "--epochs", "3"),
}
QUICK_REGIMES, QUICK_KILLS = ("sequential",), 3

DONE, WORKER_KILLED = 0, 6
POLL_SECONDS = 0.005


@dataclass(kw_only=True)
class Tally:
    """What happened to the victims of one regime."""

    regime: str
    seconds: float
    sha256: str
    worker: int = 0
    tree: int = 0
    equal: int = 0
    different: int = 0
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        """Kills in all."""
        return self.worker + self.tree

    def document(self) -> dict[str, Any]:
        """As plain values."""
        names = ("regime", "seconds", "kills", "worker", "tree", "equal", "different")
        return {**{name: getattr(self, name) for name in names}, "phases": dict(self.phases)}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    regimes = QUICK_REGIMES if options.quick else tuple(REGIMES)
    num_kills = QUICK_KILLS if options.quick else options.kills
    lots = random.Random(options.seed)
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kill-", dir=RUNS) as scratch:
        shares = [num_kills // len(regimes) + (index < num_kills % len(regimes)) for index in range(len(regimes))]
        work = zip(regimes, shares, strict=True)
        try:
            tallies = [torment(regime, share, lots, Path(scratch)) for regime, share in work]
        except CommandError as error:
            print(json.dumps({"seed": options.seed, "error": str(error), "ok": False}) if options.json else error)
            return 1
    document = judge(tallies, num_kills, options.seed)
    print(json.dumps(document, indent=1) if options.json else table(document))
    return 0 if document["ok"] else 1


def judge(tallies: Sequence[Tally], num_kills: int, seed: int) -> dict[str, Any]:
    """The document; ok if every kill was dealt and every victim has the weights of the unbroken run."""
    ok = sum(tally.kills for tally in tallies) == num_kills and all(
        tally.equal > 0 and tally.different == 0 for tally in tallies
    )
    return {**origin(threads=1), "seed": seed, "regimes": [tally.document() for tally in tallies], "ok": ok}


def torment(regime: str, num_kills: int, lots: random.Random, scratch: Path) -> Tally:
    """Deal `num_kills` kills to runs of one regime; every victim is brought to its end and compared."""
    flags = (*FLAGS, *SETTINGS, *REGIMES[regime])
    print(f"{regime}: unbroken", file=sys.stderr)
    began = time.monotonic()
    summary = json.loads(output_of(_train(flags, scratch / regime)))
    tally = Tally(regime=regime, seconds=time.monotonic() - began, sha256=summary["weights_sha256"])
    number = 0
    while tally.kills < num_kills:
        number += 1
        folder = scratch / f"{regime}-{number}"
        sha256 = _victim(flags, folder, num_kills, lots, tally)
        same = sha256 == tally.sha256
        tally.equal, tally.different = tally.equal + same, tally.different + (not same)
        print(f"{regime}: {tally.kills} kills, {'equal' if same else 'DIFFERENT'}", file=sys.stderr)
        shutil.rmtree(folder)
    return tally


def _victim(flags: Sequence[str], folder: Path, num_kills: int, lots: random.Random, tally: Tally) -> str:
    """Train in `folder`, killed while kills are left, until it is done; the sha256 of its weights."""
    while True:
        moment = lots.uniform(0, tally.seconds) if tally.kills < num_kills else None
        output = _attempt(_train(flags, folder), moment, lots, tally)
        if output is not None:
            return str(json.loads(output)["weights_sha256"])


def _attempt(command: Sequence[str], moment: float | None, lots: random.Random, tally: Tally) -> str | None:
    """One start of the command, killed after `moment` seconds; its output, None if it did not come to its end.

    Raises:
        CommandError: it failed in another way than by the kill.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        killed = moment is not None and _kill_after(process, moment, lots, tally)
        code = process.wait()
        if code == DONE:
            output.seek(0)
            return output.read()
        if not killed or code not in (-signal.SIGKILL, WORKER_KILLED):
            errors.seek(0)
            raise CommandError(f"{' '.join(command)}\nended with code {code}\n{errors.read()[-2000:]}")
    return None


def _kill_after(process: subprocess.Popen[bytes], moment: float, lots: random.Random, tally: Tally) -> bool:
    """Kill the worker or the tree of a process after `moment` seconds; False if it was done before."""
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        time.sleep(POLL_SECONDS)
    pids = tree(process.pid)
    jobs = {pid: job for pid in pids if (job := job_of(pid))}
    phase = next(iter(jobs.values()), "between")
    alone = bool(jobs) and lots.random() < 0.5
    if process.poll() is not None:
        return False
    victims = list(jobs) if alone else pids
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until_gone(victims)
    tally.phases[phase] += 1
    if alone:
        tally.worker += 1
    else:
        tally.tree += 1
    return True


def _train(flags: Sequence[str], folder: Path) -> list[str]:
    return edge_trgl("train", *flags, "--run", str(folder), "--json")


def table(document: dict[str, Any]) -> str:
    """Format the results as text."""
    columns = f"{'kills':>7}{'worker':>8}{'tree':>6}{'equal':>8}{'different':>11}"
    lines = [f"{'regime':12}{columns}  kills by phase"]
    for item in document["regimes"]:
        phases = ", ".join(f"{name} {count}" for name, count in sorted(item["phases"].items()))
        counts = f"{item['kills']:7d}{item['worker']:8d}{item['tree']:6d}"
        counts += f"{item['equal']:8d}{item['different']:11d}"
        lines.append(f"{item['regime']:12}{counts}  {phases}")
    kills = sum(item["kills"] for item in document["regimes"])
    lines.append(f"{kills} kills: " + ("every run equals the unbroken one" if document["ok"] else "NOT OK"))
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("prove.random_kills", __doc__)
    parser.add_argument("--kills", type=int, default=100, help="number of kills over all regimes [100]")
    parser.add_argument("--seed", type=int, default=0, help="random seed [0]")
    parser.add_argument("--json", action="store_true", help="print the document as JSON")
    parser.add_argument("--quick", action="store_true", help="three kills in one regime, to try the tool")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
