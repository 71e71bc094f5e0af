"""Run the demo, a killed and resumed run, and the tests on an aarch64 Debian under qemu.

    python -m tools.arm [--root DIR] [--logs DIR] [--mirror URL] [--processor NAME] [--with PIN ...]
                        [--tests PATH ...] [--again] [--out FILE] [--json] [--quick]

For root on an x86 Debian with `apt-get install qemu-user-static debootstrap`; elsewhere it says what is missing
and does nothing. --root gets a Debian (debootstrap, --mirror), the pins of constraints.txt as aarch64 has them
(--with takes others, torch==2.9.1 say) and this source: what is there already stays, and a step that went well is
not repeated, unless --again. The steps: plan, train, a run that is killed with SIGKILL in its middle and resumed
to the weights of the first one, export, predict, bench, report, and those --tests that make sense there. --logs
gets what each of them said, --out the document. --quick leaves the tests out.

What is shown is that it works on --processor: qemu tells nothing of speed, nor of memory. It shows the host's
/proc/cpuinfo, refuses no allocation for RLIMIT_DATA, and gives no brk back: tests of these fail there. A process
that forks when torch has threads may hang there, as the guard's tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tools.arm.root import QEMU, MissingError, Root, build, check_host, mounted
from tools.common.machine import commit, today
from tools.common.options import command_line
from tools.common.processes import tree, wait_until_gone
from tools.common.programs import RESULTS

FLAGS = (
    *("--budget-mb", "4000", "--data", "sample", "--model", "km-3-1", "--width", "4", "--batch-size", "16"),
    *("--threads", "1", "--epochs", "4", "--resident", "1", "--chunk", "4"),
    *("--set", "train.checkpoint_minutes=0", "--set", "data.limit=200"),
)
KILL_AT = 4
"""Visits that are committed when the run is killed, of some tens."""

TESTS = (
    *(
        "tests/runtime/processes/test_processor.py",
        "tests/runtime/processes/test_supervisor.py",
        "tests/runtime/storage/test_files.py",
    ),
    *("tests/runtime/memory/test_guard.py::TestRefused", "tests/runtime/memory/test_allocator.py"),
    *("tests/runtime/storage/test_safetensors_file.py", "tests/runtime/storage/test_safetensors_header.py"),
)
POLL_SECONDS = 0.05
FACTS = "import json, os, torch, numpy, onnxruntime as o; print(json.dumps(dict(torch=torch.__version__, \
numpy=numpy.__version__, onnxruntime=o.__version__, machine=os.uname().machine, \
capability=torch.backends.cpu.get_cpu_capability())))"


class StepError(Exception):
    """A step failed; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where steps run, and where what they say goes."""

    root: Root
    logs: Path
    tests: tuple[str, ...]

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `python3 ARGUMENTS`, its output in the log `name`.out and its errors in `name`.err."""
        with (self.logs / f"{name}.out").open("wb") as out, (self.logs / f"{name}.err").open("wb") as errors:
            return self.root.start("python3", *arguments, output=out.fileno(), errors=errors.fileno())

    def said(self, name: str) -> str:
        """What the command of that log printed."""
        return (self.logs / f"{name}.out").read_text()

    def run(self, name: str, *arguments: str) -> str:
        """Run it to its end; returns what it printed.

        Raises:
            StepError: it ended with another code than 0.
        """
        code = self.start(name, *arguments).wait()
        if code != 0:
            raise StepError(f"it ended with code {code}")
        return self.said(name)

    def edge_trgl(self, name: str, *arguments: str) -> str:
        """The same of `edge-trgl ARGUMENTS`."""
        return self.run(name, "-m", "edge_trgl", *arguments)


def libraries(bench: Bench) -> dict[str, Any]:
    """What is imported, and what torch makes of the processor."""
    facts: dict[str, Any] = json.loads(bench.run("libraries", "-c", FACTS))
    return facts


