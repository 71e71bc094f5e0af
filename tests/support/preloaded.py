"""Jobs as processes of their own that need not load torch anew, which takes longer than to train a tiny run.

One process loads what training needs, and every job is forked from it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["edge_trgl.jobs.work"])


def start(name: str, folder: Path, errors: Path, **options: Any) -> BaseProcess:
    """`python -m edge_trgl.jobs NAME FOLDER OPTIONS`, with its standard error in a file."""
    process = _CONTEXT.Process(target=_job, args=(name, str(folder), json.dumps(options), str(errors)))
    process.start()
    return process


def _job(name: str, folder: str, options: str, errors: str) -> None:
    from edge_trgl.jobs.__main__ import main

    file = os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 2)
    sys.argv = ["edge_trgl.jobs", name, folder, options]
    sys.exit(main())
