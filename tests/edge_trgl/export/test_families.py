"""Every family of networks, exported and checked at every depth."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from exported_runs import deploy, logits_of, run_file
from nearness import SMALL, assert_near, scale_of

from edge_trgl.data import RecordReader
from edge_trgl.engine.open_run import open_run
from edge_trgl.export.compare import comparison


@pytest.fixture
def colour(plan_run, tmp_path):
    """Some of the sample's images as an archive of RGB images of 32 by 32."""
    run = plan_run("gray")
    opened = open_run(run)
    reader = RecordReader(run.data, "train", opened.info)
    pixels, labels = reader.read(np.arange(40)).copy(), reader.labels[:40]
    reader.close()
    opened.facts.close()
    images = np.pad(pixels, [(0, 0), (2, 2), (2, 2), (0, 0)]).repeat(3, axis=3)
    archive = tmp_path / "colour.npz"
    np.savez(archive, x_train=images[:32], y_train=labels[:32], x_test=images[32:], y_test=labels[32:])
    return str(archive)


LONGER = {"train__epochs": "4", "train__batch_size": 4}
"""Until the running statistics of many norms in a row are those of the images, all these get the same logits."""

FAMILIES = {
    "km": {"model__name": "km-3-2", "model__width": 8},
    "km-encoder": {"model__name": "km-3-1-encoder", "model__width": 8},
    "resnet110": {"model__name": "resnet110", "model__modules": 3},
    "resnet50": {"model__name": "resnet50", "model__modules": 2, "model__head": "linear"},
    "vgg19": {"model__name": "vgg19", "model__modules": 2, "model__head": "linear", **LONGER},
    "swin": {"model__name": "swin-tiny", "model__modules": 2},
    "torchvision": {"model__name": "torchvision:resnet18", "model__modules": 2},
    "timm": {"model__name": "timm:vit_tiny_patch16_224", "model__modules": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_at_every_depth(train_run, colour, family):
    data = {"data__source": colour, "data__limit": None, "data__image_size": 32}
    settings = {"train__epochs": "1", "train__batch_size": 8, **FAMILIES[family]}
    run = train_run("run", **data, **settings).run
    assert_exported_at_every_depth(run)


def test_windows_at_every_depth(train_run, tmp_path):
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(60, 3, 32)).astype(np.float32), np.arange(60) % 3
    archive = tmp_path / "windows.npz"
    np.savez(archive, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], axes="NCL")
    run = train_run("run", data__source=str(archive), data__limit=None, train__batch_size=8).run
    assert_exported_at_every_depth(run)


def assert_exported_at_every_depth(run):
    """Alone and together, each exit gives the network's logits, for any number of samples."""
    together = deploy(run, "all")
    onnx.checker.check_model(str(run.onnx_file), full_check=True)
    pixels, expected = logits_of(run, 6)
    for size in (1, 6, 64):
        batch = np.resize(pixels, (size, *pixels.shape[1:]))
        for name, logits in run_file(run.onnx_file, batch).items():
            ours = expected[int(name.partition("_")[2]) - 1].numpy()
            assert_near(logits[:6], ours[: min(size, 6)], comparison.TOLERANCE)
    for depth in range(1, len(expected) + 1):
        alone = deploy(run, str(depth))
        onnx.checker.check_model(str(run.onnx_file), full_check=True)
        for one in (alone.exits[0], together.exits[depth - 1]):
            assert one.depth == depth
            assert one.ok
            assert one.median_abs_diff <= SMALL * scale_of(expected[depth - 1])
            assert one.top1_agreement == 1.0
