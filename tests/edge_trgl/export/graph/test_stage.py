"""One module as it is deployed: normalisation, outputs, names."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from edge_trgl.deploy.prediction import takes_pixels
from edge_trgl.export.graph.stage import Normalisation, Stage, describe


def normalisation(shape=(2, 1, 1), mean=(0.5, 0.25), std=(0.5, 0.125), scale=255):
    return Normalisation(mean=mean, std=std, scale=scale, input_shape=shape)


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1)])
def test_the_first_stage_normalises(shape):
    stage = Stage(nn.Identity(), nn.Flatten(), goes_on=False, normalisation=normalisation(shape))
    (logits,) = stage(torch.tensor([255.0, 127.5]).reshape(1, *shape))
    assert logits.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("mean", "std", "scale"), [((0.0,), (1.0, 1.0), 1), ((0.0, 0.0), (1.0, 0.0), 1), ((0.0, 0.0), (1.0, 1.0), 0)]
)
def test_an_impossible_normalisation_is_refused(mean, std, scale):
    with pytest.raises(ValueError, match="std"):
        normalisation(mean=mean, std=std, scale=scale)


def test_a_stage_gives_what_is_read_of_it():
    trunk, head, x = nn.ReLU(), nn.Flatten(), torch.tensor([[[-1.0, 2.0]]])
    assert [out.tolist() for out in Stage(trunk, head, goes_on=True, normalisation=None)(x)] == [
        [[[0.0, 2.0]]],
        [[0.0, 2.0]],
    ]
    (boundary,) = Stage(trunk, None, goes_on=True, normalisation=None)(x)
    assert boundary.shape == (1, 1, 2)


def test_tensors_have_the_names_of_a_modules_file_and_stand_once():
    shared = nn.Linear(2, 2)
    stage = Stage(nn.Sequential(shared, shared), nn.BatchNorm1d(2), goes_on=False, normalisation=None)
    names = {"trunk.0.weight", "trunk.0.bias", "head.weight", "head.bias"}
    buffers = {"head.running_mean", "head.running_var", "head.num_batches_tracked"}
    assert stage.tensors().keys() == names | buffers


def test_the_description():
    of_images = describe(normalisation((2, 4, 4)), ["cat", "öäü", "a,b"], "pad")
    assert json.loads(of_images["class_names"]) == ["cat", "öäü", "a,b"]
    assert of_images["preprocessing"] == (
        "Give float32 images [N, C, H, W] with values from 0 to 255; (input / 255 - mean) / std, "
        "mean [0.5, 0.25], std [0.5, 0.125], is part of the graph."
    )
    assert of_images["resize"] == "pad"
    of_windows = describe(normalisation((2, 4), scale=1), [], "crop")
    assert "resize" not in of_windows
    wanted = "Give float32 windows [N, C, L] with values in the units of the training data;"
    assert of_windows["preprocessing"].startswith(wanted)
    assert takes_pixels(of_images)
    assert not takes_pixels(of_windows)
    of_bytes = describe(normalisation((2, 4)), [b"caf\xe9".decode(errors="surrogateescape")], "crop")
    assert of_bytes["class_names"].isascii()