def plan(bench: Bench) -> dict[str, Any]:
    """Counted and measured, as before training."""
    shutil.rmtree(bench.root.work / "planned", ignore_errors=True)
    bench.edge_trgl("plan", "plan", *FLAGS, "--json")
    return {}


def train(bench: Bench) -> dict[str, Any]:
    """Without a break."""
    shutil.rmtree(bench.root.work / "whole", ignore_errors=True)
    summary = json.loads(bench.edge_trgl("train", "train", *FLAGS, "--run", "whole", "--json"))
    return {"weights_sha256": summary["weights_sha256"]}


def kill(bench: Bench) -> dict[str, Any]:
    """Killed with SIGKILL, all processes of it, and resumed."""
    folder = bench.root.work / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    process = bench.start("killed", "-m", "edge_trgl", "train", *FLAGS, "--run", "killed", "--json")
    while _position(folder) < KILL_AT:
        if process.poll() is not None:
            raise StepError(f"it ended with code {process.returncode} before it was killed")
        time.sleep(POLL_SECONDS)
    victims = tree(process.pid)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until_gone(victims)
    if process.wait() != -signal.SIGKILL:
        raise StepError(f"it ended with code {process.returncode} while it was killed")
    position = _position(folder)
    summary = json.loads(bench.edge_trgl("resumed", "resume", "killed", "--json"))
    whole = json.loads(bench.said("train"))
    if summary["weights_sha256"] != whole["weights_sha256"]:
        raise StepError(f"killed after {position} visits, it has other weights than the run without a break")
    return {"killed_after_visits": position, "restarts": summary["restarts"], "weights_equal": True}


def _position(folder: Path) -> int:
    """Of the last commit; 0 before there is a database."""
    with suppress(sqlite3.OperationalError, IndexError):
        database = sqlite3.connect(f"file:{folder / 'state.db'}?mode=ro", uri=True)
        try:
            return int(database.execute("SELECT position FROM run").fetchall()[0][0])
        finally:
            database.close()
    return 0


def export(bench: Bench) -> dict[str, Any]:
    """Traced, written, checked, and compared with torch in onnxruntime."""
    bench.edge_trgl("export", "export", "whole")
    return {"largest_difference": _largest(json.loads((bench.root.work / "whole/export.json").read_text()))}


def _largest(document: Any) -> float:
    """The largest `max_abs_diff` anywhere in `document`."""
    if isinstance(document, dict):
        here = [document["max_abs_diff"]] if "max_abs_diff" in document else []
        return max([*here, *map(_largest, document.values())], default=0.0)
    return max(map(_largest, document), default=0.0) if isinstance(document, list) else 0.0


def predict(bench: Bench) -> dict[str, Any]:
    """Of image files, without torch."""
    photos = bench.root.work / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(3):
        Image.new("L", (28 + number, 28), 80 * number).save(photos / f"{number}.png")
    lines = bench.edge_trgl("predict", "predict", "whole", "photos", "--json").splitlines()
    if len(lines) != 3:
        raise StepError(f"of 3 images, it classified {len(lines)}")
    return {"images": len(lines)}


def bench_step(bench: Bench) -> dict[str, Any]:
    """That it runs: what it measures is the emulator."""
    bench.edge_trgl("bench", "bench", "whole", "--threads", "1", "--runs", "5", "--json")
    return {}


def report(bench: Bench) -> dict[str, Any]:
    """One page."""
    bench.edge_trgl("report", "report", "whole")
    return {"bytes": (bench.root.work / "whole/report.html").stat().st_size}


def tests(bench: Bench) -> dict[str, Any]:
    """Failures are a result, too: they are named."""
    paths = [f"/opt/edge-trgl/{path}" for path in bench.tests]
    options = ("-rf", "--tb=short", "-p", "no:cacheprovider", "-c", "/opt/edge-trgl/setup.cfg")
    bench.start("tests", "-m", "pytest", *options, *paths).wait()
    return {"paths": list(bench.tests), **_counted(bench.said("tests"))}


