"""Real sets: the packages are those that were measured, nothing is in two splits, and every row is measured."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def packages(tool):
    return tool("bench.real_sets.packages")


@pytest.fixture
def sets(tool):
    return tool("bench.real_sets.sets")


@pytest.fixture
def plain(tool):
    return tool("bench.real_sets.plain")


@pytest.mark.tool
def test_a_quick_try_measures_every_row_once(run_tool, tmp_path):
    arguments = ("bench.real_sets", "--quick", "--json", str(tmp_path / "real.json"))
    first = run_tool(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    document = json.loads((tmp_path / "real.json").read_text())
    rows = {row["row"]: row for row in document["rows"]}
    assert list(rows) == ["ours", "plain-0.1", "plain-0.02", "flip", "crop", "pad"]
    for row in rows.values():
        assert row["cpu_s"] > 0 and row["seconds"] > 0 and row["peak_mb"] > 50
        assert 0 <= row["accuracy"] <= 1
    assert document["sets"]["made-up"]["num_train"] == 48
    again = run_tool(*arguments, cwd=tmp_path)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
    assert list((tmp_path / "runs").glob(".real-sets-*")) == []


class TestPackages:
    def of(self, packages, content, file="thing-1.whl"):
        sha256 = hashlib.sha256(content).hexdigest()
        return packages.Package(client="pip", name="thing", version="1", file=file, sha256=sha256)

    def test_a_package_that_is_there_is_not_fetched_again(self, packages, tmp_path, monkeypatch):
        (tmp_path / "thing-1.whl").write_bytes(b"data")
        monkeypatch.setattr(subprocess, "run", None)
        assert packages.fetch(self.of(packages, b"data"), tmp_path) == tmp_path / "thing-1.whl"

    def test_a_package_is_fetched_into_the_folder(self, packages, tmp_path, monkeypatch):
        commands = []

        def run(command, cwd, **_):
            commands.append(command)
            (cwd / "thing-1.whl").write_bytes(b"data")
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        assert packages.fetch(self.of(packages, b"data"), tmp_path / "new").read_bytes() == b"data"
        assert [command[-1] for command in commands] == ["thing==1"]

    def test_another_file_is_refused(self, packages, tmp_path):
        (tmp_path / "thing-1.whl").write_bytes(b"other")
        with pytest.raises(packages.PackageError, match="another file than the thing 1"):
            packages.fetch(self.of(packages, b"data"), tmp_path)

    def test_a_client_that_fails_is_told(self, packages, tmp_path, monkeypatch):
        failed = subprocess.CompletedProcess([], 1, "", "no such thing")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
        with pytest.raises(packages.PackageError, match="no such thing"):
            packages.fetch(self.of(packages, b"data"), tmp_path)

    def test_a_wheel_and_an_npm_package_are_read_file_by_file(self, packages, tmp_path):
        wheel = _wheel(tmp_path / "thing.whl", {"a/b.txt": b"B"})
        with tarfile.open(tmp_path / "thing.tgz", "w:gz") as archive:
            item = tarfile.TarInfo("package/c.txt")
            item.size = 1
            archive.addfile(item, io.BytesIO(b"C"))
        assert list(packages.members(wheel)) == [("a/b.txt", b"B")]
        assert list(packages.members(tmp_path / "thing.tgz")) == [("package/c.txt", b"C")]

    @pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
    def test_a_debian_package_is_read_file_by_file(self, packages, tmp_path):
        control = tmp_path / "root" / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        control.write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
        (tmp_path / "root" / "d.txt").write_bytes(b"D")
        command = ["dpkg-deb", "--build", str(tmp_path / "root"), str(tmp_path / "x.deb")]
        subprocess.run(command, check=True, capture_output=True)
        assert list(packages.members(tmp_path / "x.deb")) == [("./d.txt", b"D")]


def _wheel(path, files):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def _png(width=300, height=300):
    stream = io.BytesIO()
    Image.new("L", (width, height), 7).save(stream, "PNG")
    return stream.getvalue()


def _listed(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestSets:
    def test_every_picture_is_in_one_split(self, sets, tmp_path):
        files = sorted(path.parts for path in map(Path, _listed(sets.made_up(Path(), tmp_path / "set"))))
        counts = {split: sum(parts[0] == split for parts in files) for split in ("train", "val", "test")}
        assert counts == {"train": 48, "val": 8, "test": 24}
        assert len({parts[1:] for parts in files}) == 80

    @pytest.mark.parametrize(("name", "size"), [("cells", (300, 300)), ("cut_cells", (300, 180))])
    def test_cells_that_the_experts_were_sure_of(self, sets, tmp_path, name, size):
        labels = "images/a.png  0.0  mono\nimages/b.png  1.0  poly\nimages/c.png  0.3333333333333333  mono\n"
        images = {f"elpv_dataset/data/images/{file}.png": _png() for file in "abc"}
        wheel = _wheel(tmp_path / "x.whl", {"elpv_dataset/data/labels.csv": labels, **images})
        folder = getattr(sets, name)(wheel, tmp_path / "set")
        assert _listed(folder) == {"train/functional/a.png", "train/defective/b.png"}
        assert Image.open(folder / "train/defective/b.png").size == size

    def test_foods_by_the_letter_of_their_code(self, sets, tmp_path):
        names = ("A001", "P001", "S002", "T001")
        wheel = _wheel(tmp_path / "x.whl", {f"package/assets/{name}.jpeg": b"x" for name in names})
        folder = sets.foods(wheel, tmp_path / "set")
        assert _listed(folder) == {"train/cereals/A001.jpeg", "train/fish/P001.jpeg", "train/fish/S002.jpeg"}

    def test_stamps_by_folder(self, sets, tmp_path):
        paths = ("animals/birds/a.png", "animals/fish/a.png", "animals/fish/a.txt", "sports/ball.png")
        root = "usr/share/tuxpaint/stamps"
        folder = sets.stamps(
            _wheel(tmp_path / "x.whl", {f"{root}/{path}": b"x" for path in paths}), tmp_path / "set"
        )
        assert _listed(folder) == {"train/animals/birds-a.png", "train/animals/fish-a.png"}

    def test_nobody_is_in_two_splits_of_the_watch(self, sets, tmp_path):
        people = np.arange(1, 11)
        recordings = [np.full((260, 6), person, np.float64) for person in people]
        stream = io.BytesIO()
        np.save(stream, {"X": recordings, "y": people % 2, "subject": people, "y_labels": ["a", "b"]})
        wheel = _wheel(tmp_path / "x.whl", {"seglearn/data/watch_dataset.npy": stream.getvalue()})
        arrays = np.load(sets.watch(wheel, tmp_path / "set"))
        assert arrays["x_train"].shape == (6 * 4, 6, 100)  # steps 0, 50, 100 and 150 begin a window of 100
        assert arrays["x_train"].dtype == np.float32
        found = [set(np.unique(arrays[f"x_{split}"])) for split in ("train", "val", "test")]
        assert found == [set(range(1, 7)), {7}, {8, 9, 10}]
        assert list(arrays["y_val"]) == [1] * 4
        assert (list(arrays["class_names"]), str(arrays["axes"])) == (["a", "b"], "NCL")

    def test_vowels_are_read_channel_by_channel(self, sets, tmp_path):
        text = "@classLabel true 1 2\n@data\n" + "1,2,3:4,5,6:2\n" * 11
        root = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq"
        wheel = _wheel(tmp_path / "x.whl", {f"{root}_TRAIN.ts": text, f"{root}_TEST.ts": text})
        arrays = np.load(sets.vowels(wheel, tmp_path / "set"))
        assert [len(arrays[f"x_{split}"]) for split in ("train", "val", "test")] == [9, 2, 11]
        assert arrays["x_test"][0].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert set(arrays["y_test"]) == {1}


class TestPlainLoop:
    @pytest.mark.parametrize(("resize", "top", "left"), [("crop", 7, 7), ("squash", 7, 7), ("pad", 0, 7)])
    def test_a_wide_picture_becomes_a_square(self, plain, resize, top, left):
        square = plain.squared(Image.new("L", (40, 20), 7), 10, resize)
        assert square.size == (10, 10)
        assert (square.getpixel((5, 0)), square.getpixel((0, 5))) == (top, left)

    def test_pictures_are_shifted_within_a_black_border(self, plain):
        torch.manual_seed(0)
        x = torch.ones(50, 1, 8, 8, dtype=torch.uint8)
        shifted = plain.shifted(x, 2)
        assert shifted.shape == x.shape
        sums = shifted.sum((1, 2, 3))
        assert sums.max() == 64 and sums.min() == 36

    def test_the_network_is_the_products_with_its_last_classifier(self, plain):
        net = plain.whole_network("km-3-1", (3, 16, 16), 5, 4)
        assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
        assert sum(isinstance(part, torch.nn.Linear) for part in net.modules()) == 1

    def test_channels_are_normalised_apart(self, plain):
        x = torch.stack([torch.tensor([[0.0, 2.0], [10.0, 10.0]])] * 3)
        mean, std = plain.statistics(x)
        assert mean.flatten().tolist() == [1, 10]
        assert mean.shape == std.shape == (1, 2, 1)
