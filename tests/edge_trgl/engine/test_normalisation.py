"""What pixels are normalised with: as asked for, else as the pretrained net was; in training and in the export."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edge_trgl.config.sources import resolve
from edge_trgl.data import open_dataset
from edge_trgl.engine.cut_model import _of_library
from edge_trgl.engine.normalisation import IMAGENET, _asked_for, choose_normalisation, normalised, read_file
from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.visits import Span
from edge_trgl.export.write_models import Normalisation as Exported
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError, UsageError

COLOURS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.9]}


def info(channels=3, dtype="uint8", dims=2):
    return SimpleNamespace(input_shape=(channels, *[8] * dims), dtype=dtype)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("n.json", json.dumps(COLOURS)),
            ("preprocessor_config.json", json.dumps({"image_mean": COLOURS["mean"], "image_std": COLOURS["std"]})),
            ("n.toml", "mean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.9]\n"),
        ],
    )
    def test_of_every_kind(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        found = read_file(tmp_path / name)
        assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.9))
        assert "mean 0.1, 0.2, 0.3; std 0.4, 0.5, 0.9" in found.text

    def test_one_number_for_all_channels(self, tmp_path):
        (tmp_path / "n.toml").write_text("mean = 0.5\nstd = 0.25\n")
        assert _asked_for(str(tmp_path / "n.toml"), info()).mean == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "cannot be read"),
            ("[1, 2]", "holds no mean and std"),
            ('{"mean": [0.1]}', "holds no mean and std"),
            ('{"mean": [0.1, 0.2], "std": [0.5]}', "holds no mean and std"),
            ('{"mean": [0.1], "std": [0.0]}', "holds no mean and std"),
            ('{"mean": ["a"], "std": [true]}', "holds no mean and std"),
        ],
    )
    def test_that_hold_none(self, tmp_path, text, message):
        (tmp_path / "n.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_file(tmp_path / "n.json")


class TestChannels:
    def test_colours(self):
        assert _asked_for("imagenet", info()) == IMAGENET

    def test_grey_is_the_mean_of_the_colours(self):
        grey = _asked_for("imagenet", info(1))
        assert grey.mean == pytest.approx((np.mean(IMAGENET.mean),))
        assert grey.std == pytest.approx((np.mean(IMAGENET.std),))

    @pytest.mark.parametrize("channels", [2, 4])
    def test_other_channels_are_refused(self, channels):
        with pytest.raises(UsageError, match=f"imagenet has 3 channels, and the data has {channels}"):
            _asked_for("imagenet", info(channels))

    def test_windows_are_refused(self):
        with pytest.raises(UsageError, match="of images, and these are windows"):
            _asked_for("imagenet", info(3, dims=1))

    @pytest.mark.parametrize("text", [None, "data"])
    def test_the_datas_own(self, text):
        assert _asked_for(text, info(5, dims=1)) is None


def chosen(run):
    found = choose_normalisation(run)
    facts = run.facts()
    assert facts.normalisation == found
    facts.close()
    return found


def with_pretrained(folder, monkeypatch, known, **data):
    """A prepared run with a pretrained file of a library that normalises with `known`."""
    config = resolve({"model": {"pretrained": "w.pth"}, "data": data})
    run = Run.create(folder, config)
    facts = run.facts()
    facts.library_normalisation = known
    facts.close()
    monkeypatch.setattr("edge_trgl.engine.normalisation.open_survey", lambda folder: info(1))
    return run


class TestDefault:
    def test_is_that_of_the_pretrained_nets_library(self, tmp_path, monkeypatch):
        run = with_pretrained(tmp_path / "run", monkeypatch, IMAGENET)
        assert chosen(run).mean == pytest.approx((np.mean(IMAGENET.mean),))

    def test_is_the_datas_own_where_none_is_known(self, tmp_path, monkeypatch):
        assert chosen(with_pretrained(tmp_path / "run", monkeypatch, None)) is None

    def test_is_not_used_where_another_is_asked_for(self, tmp_path, monkeypatch):
        assert chosen(with_pretrained(tmp_path / "run", monkeypatch, IMAGENET, normalize="data")) is None

    def test_of_a_run_is_that_runs(self, plan_run):
        before = plan_run("before", model__name="km-2-1", data__normalize="imagenet")
        expected = chosen(before)
        after = plan_run("after", model__name="km-2-1", data__limit=200)
        run = Run.create(after.folder.parent / "more", resolve({"model": {"pretrained": str(before.folder)}}))
        after.data.rename(run.data)
        found = chosen(run)
        assert (found.mean, found.std) == (expected.mean, expected.std)


class TestInARun:
    def test_is_the_same_in_training_and_in_the_export(self, plan_run):
        run = plan_run("run", model__name="km-2-1", data__normalize="imagenet", data__augment=False)
        expected = chosen(run)
        opened, own = open_run(run), open_dataset(run.data)
        assert (opened.info.mean, opened.info.std) == (expected.mean, expected.std)
        assert own.mean != expected.mean
        feed = opened.feed("val")
        samples = np.arange(4)
        span = Span(split="val", epoch=0, start=0, stop=1, augmented=False, shuffled=False)
        pixels = feed.pixels(samples)
        wanted = (pixels / 255 - torch.tensor(expected.mean)) / torch.tensor(expected.std)
        torch.testing.assert_close(feed.images(span, 0, samples), wanted)
        graph = Exported(mean=opened.info.mean, std=opened.info.std, scale=own.scale, input_shape=own.input_shape)
        torch.testing.assert_close(graph(pixels), wanted)

    def test_without_a_choice_it_is_the_datas_own(self, plan_run):
        run = plan_run("run", model__name="km-2-1")
        assert chosen(run) is None
        facts = run.facts()
        assert normalised(open_dataset(run.data), facts) == open_dataset(run.data)
        facts.close()


class TestLibraries:
    @pytest.mark.parametrize(
        ("name", "mean"),
        [
            ("torchvision:resnet18", IMAGENET.mean),
            ("timm:resnet18", IMAGENET.mean),
            ("timm:vit_tiny_patch16_224", (0.5, 0.5, 0.5)),
            ("mine:net", None),
        ],
    )
    def test_what_a_model_was_trained_with(self, name, mean):
        if find_spec(name.partition(":")[0]) is None and mean is not None:
            pytest.skip(f"needs the library of {name}")
        found = _of_library(name)
        assert (found and found.mean) == mean
