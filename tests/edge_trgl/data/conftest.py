"""Tiny data sets in every format, written without the code under test."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def _idx_bytes(values):
    return struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()


def write_idx(folder, train, test, *, dotted=False, gzipped=False):
    """`train`, `test`: (images [N, H, W, 1], labels)."""
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        for kind, values in (("images-idx3", images[..., 0]), ("labels-idx1", labels.astype(np.uint8))):
            name = f"{prefix}-{kind}-ubyte"
            content = _idx_bytes(values)
            if dotted:
                name = name.replace("-idx", ".idx")
            if gzipped:
                name, content = f"{name}.gz", gzip.compress(content)
            (folder / name).write_bytes(content)


def _planes(images):
    """[N, H, W, C] as rows in the order of CIFAR: one channel after the other."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_pickle(path, content, protocol=3):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_cifar10(folder, train, test, *, protocol=3):
    write_pickle(folder / "batches.meta", {b"label_names": [f"class {n}".encode() for n in range(10)]}, protocol)
    images, labels = train
    parts = np.array_split(np.arange(len(images)), 5)
    for number, part in enumerate(parts, 1):
        content = {b"labels": labels[part].tolist(), b"data": _planes(images[part]), b"filenames": [b"x"]}
        write_pickle(folder / f"data_batch_{number}", content, protocol)
    images, labels = test
    write_pickle(folder / "test_batch", {b"labels": labels.tolist(), b"data": _planes(images)}, protocol)


def write_cifar100(folder, train, test):
    write_pickle(folder / "meta", {b"fine_label_names": [f"fine {n}".encode() for n in range(100)]})
    for name, (images, labels) in (("train", train), ("test", test)):
        content = {
            b"fine_labels": labels.tolist(),
            b"coarse_labels": [0] * len(labels),
            b"data": _planes(images),
        }
        write_pickle(folder / name, content)


def write_cifar10_binary(folder, train, test):
    images, labels = train
    rows = np.concatenate([labels[:, None].astype(np.uint8), _planes(images)], axis=1)
    for number, part in enumerate(np.array_split(rows, 5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    images, labels = test
    rows = np.concatenate([labels[:, None].astype(np.uint8), _planes(images)], axis=1)
    (folder / "test_batch.bin").write_bytes(rows.tobytes())


def write_cifar100_binary(folder, train, test):
    for name, (images, labels) in (("train", train), ("test", test)):
        coarse = np.full((len(labels), 1), 7, np.uint8)
        rows = np.concatenate([coarse, labels[:, None].astype(np.uint8), _planes(images)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_stl10(folder, train, test):
    for name, (images, labels) in (("train", train), ("test", test)):
        (folder / f"{name}_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{name}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())


def write_image_folder(folder, splits, *, suffix="png"):
    """`splits`: name or "" (no split folder) → (images, labels)."""
    for split, (images, labels) in splits.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(place / f"{number:04}.{suffix}")


def write_npz(path, train, test, **more):
    (x_train, y_train), (x_test, y_test) = train, test
    np.savez_compressed(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, **more)


def labelled(num_images, shape, num_classes, *, seed=0, dtype=np.uint8):
    """Random images [N, *shape] and labels in which every class occurs."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(num_images) % num_classes).astype(np.int64)
    if dtype == np.uint8:
        return generator.integers(0, 256, (num_images, *shape), np.uint8), labels
    return generator.normal(size=(num_images, *shape)).astype(dtype), labels


@pytest.fixture
def sets():
    """The writers above, as one object."""
    return SimpleNamespace(
        cifar10=write_cifar10,
        cifar100=write_cifar100,
        cifar10_binary=write_cifar10_binary,
        cifar100_binary=write_cifar100_binary,
        idx=write_idx,
        image_folder=write_image_folder,
        labelled=labelled,
        npz=write_npz,
        pickle=write_pickle,
        stl10=write_stl10,
    )


@pytest.fixture
def full_set():
    """A function that returns the folder of a data set, and skips the test where it is absent."""
    root = Path(os.environ.get("EDGE_TRGL_DATA", "~/.cache/edge-trgl-data")).expanduser()

    def find(name):
        if not (root / name).is_dir():
            pytest.skip(f"the full set {name} is not in {root}; set EDGE_TRGL_DATA to where it is")
        return root / name

    return find
