"""Check everything that differs with CUDA on one GPU, in at most ten minutes.

    python -m tools.cuda [--only NAME ...] [--device cuda|cpu] [--threads N] [--minutes N] [--json FILE|-]
                         [--quick]

Checks: `agreement`, every regime against the CPU's numbers; `paging`, paged against resident training, bit for
bit; `memory`, what is counted beside torch's figures and the driver's; `refusal`, an allocation that is refused;
`bf16`; `export`, the network in onnxruntime; `speed`, each regime beside bare PyTorch; `full-speed`, K-M 10-1 of
width 256. Each runs in a process of its own, within its share of the time, and what it found is kept as it comes:
one that hangs or fails costs nothing but itself, and a command that is given again goes on with what is left.
`--device cpu` rehearses all of it with tiny sizes where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.common.book import Book
from tools.common.machine import machine
from tools.common.options import command_line
from tools.common.processes import CommandError, output_of, tree
from tools.common.programs import RESULTS, program
from tools.cuda.checks import CHECKS, Setting

RESULT = RESULTS / "check_cuda.json"
SECTION, MINUTES = "checks", 10.0
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""cuBLAS must be told before it starts; it costs the other checks nothing but 32 MiB."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    there = json.loads(output_of(_command("machine", {})))
    if options.device == "cuda" and there["gpu"] is None:
        print(
            "There is no CUDA device here that torch can use; --device cpu rehearses the checks.", file=sys.stderr
        )
        return 2
    file = None if options.json == "-" else Path(options.json or RESULT)
    settings = {**machine(options.threads), **there, "device": options.device, "quick": options.quick}
    book = Book(file, settings)
    RUNS.mkdir(exist_ok=True)
    # Beside the runs and not in /tmp, which is memory on many boards.
    with tempfile.TemporaryDirectory(prefix=".cuda-", dir=RUNS) as scratch:
        _check_all(book, options, Path(scratch).absolute())
    found = book.items(SECTION)
    verdict = {"ok": len(found) == len(CHECKS) and all(item["ok"] for item in found)}
    book.save(verdict)
    print(json.dumps(book.document(verdict), indent=1) if options.json == "-" else table(found))
    return 0 if all(item["ok"] for item in found) else 1


def _check_all(book: Book, options: argparse.Namespace, scratch: Path) -> None:
    for name in options.only or CHECKS:
        known = book.find(SECTION, name)
        if known and known["ok"] and not options.only:
            continue
        setting = Setting(
            device=options.device, quick=options.quick, threads=options.threads, scratch=scratch / "runs"
        )
        setting.scratch.mkdir(exist_ok=True)
        print(f"{name}: {CHECKS[name].title} ...", file=sys.stderr)
        book.put(SECTION, name, run_check(name, setting, CHECKS[name].seconds * options.minutes / MINUTES))


def run_check(name: str, setting: Setting, seconds: float) -> dict[str, Any]:
    """What the check found in its own process, as plain values; `error`: why it found nothing."""
    options = {**asdict(setting), "scratch": str(setting.scratch)}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            _command(name, options),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **DETERMINISTIC},
        )
        try:
            output, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return _failure(name, f"it was not done after {seconds:.0f} s")
        finally:
            end(child)
        errors.seek(0)
        said = errors.read()
    if child.returncode != 0:
        return _failure(name, f"it ended with code {child.returncode}\n{said[-2000:]}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def end(child: subprocess.Popen[str]) -> None:
    """Let a process and all under it go."""
    if child.poll() is None:
        for pid in tree(child.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.communicate()


def _failure(name: str, error: str) -> dict[str, Any]:
    return {"name": name, "ok": False, "details": {}, "skipped": None, "error": error}


def _command(name: str, options: Mapping[str, Any]) -> list[str]:
    return program("cuda.one_check", name, json.dumps(options))


def table(found: list[dict[str, Any]]) -> str:
    """One line a check, and of what failed why."""
    lines = []
    for item in found:
        verdict = "ok    " if item["ok"] else "FAILED"
        title = CHECKS[item["name"]].title + (f" ({item['skipped']})" if item["skipped"] else "")
        lines.append(f"{verdict}  {item['name']:11s} {title}")
        if not item["ok"]:
            lines.append(item.get("error") or json.dumps(item["details"], indent=1))
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("cuda", __doc__)
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="checks to run [all that have not passed yet]")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses with tiny sizes [cuda]"
    )
    parser.add_argument("--threads", type=int, default=8, help="CPU threads of every run [8]")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"time limit of all checks together [{MINUTES:.0f}]"
    )
    parser.add_argument("--json", metavar="FILE|-", help="file that keeps the results; - prints them as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to try the tool")
    options = parser.parse_args(arguments)
    options.quick = options.quick or options.device == "cpu"
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        sys.exit(str(error))
