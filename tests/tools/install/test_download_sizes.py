"""What an installation downloads: followed for another machine than this one; what is said of it beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

NEEDS = {
    "torch": ['nvidia-cublas==13; platform_machine == "x86_64"', 'toolkit[blas]==1; platform_machine == "x86_64"'],
    "toolkit": ['nvidia-blas==1; extra == "blas"', 'nvidia-fft==1; extra == "fft"'],
}


@pytest.fixture
def sizes(tool, monkeypatch):
    """The tool, on a registry in which every file has 100 MB."""
    found = tool("install.download_sizes")

    def files(requirements, python, machine):
        asked = dict(one.partition("==")[::2] for one in requirements)
        return {
            name: {"version": version, "needs": "\n".join(NEEDS.get(name, [])), "mb": 100.0}
            for name, version in asked.items()
        }

    monkeypatch.setattr(found, "_files", files)
    return found


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("aarch64", ["plain", "torch"]),
        ("x86_64", ["nvidia-blas", "nvidia-cublas", "plain", "toolkit", "torch"]),
    ],
)
def test_markers_and_extras_are_those_of_the_machine_in_question(sizes, machine, names):
    wanted = sizes._requirements('torch>=2; python_version < "4"\nplain\nodd; python_version > "4"')
    known = sizes._files(["torch==2.9.1", "unwanted==1"], "3.11", machine)
    found = sizes._closure(wanted, known, sizes._environment("3.11", machine))
    assert sorted(found) == names
    assert found["torch"]["version"] == "2.9.1"
    assert sizes._total(found) == 100 * len(names)


def test_cuda_on_arm_is_not_ok(tool, monkeypatch, capsys):
    sizes = tool("install.download_sizes")
    row = {"machine": "aarch64", "python": "3.11", "torch": "2.11.0", "cuda": ["nvidia-cublas"]}
    row |= {"developing_mb": 2963.0, "packages": 70, "deploying_mb": 46.6}
    monkeypatch.setattr(sizes, "_row", lambda machine, python: row)
    assert sizes.main(["--quick"]) == 1
    shown = capsys.readouterr()
    assert "| aarch64 | 3.11 | 2.11.0 | 2963 | 70 | 47 |" in shown.out
    assert "on aarch64 there would be nvidia-cublas" in shown.err


def test_what_was_measured_keeps_the_promises():
    """300 MB on a 64-bit ARM board, 60 where it only runs exported files."""
    document = json.loads((ROOT / "tools/results/download_sizes.json").read_text())
    assert document["ok"]
    assert len(document["rows"]) == 8
    for row in document["rows"]:
        assert row["deploying_mb"] <= 60
        if row["machine"] == "aarch64":
            assert row["developing_mb"] <= 300
            assert row["cuda"] == []


class TestTheNotice:
    def test_of_a_large_download(self, tool):
        text = tool("install.download_notice").notice("x86_64", "3.11")
        assert text.startswith("Up to ")
        assert "GB will be downloaded" in text
        assert "make venv TORCH=cpu" in text

    @pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
    def test_none_of_a_small_one_or_an_unknown_one(self, tool, machine):
        assert tool("install.download_notice").notice(machine, "3.11") == ""

    def test_needs_the_standard_library_alone(self):
        command = [sys.executable, "-S", "-E", "-s", "-m", "tools.install.download_notice"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "index", "notice"),
    [((), False, True), (("TORCH=cpu",), True, False)],
)
def test_make_venv_takes_the_build_that_was_asked_for(arguments, index, notice):
    command = ["make", "--dry-run", "--always-make", "venv", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (install,) = (line for line in done.stdout.splitlines() if "pip install" in line)
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in install) is index
    assert ("tools.install.download_notice" in done.stdout) is notice


def test_make_refuses_another_torch():
    done = subprocess.run(
        ["make", "--dry-run", "venv", "TORCH=gpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "leave it out, or TORCH=cpu" in done.stderr
