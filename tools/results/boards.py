"""What is downloaded, and what runs on an emulated board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import NONE, rounded, table
from tools.results.source import document, origin


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    yield f"""## What is downloaded

MB (10⁶ bytes) of packages from Python's registry: for `make venv`, and for a board that only runs exported files.

{_downloads()}

{origin("download_sizes", "tools.install.download_sizes")}

With torch's CPU build (`make venv TORCH=cpu`), about 350 MB on x86."""

    found = document("emulate_arm")
    (tests,) = (step for step in found["steps"] if step["name"] == "tests")
    yield f"""## On aarch64, emulated

{found["emulator"].partition(" (")[0]}, a {found["processor"]}, torch {found["pins"]["torch"]}: the demo's path in
a Debian, a run that is killed with SIGKILL and resumed to the same weights, and the tests that mean something
there. qemu tells nothing of speed, nor of memory. The guard's tests hang there.

{_steps(found["steps"])}

{origin("emulate_arm", "tools.arm")}

Tests: {tests["summary"].partition(" in ")[0]}. Failed, on qemu's heap:
{", ".join(map(_code, tests["failures"])) or NONE}."""


def _downloads() -> str:
    return table(
        ("machine", "Python", "torch", "packages", "`make venv`", "only running exported files"),
        (
            (
                row["machine"],
                row["python"],
                row["torch"],
                str(row["packages"]),
                rounded(row["developing_mb"]),
                rounded(row["deploying_mb"]),
            )
            for row in document("download_sizes")["rows"]
        ),
        left=3,
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    return table(("step", "", "found"), map(_step, steps), left=3)


def _step(step: Mapping[str, Any]) -> Sequence[str]:
    hidden = ("name", "ok", "seconds", "paths", "failures", "weights_sha256", "machine")
    facts = (f"{key.replace('_', ' ')} {_value(value)}" for key, value in step.items() if key not in hidden)
    return step["name"], "ok" if step["ok"] else "**failed**", ", ".join(facts) or NONE


def _value(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    return f"`{text}`"
