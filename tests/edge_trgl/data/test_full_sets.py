"""The complete published data sets."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.data.prepare import prepare

pytestmark = pytest.mark.data


# Means and deviations are the published ones, which are over all training images.
@pytest.mark.parametrize(
    ("name", "shape", "num_train", "mean", "std"),
    [
        ("mnist", (28, 28, 1), 60000, (0.1307,), (0.3081,)),
        ("fashion-mnist", (28, 28, 1), 60000, (0.2860,), (0.3530,)),
        ("cifar10", (32, 32, 3), 50000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ],
)
def test_a_full_set(tmp_path, full_set, name, shape, num_train, mean, std):
    info = prepare(str(full_set(name)), tmp_path / "data", seed=0, validation=0)
    assert open_dataset(tmp_path / "data") == info
    assert info.shape == shape
    assert info.num_classes == 10
    assert [info.splits[split].num_images for split in ("train", "val", "test")] == [num_train, 0, 10000]
    assert info.mean == pytest.approx(mean, abs=6e-5)
    assert info.std == pytest.approx(std, abs=6e-5)
    for split in ("train", "test"):
        reader = RecordReader(tmp_path / "data", split, info)
        for samples in np.array_split(np.arange(len(reader)), 40):
            reader.read(samples)
        assert set(reader.labels.tolist()) == set(range(10))
        reader.close()


def test_the_first_images_of_cifar10(tmp_path, full_set):
    info = prepare(str(full_set("cifar10")), tmp_path / "data", seed=0, validation=0)
    reader = RecordReader(tmp_path / "data", "train", info)
    assert [info.class_names[label] for label in reader.labels[:4]] == ["frog", "truck", "truck", "deer"]
    assert reader.read(np.array([0]))[0, 0, 0].tolist() == [59, 62, 63]
    reader.close()


def test_preparing_needs_little_memory_however_large_the_set(tmp_path, full_set):
    code = f"""
from pathlib import Path
from edge_trgl.data.prepare import prepare

def peak_kib():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])

before = peak_kib()
prepare({str(full_set("cifar10"))!r}, Path({str(tmp_path / "data")!r}), seed=0)
print(peak_kib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The set has 180 MiB, each of its files 30 MiB.
    assert int(done.stdout) < 24 * 1024
