"""Windows of a time series [C, L]: from the archive to the file that is deployed, with everything 1-d between."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from plans import lay_out
from preloaded import command
from torch import nn

from edge_trgl.data import open_dataset
from edge_trgl.engine import from_config
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.catalogue import build_chain

CHANNELS, LENGTH, CLASSES = 3, 32, 3


def _waves(num_windows, seed):
    """Sines of as many frequencies as classes, every channel a quarter behind the one before; with labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_windows) % CLASSES
    begin = generator.uniform(0, 1, (num_windows, 1, 1)) + np.arange(CHANNELS)[:, None] / 4
    turns = (1 + 2 * labels)[:, None, None] * np.arange(LENGTH) / LENGTH
    noise = generator.normal(0, 0.2, (num_windows, CHANNELS, LENGTH))
    return (np.sin(2 * np.pi * (turns + begin)) + noise).astype(np.float32), labels


@pytest.fixture
def archive(tmp_path):
    (x_train, y_train), (x_test, y_test) = _waves(100, 0), _waves(30, 1)
    path = tmp_path / "waves.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, axes="NCL")
    return path


@pytest.mark.slow
def test_from_windows_to_a_file(tmp_path, archive):
    small = ("--model", "km-3-1", "--width", "8", "--epochs", "6", "--batch-size", "16", "--threads", "1")
    trained = command(tmp_path, "train", "--data", archive.name, *small, "--run", "run", "--json")
    assert trained.returncode == 0, trained.stderr
    accuracy = json.loads(trained.stdout)["accuracy"]
    assert accuracy["chosen"] > 0.6
    assert json.loads(command(tmp_path, "evaluate", "run", "--json").stdout)["chosen"] == accuracy["chosen"]
    exported = json.loads(command(tmp_path, "export", "run", "--json").stdout)
    assert all(one["ok"] for one in exported["exits"])
    model = onnx.load(tmp_path / "run" / "model.onnx")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape][1:] == [CHANNELS, LENGTH]
    preprocessing = {entry.key: entry.value for entry in model.metadata_props}["preprocessing"]
    assert preprocessing.startswith("Give float32 windows [N, C, L]")


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["parallel", "sequential"])
def test_every_layout_gives_the_same_weights(plan_run, finish, archive, regime):
    hashes = set()
    for placement in ("memory", "disk"):
        for recompute in ("none", "norms", "blocks"):
            settings = {"data__source": str(archive), "data__limit": None, "train__regime": regime}
            run = plan_run(f"{placement}-{recompute}", **settings, model__name="km-2-2")
            facts = run.facts()
            lay_out(facts, placement=placement, recompute=recompute, resident=1)
            facts.close()
            hashes.add(finish(run).sha256)
    assert len(hashes) == 1


def test_windows_are_not_augmented(plan_run, archive):
    run = plan_run("run", data__source=str(archive), data__limit=None)
    info = open_dataset(run.data)
    augment = from_config.augmentation(run.config(), info)
    assert (augment.crop_padding, augment.flip) == (0, False)


def _km(num_modules, blocks, **options):
    chain = build_chain(
        f"km-{num_modules}-{blocks}", input_shape=(CHANNELS, LENGTH), num_classes=CLASSES, **options
    )
    return chain, [chain.trunk(module) for module in range(num_modules)]


def test_a_km_net_of_windows_is_made_of_layers_along_one_axis():
    chain, trunks = _km(4, 2, width=16)
    x, shapes = torch.randn(2, *chain.input_shape), []
    for trunk in trunks:
        assert not any(isinstance(part, (nn.Conv2d, nn.BatchNorm2d)) for part in trunk.modules())
        x = trunk(x)
        shapes.append(tuple(x.shape[1:]))
    # The encoder halves the length; so does module 2, which doubles the filters.
    assert shapes == [(16, 16), (16, 16), (32, 8), (32, 8)]
    encoder = (3 * 3 * 8 + 8) + 2 * 8 + (5 * 8 * 16 + 16) + 2 * 16
    block, bare = 2 * 3 * 16 * 16 + 2 * 2 * 16, 2 * 3 * 16 * 16 + 2 * 16
    assert sum(p.numel() for p in trunks[0].parameters()) == encoder + bare + block
    assert sum(p.numel() for p in trunks[1].parameters()) == 2 * block


def test_the_transport_of_windows_is_that_of_the_residues():
    chain, _ = _km(2, 1, width=8)
    local = LocalModule(chain, 1, (16, 8), StepConfig(transport=Transport(tau=1.0)))
    chain.initialise(1, local.trunk, local.head, 0)
    local.materialise("cpu")
    x, y = torch.randn(6, 8, 16), torch.arange(6) % CLASSES
    downsampling, block = local.trunk[0]
    with torch.no_grad():
        entering = downsampling(x)
        expected = (block.train()(entering) - entering).pow(2).mean()
    local.train_step(x, y, lr=0.0, seed=0)
    assert local.take_totals().transport / 6 == pytest.approx(expected.item(), rel=1e-5)


def test_windows_have_no_image_size(tmp_path, archive):
    refused = command(tmp_path, "train", "--data", archive.name, "--image-size", "32")
    assert refused.returncode == 2
    assert "--image-size 32 does not apply to waves.npz, whose size is 32 already" in refused.stderr
