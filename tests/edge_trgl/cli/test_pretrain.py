"""`edge-trgl pretrain`, and the command that goes on with its file."""

from __future__ import annotations

import json
import shlex

import pytest
import safetensors.torch
import torch
from PIL import Image
from preloaded import command

from edge_trgl.cli.going_on import going_on
from edge_trgl.config.sources import read_recipes, resolve
from edge_trgl.run.folder import Run

TINY = (
    *("--model", "km-3-1-encoder", "--width", "4", "--batch-size", "16", "--epochs", "2"),
    *("--threads", "1", "--no-probe", "--seed", "3"),
)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(60):
        Image.new("L", (12, 12), 4 * number).save(folder / f"{number:02}.png")
    return folder


def following(output):
    """The words of the command that is printed last, without `edge-trgl`."""
    *_, last = output.splitlines()
    assert last.startswith("to go on: edge-trgl train ")
    return shlex.split(last.partition("edge-trgl ")[2])


@pytest.mark.slow
def test_from_blocks_to_a_classifier(tmp_path):
    done = command(tmp_path, "pretrain", *TINY, "--set", "data.limit=80", "--budget-mb", "900")
    assert done.returncode == 0, done.stderr
    assert "reconstruction error " in done.stdout
    assert "accuracy" not in done.stdout
    assert " acc " not in done.stderr
    words = following(done.stdout)
    assert words[-4:] == ["--pretrained", "runs/0001/blocks.safetensors", "--freeze", "1"]
    more = ("--set", "data.limit=80", "--batch-size", "16", "--epochs", "1", "--no-probe")
    trained = command(tmp_path, *words, *more)
    assert trained.returncode == 0, trained.stderr
    assert "pixels are normalised as in runs/0001/blocks.safetensors" in trained.stderr
    assert "pixels are normalised as in runs/0001" in (tmp_path / "runs/0002/report.html").read_text()
    refused = command(tmp_path, "report", "runs/0002", "--against", "runs/0001")
    assert refused.returncode == 2
    assert "runs/0001 was trained without labels: it has no accuracy" in refused.stderr
    blocks = safetensors.torch.load_file(tmp_path / "runs/0001/blocks.safetensors")
    facts = Run(tmp_path / "runs/0002").facts()
    frozen = safetensors.torch.load_file(tmp_path / "runs/0002/modules" / facts.modules()[0].name)
    facts.close()
    assert frozen.keys() == {name.replace("blocks.", "trunk.") for name in blocks}
    assert all(torch.equal(frozen[name.replace("blocks.", "trunk.")], blocks[name]) for name in blocks)


@pytest.mark.slow
def test_images_without_labels(tmp_path, photos):
    done = command(tmp_path, "pretrain", "--data", photos.name, *TINY)
    assert done.returncode == 0, done.stderr
    assert "data photos: 60 images without labels: 49 train, 5 val, 6 test" in done.stderr
    assert following(done.stdout)[:3] == ["train", "--data", "LABELLED"]
    summary = json.loads(command(tmp_path, "resume", "runs/0001", "--json").stdout)
    assert summary["memory"]["peak_mb"] <= summary["memory"]["budget_mb"]
    assert (tmp_path / "runs/0001/blocks.safetensors").is_file()

    # The prepared images are there, and no reason to train a classifier of one class.
    refused = command(tmp_path, "train", "--data", photos.name, *TINY)
    assert refused.returncode == 4
    assert "photos holds images without labels" in refused.stderr
    assert "edge-trgl pretrain --data photos" in refused.stderr

    evaluated = json.loads(command(tmp_path, "evaluate", "runs/0001", "--json").stdout)
    assert evaluated["reconstruction"] == summary["reconstruction"]
    assert "reconstruction error " in command(tmp_path, "evaluate", "runs/0001").stdout
    exported = command(tmp_path, "export", "runs/0001")
    assert exported.returncode == 2
    assert "runs/0001 was trained without labels: it has no classifier to export" in exported.stderr
    page = (tmp_path / "runs/0001/report.html").read_text()
    assert "Reconstruction error" in page
    assert "Accuracy after each depth" not in page


def test_a_recipe_gives_the_network_and_the_data_alone(tmp_path):
    shown = command(tmp_path, "pretrain", "--recipe", "table2,table14", "--epochs", "5", "--dry-run").stdout
    for line in ('name = "autoencoder"', "crop_padding = 4", "lr = 0.001", 'epochs = "5"', "blocks = 1"):
        assert line in shown.splitlines()
    assert 'name = "km-20-1' in shown


def test_what_differs_from_the_defaults_is_taken_over(tmp_path):
    chosen = {
        "data": {"source": "my photos", "flip": True, "augment": False, "limit": 50, "image_size": 32},
        "model": {"name": "km-4-1", "blocks": 2, "width": 16, "downsample": [1, 3], "gain": 0.5},
        "train": {"seed": 7, "epochs": "3", "threads": 2},
        "budget": {"mb": 512.0},
    }
    run = Run.create(tmp_path / "run", resolve(*read_recipes("pretrain"), chosen))
    classes = [{"name": name, "train": 1, "val": 1, "test": 1} for name in "ab"]
    summary = {
        "reconstruction": {"validation": 0.1, "test": None, "num_modules": 2},
        "data": {"classes": classes},
    }
    words = following("\n".join(going_on(summary, run)))
    assert words == [
        *("train", "--data", "my photos", "--image-size", "32", "--no-augment", "--flip", "--model", "km-4-1"),
        *("--width", "16", "--set", "model.downsample=1,3", "--seed", "7", "--threads", "2", "--budget-mb", "512"),
        *("--pretrained", str(run.blocks_file), "--freeze", "2"),
    ]
    summary["reconstruction"]["num_modules"] = 0
    assert "--freeze" not in following("\n".join(going_on(summary, run)))
