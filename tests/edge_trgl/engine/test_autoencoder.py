"""An autoencoder is trained by the engine like any module, and ends in a file for `--pretrained`."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from plans import PLENTY

from edge_trgl.config.sources import read_recipes, resolve
from edge_trgl.engine import training
from edge_trgl.engine.normalisation import choose_normalisation
from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.weight_files import open_weights
from edge_trgl.run.facts import Normalisation
from edge_trgl.runtime.errors import StoppedError, UsageError

ENCODER = {"model__name": "km-3-1-encoder"}
SETTINGS = {
    **ENCODER,
    "model__blocks": 1,
    "loss__name": "autoencoder",
    "transport__enabled": False,
    "train__optimizer": "adamw",
    "train__lr": 0.01,
    "train__lr_schedule": "constant",
    "train__weight_decay": 0.0,
}


def tensors(run, module):
    return {name: t.clone() for name, t in open_run(run).modules().open(module).final_tensors().items()}


def test_what_is_rebuilt_comes_near_and_is_no_accuracy(train_run):
    short, long = (
        train_run(f"{epochs}", **SETTINGS, train__epochs=epochs).result.scores for epochs in ("1", "30")
    )
    assert long.reconstruction.validation < short.reconstruction.validation
    assert long.reconstruction.test < 0.5  # of the variance
    assert (long.per_depth, long.chosen, long.last, long.test_per_depth) == ((), None, None, ())


def test_stopped_and_resumed_gives_the_same_file(plan_run, train_run, finish):
    settings = {**SETTINGS, "train__epochs": "5"}
    unbroken = train_run("unbroken", **settings)
    run = plan_run("stopped", **settings)
    for _ in range(4):
        with pytest.raises(StoppedError):
            training.train(open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda: True)
    assert 0 < run.facts().position() < 5
    assert not run.blocks_file.exists()
    assert finish(run).sha256 == unbroken.sha256
    assert run.blocks_file.read_bytes() == unbroken.run.blocks_file.read_bytes()


def test_the_file_holds_the_blocks_alone(train_run):
    run = train_run("run", **SETTINGS).run
    trained, kept = tensors(run, 0), safetensors.torch.load_file(run.blocks_file)
    assert {name for name in trained if name.startswith("head.")}
    assert kept.keys() == {name.replace("trunk.", "blocks.") for name in trained if name.startswith("trunk.")}
    assert all(torch.equal(kept[name], trained[name.replace("blocks.", "trunk.")]) for name in kept)


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_frozen_module_is_the_pretrained_one(train_run, given):
    blocks = train_run("blocks", **SETTINGS).run
    path = blocks.blocks_file if given == "file" else blocks.folder
    run = train_run("run", **ENCODER, model__pretrained=str(path), train__freeze=1).run
    pretrained = {name: t for name, t in tensors(blocks, 0).items() if name.startswith("trunk.")}
    frozen = tensors(run, 0)
    assert frozen.keys() == pretrained.keys()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in pretrained.items())


def test_pixels_are_normalised_as_in_pretraining(train_run, plan_run, tmp_path):
    blocks = train_run("blocks", **SETTINGS, data__limit=60).run
    info, elsewhere = open_run(blocks).info, tmp_path / "encoder.safetensors"
    blocks.blocks_file.rename(elsewhere)
    chosen = choose_normalisation(plan_run("run", **ENCODER, model__pretrained=str(elsewhere)))
    assert chosen == Normalisation(name=f"in {elsewhere}", mean=info.mean, std=info.std)
    own = plan_run("own", **ENCODER, model__pretrained=str(elsewhere), data__normalize="data")
    assert choose_normalisation(own) is None


@pytest.mark.parametrize(
    ("model", "blocks", "modules"),
    [("km-3-1-encoder", 1, 1), ("km-3-1", 2, 2), ("km-2-2", 1, 0), ("km-2-2", 3, 1), ("km-3-1", 3, 2)],
)
def test_the_modules_that_may_be_frozen_are_counted(train_run, model, blocks, modules):
    settings = {**SETTINGS, "model__name": model, "model__blocks": blocks}
    assert train_run("run", **settings).result.scores.reconstruction.num_modules == modules


def test_all_blocks_are_one_module_whatever_the_network_has(plan_run):
    chosen = {"model__blocks": None, "model__modules": 3, "model__head": "conv", "model__gain": None}
    opened = open_run(plan_run("run", **{**SETTINGS, **chosen}))
    assert (len(opened), len(opened.factory.chain.blocks)) == (1, 4)
    assert opened.facts.planned.layout.heads == ("decoder",)
    assert opened.factory.chain.gain == 1


def test_a_network_may_end_after_some_blocks_and_classify(train_run):
    scores = train_run("run", **ENCODER, model__blocks=2).result.scores
    assert len(scores.per_depth) == 2


def test_more_blocks_than_there_are(plan_run):
    with pytest.raises(UsageError, match="--blocks 5: km-3-1-encoder has 4 blocks"):
        plan_run("run", **ENCODER, model__blocks=5)


def test_a_map_is_needed(plan_run, tmp_path, monkeypatch):
    (tmp_path / "flat_models.py").write_text(
        "from torch import nn\n"
        "def net(*, input_shape, num_classes):\n"
        "    first = nn.Sequential(nn.Flatten(), nn.Linear(784, 8))\n"
        "    return nn.Sequential(*first, nn.ReLU(), nn.Linear(8, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"an autoencoder rebuilds images .* here \[1, 28, 28\] from \[8\]"):
        plan_run("run", **{**SETTINGS, "model__name": "flat_models:net"})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({**SETTINGS, "train__freeze": 1}, "trains all blocks as one module, and excludes train.freeze"),
        ({"model__blocks": 2, "model__modules": 2}, "model.blocks .* excludes model.modules"),
        ({**SETTINGS, "train__regime": "end-to-end"}, "autoencoder is a local loss"),
    ],
)
def test_what_has_no_meaning(plan_run, settings, problem):
    with pytest.raises(UsageError, match=problem):
        plan_run("run", **settings)


def test_the_recipe_is_that_of_the_authors():
    config = resolve(*read_recipes("pretrain"))
    train = config.train
    assert (train.epochs, train.batch_size, train.optimizer, train.lr, train.weight_decay) == (
        "20",
        128,
        "adamw",
        0.001,
        0.0,
    )
    assert (config.loss.reads_labels, config.transport.enabled, config.model.blocks) == (False, False, 1)


def test_weights_of_a_run_are_named_by_block(train_run):
    run = train_run("run", **SETTINGS).run
    assert open_weights(run.blocks_file).shapes.items() <= open_weights(run.folder).shapes.items()
