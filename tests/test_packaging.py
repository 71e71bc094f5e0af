"""What is installed: one package, with the runtime, the profiles and the sample inside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


@pytest.mark.slow
def test_the_wheel_installs_only_edge_trgl(tmp_path):
    # A copy, because building writes beside the sources; of what is tracked, for other tests may be at work there.
    source = tmp_path / "source"
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
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
    assert folders == {".ci", "edge_trgl", "profiles", "runtime", "tests", "tools"}
    assert (ROOT / "edge_trgl/runtime").readlink() == Path("../runtime")
    assert (ROOT / "edge_trgl/profiles").readlink() == Path("../profiles")
