"""A file that was exported gives what its graph computes; one that is something else is a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nearness import assert_near
from onnx import helper
from PIL import Image

from edge_trgl.deploy import Predictor
from edge_trgl.deploy.answering import answer_all
from edge_trgl.runtime.errors import InputError, UsageError


@pytest.mark.parametrize(("metadata", "expected"), [({}, True), ({"scale": "255"}, True), ({"scale": "1"}, False)])
def test_what_it_takes(tmp_path, tiny, metadata, expected):
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx", metadata=metadata))
    assert predictor.takes_pixels is expected
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (answer,) = answer_all(predictor, [tmp_path / "a.png"], 1)
    assert (answer.error is None) is expected


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("num", [1, 3, 7])
def test_it_gives_what_the_graph_computes_whatever_the_batch(tmp_path, tiny, pixels, batch, num):
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx", batch=batch), threads=1)
    images = pixels(num)
    found = predictor.predict(images)
    expected = tiny.logits(images)
    assert_near(found.logits, expected)
    powers = np.exp(expected.astype(np.float64))
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3)
    assert found.labels.tolist() == expected.argmax(axis=1).tolist()


def test_the_file_says_what_it_takes_and_names(tmp_path, tiny):
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx", (1, 5, 9)))
    assert predictor.input_shape == (1, 5, 9)
    assert predictor.class_names == tiny.NAMES
    assert predictor.num_exits == 1
    assert predictor.provider.name == "cpu"
    assert Predictor(tiny.classifier(tmp_path / "nameless.onnx", names=None)).class_names == ()


def test_whole_numbers_and_windows(tmp_path, tiny):
    windows = np.arange(2 * 6 * 30).reshape(2, 6, 30) % 200
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx", (6, 30)))
    assert_near(predictor.predict(windows.astype(np.uint8)).logits, tiny.logits(windows))


def test_large_logits_do_not_overflow(tmp_path, tiny, pixels):
    found = Predictor(tiny.classifier(tmp_path / "model.onnx")).predict(pixels(2) * 1e6)
    assert np.isfinite(found.probabilities).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(("chosen", "seed"), [(None, 9), (1, 5), (2, 7), (3, 9)])
def test_of_several_exits_the_last_answers_unless_another_is_named(tmp_path, tiny, pixels, chosen, seed):
    path = tiny.classifier(tmp_path / "model.onnx", exits=(5, 7, 9))
    predictor = Predictor(path, exit_number=chosen)
    images = pixels(2)
    assert predictor.num_exits == 3
    assert_near(predictor.predict(images).logits, tiny.logits(images, seed))


def test_exits_are_ordered_by_number_not_by_place(tmp_path, tiny, pixels):
    path = tiny.classifier(tmp_path / "model.onnx", exits=range(1, 12))
    images = pixels(1)
    assert_near(Predictor(path).predict(images).logits, tiny.logits(images, 11))


@pytest.mark.parametrize("number", [0, 3])
def test_an_exit_that_is_not_there(tmp_path, tiny, number):
    path = tiny.classifier(tmp_path / "model.onnx", exits=(1, 2))
    with pytest.raises(UsageError, match=f"no exit {number}"):
        Predictor(path, exit_number=number)


def test_optimized_and_as_written_agree(tmp_path, tiny, pixels):
    path = tiny.classifier(tmp_path / "model.onnx")
    images = pixels(4)
    plain, fast = (Predictor(path, optimize=optimize).predict(images).logits for optimize in (False, True))
    assert_near(fast, plain)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 8), (1, 3, 8, 9), (0, 3, 8, 8), (1, 8, 8, 3), ()])
def test_arrays_of_another_shape(tmp_path, tiny, shape):
    predictor = Predictor(tiny.classifier(tmp_path / "model.onnx"))
    with pytest.raises(ValueError, match=r"\[N, 3, 8, 8\], not"):
        predictor.predict(np.zeros(shape))


DAMAGED = {
    "is not there": (lambda path: path.unlink(), "there is no model file"),
    "is empty": (lambda path: path.write_bytes(b""), "cannot be loaded"),
    "is text": (lambda path: path.write_text("no model " * 100), "cannot be loaded"),
    "is cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be loaded"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_that(tmp_path, tiny, case):
    damage, text = DAMAGED[case]
    path = tiny.classifier(tmp_path / "model.onnx")
    damage(path)
    with pytest.raises(InputError, match=text) as raised:
        Predictor(path)
    assert "model.onnx" in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("names", ["no json", '{"a": 1}', "[1, 2, 3, 4]"])
def test_class_names_that_are_none(tmp_path, tiny, names):
    path = tiny.classifier(tmp_path / "model.onnx", metadata={"class_names": names})
    with pytest.raises(InputError, match="not a JSON list"):
        Predictor(path)


def test_too_few_class_names(tmp_path, tiny, pixels):
    path = tiny.classifier(tmp_path / "model.onnx", metadata={"class_names": json.dumps(["one"])})
    with pytest.raises(InputError, match="names for 1 classes"):
        Predictor(path).predict(pixels(1))


def relu(source, target):
    return helper.make_node("Relu", [source], [target])


FOREIGN = {
    "a free height": ({"input": ["n", 3, "h", 8]}, {"logits": ["n", 3, "h", 8]}, "fixed sizes"),
    "no channels": ({"input": ["n", 8]}, {"logits": ["n", 8]}, "windows"),
    "two inputs": ({"input": ["n", 3, 8], "more": ["n", 3, 8]}, {"logits": ["n", 3, 8]}, "2 inputs"),
    "outputs of any names": ({"input": ["n", 3, 8]}, {"one": ["n", 3, 8], "two": ["n", 3, 8]}, "one, two"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_network_of_another_kind(tmp_path, tiny, case):
    inputs, outputs, text = FOREIGN[case]
    path = tiny.save(tmp_path / "model.onnx", [relu("input", name) for name in outputs], inputs, outputs, {})
    with pytest.raises(InputError, match=text):
        Predictor(path)


def test_values_that_are_no_classes(tmp_path, tiny, pixels):
    shape = ["n", 3, 8, 8]
    path = tiny.save(tmp_path / "m.onnx", [relu("input", "logits")], {"input": shape}, {"logits": shape}, {})
    with pytest.raises(InputError, match=r"gives logits of shape \[1, 3, 8, 8\]"):
        Predictor(path).predict(pixels(1))
