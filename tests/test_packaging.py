"""What is installed: one package, with the runtime, the profiles and the sample inside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


def built(folder, project=""):
    """The wheel of a project of the tree, made in `folder`."""
    # A copy, because building writes beside the sources; of what is tracked, for other tests may be at work there.
    source = folder / "source"
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source / project)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements(project=""):
    """What a project of the tree asks for, by name."""
    config = ConfigParser()
    config.read(ROOT / project / "setup.cfg")
    found = map(Requirement, config["options"]["install_requires"].split("\n")[1:])
    return {(one.name, str(one.marker)): one for one in found}


@pytest.mark.slow
def test_the_wheel_installs_only_edge_trgl(tmp_path):
    wheel = built(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edge_trgl"}
    for needed in (
        "runtime/storage/files.py",
        "profiles/generic.toml",
        "recipes/table14.toml",
        "networks/zoo/km_resnet.py",
        "jobs/__main__.py",
        "data/sample/train-images-idx3-ubyte.gz",
        "data/sample/LICENSE",
        "report/report.html.j2",
        "py.typed",
    ):
        assert f"edge_trgl/{needed}" in names
    sample = sum(entry.file_size for entry in zipfile.ZipFile(wheel).infolist() if "/sample/" in entry.filename)
    assert sample <= 4 * 2**20


def test_the_top_level_is_as_laid_out():
    folders = {path.split("/")[0] for path in tracked_files() if "/" in path}
    assert folders == {".ci", "edge_trgl", "profiles", "run_only", "runtime", "tests", "tools"}
    assert (ROOT / "edge_trgl/runtime").readlink() == Path("../runtime")
    assert (ROOT / "run_only/edge_trgl").readlink() == Path("../edge_trgl")
    assert (ROOT / "edge_trgl/profiles").readlink() == Path("../profiles")


def test_what_runs_exported_files_asks_for_part_of_what_trains_within_the_same_bounds():
    small, whole = requirements("run_only"), requirements()
    assert small.items() <= whole.items()
    names = {name for name, _ in small}
    assert {"click", "numpy", "onnxruntime", "pillow", "psutil"} <= names
    assert not names & {"jinja2", "matplotlib", "onnx", "torch", "torchvision"}
    assert {"onnx", "onnxruntime", "psutil", "torch", "torchvision"} <= {name for name, _ in whole}
