"""What `make venv` takes: one exact version of each package, for every Python and machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
SYSTEM = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}
environments = pytest.mark.parametrize(
    "environment",
    [
        {**SYSTEM, "python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine}
        for python in PYTHONS
        for machine in MACHINES
    ],
    ids=lambda one: f"{one['python_version']}-{one['platform_machine']}",
)


def pins(environment: dict[str, str] | None = None) -> dict[str, str]:
    """Package -> version, where `environment` is given (else on this machine)."""
    found: dict[str, str] = {}
    for requirement in _requirements((ROOT / "constraints.txt").read_text()):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name, (specifier,) = canonicalize_name(requirement.name), requirement.specifier
        assert specifier.operator == "=="
        assert name not in found, f"two pins of {name}"
        found[name] = specifier.version
    return found


def _requirements(text: str) -> Iterator[Requirement]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield Requirement(line)


def wanted() -> list[Requirement]:
    """What setup.cfg asks for, for development."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    dev = config["options.extras_require"]["dev"]
    return list(_requirements(config["options"]["install_requires"] + "\n" + dev))


@environments
def test_what_setup_cfg_asks_for_is_pinned_within_its_bounds(environment):
    pinned = pins(environment)
    for requirement in wanted():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@environments
def test_nothing_of_cuda_is_pinned(environment):
    assert not [name for name in pins(environment) if re.match("nvidia|cuda|triton|pytorch-triton", name)]


@pytest.mark.parametrize("python", PYTHONS)
def test_on_arm_torch_has_no_cuda_and_runs_on_every_core(python):
    environment = {**SYSTEM, "python_version": python, "platform_machine": "aarch64"}
    major, minor = pins(environment)["torch"].split(".")[:2]
    assert (int(major), int(minor)) < (2, 10)
    (torch,) = (one for one in wanted() if one.name == "torch" and one.marker and one.marker.evaluate(environment))
    assert not torch.specifier.contains("2.10.0")


def test_all_that_is_installed_with_it_is_pinned():
    """Packages that torch's CUDA builds bring are pinned by torch itself."""
    pinned = pins()
    queue, seen = [r for r in wanted() if r.marker is None or r.marker.evaluate()], set()
    while queue:
        name = canonicalize_name(queue.pop().name)
        if name in seen or re.match("nvidia|cuda|triton", name):
            continue
        seen.add(name)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        queue += [r for r in map(Requirement, requires) if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert seen - {"pip"} <= pinned.keys()
