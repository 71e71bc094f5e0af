"""Build a folder with an aarch64 Debian and the package in it, and run commands there under qemu.

Figures of memory and time mean nothing there. qemu ignores RLIMIT_DATA, and its processes hold their translations.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from tools.common.programs import ROOT

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3,python3-venv,python3-pip,make,git,ca-certificates,procps"
QEMU = Path("/usr/bin/qemu-aarch64-static")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
MAGIC = r"\x7f\x45\x4c\x46\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

WHEELS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_26",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
)
LIBRARIES = f"usr/local/lib/python{PYTHON}/dist-packages"
SOURCE, WORK = "opt/edge-trgl", "work"

MAX_MAPPED_BYTES = 16 << 30
"""A huge mapping under qemu takes the host's memory."""


class MissingError(Exception):
    """Something that is needed is not there; the text says what."""


def check_host() -> None:
    """Raises MissingError where no root can be built here."""
    if platform.machine() != "x86_64":
        raise MissingError(f"this machine is {platform.machine()}, not x86_64")
    if os.geteuid() != 0:
        raise MissingError("it takes root to register qemu and to change into a folder")
    if shutil.which("debootstrap") is None or not QEMU.exists():
        raise MissingError("there is no qemu-user-static or no debootstrap: apt-get install them")


@dataclass(frozen=True, kw_only=True)
class Root:
    """The folder `path`, and the core that qemu emulates in it."""

    path: Path
    processor: str

    @property
    def work(self) -> Path:
        """Where commands run."""
        return self.path / WORK

    def start(self, *command: str, output: int, errors: int) -> subprocess.Popen[bytes]:
        """Start `command` in it."""
        words = ["chroot", str(self.path), "/bin/sh", "-c", f'cd /{WORK} && exec "$@"', "sh", *command]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": f"/{WORK}",
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"/{SOURCE}",
            "QEMU_CPU": self.processor,
        }
        return subprocess.Popen(words, env=environment, stdout=output, stderr=errors, preexec_fn=_limit)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MAPPED_BYTES, MAX_MAPPED_BYTES))


def build(root: Root, mirror: str | None, replaced: Sequence[str]) -> dict[str, str]:
    """Make what is not there yet; returns the pins that are installed. `replaced`: pins instead of our own."""
    _register()
    if (root.path / "debootstrap").exists() or not (root.path / "usr/bin/python3").exists():
        arguments = ["--arch=arm64", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root.path)]
        _run("debootstrap", *arguments, *([mirror] if mirror else []), environment={"QEMU_CPU": root.processor})
    pins = _pins((ROOT / "constraints.txt").read_text(), replaced)
    _install(root.path, pins)
    _copy_source(root.path / SOURCE)
    root.work.mkdir(exist_ok=True)
    return pins


@contextmanager
def mounted(root: Root) -> Iterator[None]:
    """With /proc in it, but without /sys: onnxruntime crashes on that of x86."""
    proc = root.path / "proc"
    if not proc.is_mount():  # one that was killed left it there
        _run("mount", "-t", "proc", "proc", str(proc))
    try:
        yield
    finally:
        _run("umount", str(proc))


def _register() -> None:
    if not (BINFMT / "status").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not (BINFMT / "qemu-aarch64").exists():
        # F: the kernel opens qemu now, so that it need not be in the root.
        (BINFMT / "register").write_text(f":qemu-aarch64:M::{MAGIC}:{MASK}:{QEMU}:FPC")


def _pins(constraints: str, replaced: Sequence[str]) -> dict[str, str]:
    """The version of every package, as markers have it on the root's machine and Python."""
    machine = {"platform_machine": "aarch64", "python_version": PYTHON, "sys_platform": "linux"}
    lines = [line.partition("#")[0].strip() for line in constraints.splitlines()]
    wanted = [Requirement(line) for line in [*filter(None, lines), *replaced]]
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in wanted
        if one.marker is None or one.marker.evaluate(machine)
    }


def _install(path: Path, pins: Mapping[str, str]) -> None:
    folder, listed = path / LIBRARIES, path / "opt/pins.txt"
    text = "".join(f"{name}=={version}\n" for name, version in pins.items())
    if listed.exists() and listed.read_text() == text:
        return
    shutil.rmtree(folder, ignore_errors=True)
    wanted = path / "opt/wanted.txt"
    wanted.write_text(text)
    # From outside: pip is slow under qemu. Without dependencies, for it would look for those of this machine.
    platforms = [word for wheel in WHEELS for word in ("--platform", f"{wheel}_aarch64")]
    options = ["--quiet", "--no-compile", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    target = [f"--python-version={PYTHON}", "--target", str(folder), "--requirement", str(wanted)]
    _run(sys.executable, "-m", "pip", "install", *options, *platforms, *target)
    if sys.version.startswith(f"{PYTHON}."):  # bytecode is the same on every machine
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-s", str(path), str(folder)], check=False)
    wanted.rename(listed)


def _copy_source(folder: Path) -> None:
    """What git tracks, as it is now."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


def _run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})}, stdout=sys.stderr)
