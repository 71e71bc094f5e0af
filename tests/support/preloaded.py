"""Runs jobs and commands in processes forked from one that has torch loaded; loading takes longer than a tiny run.

The memory that such a process reports means nothing: it begins with that of the process it was forked from.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TextIO

from edge_trgl.runtime.processes import supervisor
from edge_trgl.runtime.processes.messages import DESCRIPTOR
from edge_trgl.runtime.processes.supervisor import Child
from edge_trgl.runtime.records import document_of

# Not a fork of the suite's own process, which has threads and grows from test to test.
_CONTEXT = multiprocessing.get_context("forkserver")
_JOBS = [f"edge_trgl.jobs.{name}" for name in ("check", "count", "export", "probe", "report", "train")]
_MODULES = ["edge_trgl.cli.command", *_JOBS, "edge_trgl.report.plots", "jinja2"]
_CONTEXT.set_forkserver_preload(_MODULES)


def start(name: str, folder: Path, errors: Path, request: Any) -> BaseProcess:
    """Start `python -m edge_trgl.jobs NAME FOLDER REQUEST`, with its standard error in the file `errors`."""
    process = _CONTEXT.Process(target=_job, args=([name, str(folder), json.dumps(document_of(request))], errors))
    process.start()
    return process


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `edge-trgl ARGUMENTS` in `folder`; its jobs are forked from it."""
    with TemporaryDirectory() as temporary:
        out, errors = Path(temporary, "out"), Path(temporary, "errors")
        process = _CONTEXT.Process(target=_command, args=(folder, arguments, out, errors))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), errors.read_text())


def started(arguments: Sequence[str], settings: Mapping[str, str]) -> tuple[Child, TextIO]:
    """Start a child as `supervisor._started` does, but by a fork of this process."""
    for module in _MODULES:
        importlib.import_module(module)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.environ.update({**settings, DESCRIPTOR: str(writing)})
        _become([(Path(os.devnull), os.O_RDONLY, 0)])
        os.dup2(2, 1)
        _leave(arguments[2:])
    os.close(writing)
    return Child(pid), os.fdopen(reading, encoding="utf-8")


def _job(arguments: Sequence[str], errors: Path) -> None:
    _become([(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 2)])
    _leave(arguments)


def _command(folder: Path, arguments: Sequence[str], out: Path, errors: Path) -> None:
    from edge_trgl.cli.app import main

    _become([(out, os.O_CREAT | os.O_WRONLY, 1), (errors, os.O_CREAT | os.O_WRONLY, 2)])
    os.chdir(folder)
    supervisor._started = started
    sys.argv = ["edge-trgl", *arguments]
    main()


def _become(streams: Sequence[tuple[Path, int, int]]) -> None:
    """Redirect streams, given as (path, open flags, descriptor), and restore the default signal handlers."""
    for path, flags, descriptor in streams:
        os.dup2(os.open(path, flags), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(arguments: Sequence[str]) -> NoReturn:
    from edge_trgl.jobs.__main__ import main

    code = 1
    try:
        sys.argv = ["edge_trgl.jobs", *arguments]
        code = main()
    except BaseException:  # noqa: BLE001 - a job that crashed
        traceback.print_exc()
    finally:
        os._exit(code)
