"""The sample in the package: its content, and that the tool reproduces it."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json

import numpy as np
import pytest

from edge_trgl.data.sources import load
from edge_trgl.data.sources.sample import FOLDER


@pytest.fixture(scope="module")
def tool():
    return importlib.import_module("tools.make_sample")


def test_it_is_balanced_and_small():
    source = load("sample")
    assert source.shape == (28, 28, 1)
    assert source.class_names[9] == "Ankle boot"
    assert np.bincount(source.splits["train"].labels).tolist() == [500] * 10
    assert np.bincount(source.splits["test"].labels).tolist() == [100] * 10
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4e6


def test_its_licence_lies_beside_it():
    assert "Copyright © 2017 Zalando SE" in (FOLDER / "LICENSE").read_text()
    assert "python -m tools.make_sample" in (FOLDER / "README.md").read_text()


def test_the_tool_draws_the_same_twice(tool, tmp_path, sets, capsys):
    full = sets.labelled(200, (5, 5, 1), 10), sets.labelled(50, (5, 5, 1), 10, seed=1)
    for name in ("full", "a", "b"):
        (tmp_path / name).mkdir()
    sets.idx(tmp_path / "full", *full)
    arguments = ["--source", str(tmp_path / "full"), "--quick", "--json", "--out"]
    tool.main([*arguments, str(tmp_path / "a")])
    checksums = json.loads(capsys.readouterr().out)
    tool.main([*arguments, str(tmp_path / "b")])
    assert json.loads(capsys.readouterr().out) == checksums
    assert len(checksums) == 4
    for name, checksum in checksums.items():
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == checksum
    drawn = load(str(tmp_path / "a"))
    assert np.bincount(drawn.splits["train"].labels).tolist() == [5] * 10
    originals = {image.tobytes(): label for image, label in zip(*full[0], strict=True)}
    images = np.concatenate(list(drawn.splits["train"].batches(np.arange(50))))
    found = [originals[image.tobytes()] for image in images]
    assert found == drawn.splits["train"].labels.tolist()


def test_a_quick_try_leaves_the_sample_alone(tool, tmp_path, sets, capsys):
    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    sets.idx(tmp_path, sets.labelled(100, (5, 5, 1), 10), sets.labelled(50, (5, 5, 1), 10))
    tool.main(["--source", str(tmp_path), "--quick"])
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before


@pytest.mark.data
def test_the_tool_makes_the_sample_again(tool, tmp_path, full_set):
    checksums = tool.make(full_set("fashion-mnist"), tmp_path)
    for name in checksums:
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress((FOLDER / name).read_bytes())