def _counted(said: str) -> dict[str, Any]:
    """What pytest's last lines tell.

    Raises:
        StepError: it has no such lines.
    """
    lines = said.splitlines()
    if not lines or " passed" not in lines[-1]:
        raise StepError("they did not come to their end")
    failures = [line.split()[1] for line in lines if line.startswith("FAILED ")]
    return {"summary": lines[-1], "failures": [name.removeprefix("../opt/edge-trgl/") for name in failures]}


STEPS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "libraries": libraries,
    "plan": plan,
    "train": train,
    "kill": kill,
    "export": export,
    "predict": predict,
    "bench": bench_step,
    "report": report,
    "tests": tests,
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    try:
        check_host()
    except MissingError as error:
        print(json.dumps({"skipped": str(error)}) if options.json else f"skipped: {error}")
        return 0
    options.logs.mkdir(parents=True, exist_ok=True)
    root = Root(path=options.root.resolve(), processor=options.processor)
    pins = build(root, options.mirror, options.replaced)
    names = [name for name in STEPS if not (options.quick and name == "tests")]
    bench = Bench(root=root, logs=options.logs, tests=tuple(options.tests))
    document = {
        "date": today(),
        "commit": commit(),
        "emulator": _version(),
        "processor": options.processor,
        "pins": pins,
    }
    with mounted(root):
        steps = []
        for name in names:
            steps.append(_once(name, bench, again=options.again))
            document |= {"steps": steps, "ok": len(steps) == len(names) and all(step["ok"] for step in steps)}
            options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if options.json else _text(document))
    return 0 if document["ok"] else 1


def _once(name: str, bench: Bench, *, again: bool) -> dict[str, Any]:
    """Do a step that has not gone well before."""
    kept = bench.logs / f"{name}.json"
    if kept.exists() and not again:
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["ok"]:
            return found
    print(f"{name} ...", file=sys.stderr)
    began = time.monotonic()
    try:
        step = {"name": name, "ok": True, **STEPS[name](bench)}
    except StepError as error:
        step = {"name": name, "ok": False, "error": str(error)}
    step["seconds"] = round(time.monotonic() - began)
    kept.write_text(json.dumps(step))
    return step


def _text(document: dict[str, Any]) -> str:
    lines = [f"{document['emulator']}, {document['processor']}"]
    for step in document["steps"]:
        facts = ", ".join(f"{key} {value}" for key, value in step.items() if key not in ("name", "ok", "failures"))
        lines.append(f"{step['name']:10} {'ok' if step['ok'] else 'FAILED':7} {facts}")
        lines += [f"{'':18} failed: {failure}" for failure in step.get("failures", [])]
    return "\n".join(lines)


def _version() -> str:
    shown = subprocess.run([QEMU, "--version"], check=True, capture_output=True, text=True)
    return shown.stdout.splitlines()[0]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("arm", __doc__)
    parser.add_argument(
        "--root", type=Path, default=Path("/var/tmp/arm-root"), help="folder of the Debian [/var/tmp/arm-root]"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("/var/tmp/arm-logs"), help="folder of the logs [/var/tmp/arm-logs]"
    )
    parser.add_argument("--mirror", help="mirror of Debian [debootstrap's own]")
    parser.add_argument(
        "--processor", default="cortex-a72", help="processor to emulate, as qemu names it [cortex-a72]"
    )
    parser.add_argument(
        "--with",
        dest="replaced",
        nargs="+",
        default=[],
        metavar="PIN",
        help="versions that replace those of constraints.txt",
    )
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="test files or folders to run")
    parser.add_argument("--again", action="store_true", help="repeat steps that have passed")
    parser.add_argument("--out", type=Path, default=RESULTS / "emulate_arm.json", help="file of the results")
    parser.add_argument("--json", action="store_true", help="print the document as JSON")
    parser.add_argument("--quick", action="store_true", help="leave the tests out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
