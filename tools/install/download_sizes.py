"""Measure what an installation downloads by machine and Python version; 64-bit ARM must get no CUDA build.

    python -m tools.install.download_sizes [--json FILE|-] [--quick]

Nothing is installed. The pinned packages of constraints.txt are followed from what setup.cfg asks for, with
markers evaluated for the machine in question (pip evaluates them for the one it runs on, whatever its --platform),
and pip says in a dry run which file of PyPI each would be. What torch pins itself, its CUDA libraries, is followed
too. Sizes are those that the registry tells of its files. `developing` is what `make venv` takes, `deploying` what
running an exported file takes (run_only). Ends with 1 where CUDA would come to aarch64. Without --quick,
pip fetches 3 GB for each Python on x86, for the registry does not serve the metadata of NVIDIA's wheels apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.common.machine import today
from tools.common.options import command_line
from tools.common.programs import ROOT

MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CUDA = re.compile(r"nvidia|cuda|triton|pytorch-triton")
GLIBCS = range(17, 29)
Environment = dict[str, str]
File = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    where = [("aarch64", "3.11")] if options.quick else list(itertools.product(MACHINES, PYTHONS))
    with ThreadPoolExecutor(4) as pool:  # most of the time is the registry's
        rows = list(pool.map(lambda one: _row(*one), where))
    wrong = sorted({name for row in rows if row["machine"] == "aarch64" for name in row["cuda"]})
    document = {"date": today(), "rows": rows, "ok": not wrong}
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else _table(rows))
    if wrong:
        print(f"on aarch64 there would be {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("install.download_sizes", __doc__)
    parser.add_argument("--json", help="write the results to this file; - prints them")
    parser.add_argument("--quick", action="store_true", help="one Python version on aarch64, to try the tool")
    return parser.parse_args(arguments)


def _row(machine: str, python: str) -> dict[str, Any]:
    environment = _environment(python, machine)
    pins = _applying(_requirements((ROOT / "constraints.txt").read_text()), environment)
    known = _files(frozenset(f"{one.name}{one.specifier}" for one in pins), python, machine)
    developing = _closure(_wanted(), known, environment)
    deploying = _closure(_requirements(_setup("run_only")["options"]["install_requires"]), known, environment)
    largest = sorted(developing.items(), key=lambda item: -item[1]["mb"])[:8]
    return {
        "machine": machine,
        "python": python,
        "developing_mb": _total(developing),
        "packages": len(developing),
        "deploying_mb": _total(deploying),
        "torch": developing["torch"]["version"],
        "cuda": sorted(filter(CUDA.match, developing)),
        "largest_mb": {name: found["mb"] for name, found in largest},
        "deploying": {name: found["mb"] for name, found in sorted(deploying.items())},
    }


def _total(files: dict[str, File]) -> float:
    return round(float(sum(found["mb"] for found in files.values())), 1)


def _environment(python: str, machine: str) -> Environment:
    return {
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_version": python,
        "python_full_version": f"{python}.9",
    }


def _requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def _wanted() -> list[Requirement]:
    config = _setup("")
    extras = config["options.extras_require"]
    return _requirements(f"{config['options']['install_requires']}\n{extras['dev']}")


def _setup(project: str) -> ConfigParser:
    """The setup.cfg of a project of the tree."""
    config = ConfigParser()
    config.read(ROOT / project / "setup.cfg")
    return config


def _applying(requirements: list[Requirement], environment: Environment, extra: str = "") -> list[Requirement]:
    where = {**environment, "extra": extra}
    return [one for one in requirements if one.marker is None or one.marker.evaluate(where)]


def _closure(wanted: list[Requirement], known: dict[str, File], environment: Environment) -> dict[str, File]:
    """Package -> its file, for all that is wanted and what that needs, and so on; `known` grows."""
    done: set[tuple[str, str]] = set()
    queue = _applying(wanted, environment)
    while queue:
        missing = frozenset(f"{one.name}{one.specifier}" for one in queue if _name(one) not in known)
        known |= _files(missing, environment["python_version"], environment["platform_machine"])
        asked = {(_name(one), extra) for one in queue for extra in ("", *one.extras)} - done
        queue = [
            needed
            for name, extra in sorted(asked)
            for needed in _applying(_requirements(known[name]["needs"]), environment, extra)
        ]
        done |= asked
    return {name: known[name] for name, _ in done}


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _files(requirements: frozenset[str], python: str, machine: str) -> dict[str, File]:
    if not requirements:
        return {}
    found = _report(requirements, python, machine)["install"]
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(_size_mb, (one["download_info"]["url"] for one in found)))
    return {
        canonicalize_name(one["metadata"]["name"]): {
            "version": one["metadata"]["version"],
            "needs": "\n".join(one["metadata"].get("requires_dist", ())),
            "mb": size,
        }
        for one, size in zip(found, sizes, strict=True)
    }


def _report(requirements: frozenset[str], python: str, machine: str) -> dict[str, Any]:
    """Of PyPI alone, whatever pip is configured to find elsewhere."""
    elsewhere = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT")
    names = {name: value for name, value in os.environ.items() if name not in elsewhere}
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBCS]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--dry-run", "--ignore-installed", "--no-deps", "--report=-", "--target=/nonexistent"),
        *("--only-binary=:all:", f"--python-version={python}", "--implementation=cp"),
        *(*platforms, f"--platform=manylinux2014_{machine}", *sorted(requirements)),
    ]
    environment = {**names, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@cache
def _size_mb(url: str) -> float:
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request) as answer:
        return round(int(answer.headers["Content-Length"]) / 1e6, 2)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| machine | Python | torch | `make venv`, MB | packages | only run, MB |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['machine']} | {row['python']} | {row['torch']} | {row['developing_mb']:.0f} "
            f"| {row['packages']} | {row['deploying_mb']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
