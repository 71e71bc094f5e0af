"""A sample leaves at the first exit that is sure enough, with what that exit says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearness import assert_near

from edge_trgl.deploy import Cascade, Manifest, Stage
from edge_trgl.deploy.prediction import softmax
from edge_trgl.runtime.errors import InputError, UsageError


def expected(tiny, images, threshold):
    """Sample by sample, in plain numpy: logits and exits."""
    early, late = tiny.logits(images), tiny.logits(images, 1)
    leaves = softmax(early).max(axis=1) >= threshold
    return np.where(leaves[:, None], early, late), np.where(leaves, 1, 2)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.8, 1.0])
def test_it_stops_at_the_first_exit_that_is_sure(tmp_path, tiny, pixels, batch, threshold):
    cascade = Cascade(tiny.cascade(tmp_path / "model.exits", batch=batch), threshold=threshold, threads=1)
    images = pixels(40) * np.linspace(0.1, 8, 40, dtype=np.float32)[:, None, None, None]
    logits, exits = expected(tiny, images, threshold)
    found = cascade.predict(images)
    assert_near(found.logits, logits)
    assert found.exits.tolist() == exits.tolist()
    np.testing.assert_allclose(found.compute_shares, np.where(exits == 1, 0.25, 1.0))
    if threshold == 0.8:
        assert set(exits) == {1, 2}  # else this would say little


def test_the_manifest_has_the_thresholds(tmp_path, tiny, pixels):
    images = pixels(20)
    for threshold in (0.0, 1.0):
        folder = tiny.cascade(tmp_path / str(threshold), thresholds=(threshold, None))
        assert Cascade(folder).predict(images).exits.tolist() == expected(tiny, images, threshold)[1].tolist()
    assert Cascade(folder, threshold=0.0).predict(images).exits.tolist() == [1] * 20


def test_what_is_told(tmp_path, tiny):
    cascade = Cascade(tiny.cascade(tmp_path / "model.exits", shape=(2, 50)), threshold=0.7)
    assert cascade.input_shape == (2, 50)
    assert cascade.class_names == tiny.NAMES
    assert cascade.provider.name == "cpu"
    assert [stage.threshold for stage in cascade.manifest.stages] == [0.7, None]


def test_a_stage_is_loaded_when_a_sample_comes_to_it(tmp_path, tiny, pixels):
    folder = tiny.cascade(tmp_path / "model.exits")
    (folder / "stage-2.onnx").unlink()
    cascade = Cascade(folder, threshold=0.0)
    assert cascade.predict(pixels(3)).exits.tolist() == [1, 1, 1]
    with pytest.raises(InputError, match=r"no model file .*stage-2\.onnx"):
        Cascade(folder, threshold=1.0).predict(pixels(3))


def test_stages_that_do_not_fit(tmp_path, tiny, pixels):
    folder = tiny.cascade(tmp_path / "model.exits")
    (folder / "stage-2.onnx").write_bytes((folder / "stage-1.onnx").read_bytes())
    with pytest.raises(InputError, match="takes input, but the stage before gives boundary"):
        Cascade(folder, threshold=1.0).predict(pixels(1))
    tiny.classifier(folder / "stage-1.onnx", exits=(1, 2))
    with pytest.raises(InputError, match="is not a stage"):
        Cascade(folder)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability(tmp_path, tiny, threshold):
    with pytest.raises(UsageError, match="not a probability"):
        Cascade(tiny.cascade(tmp_path / "model.exits"), threshold=threshold)


@given(st.data())
def test_a_manifest_is_read_as_it_was_written(tmp_path_factory, data):
    number = data.draw(st.integers(1, 5))
    stages = [
        Stage(
            file=f"stage-{index}.onnx",
            flops=data.draw(st.integers(1, 10**12)),
            threshold=data.draw(st.floats(0, 1)) if index < number else None,
        )
        for index in range(1, number + 1)
    ]
    manifest = Manifest(class_names=tuple(data.draw(st.lists(st.text()))), stages=tuple(stages))
    folder = tmp_path_factory.mktemp("exits")
    (folder / "manifest.json").write_text(json.dumps(manifest.document()))
    assert Manifest.read(folder) == manifest


def changed(*keys, value):
    def change(document):
        *way, last = keys
        for key in way:
            document = document[key]
        document[last] = value

    return change


WRONG = {
    "another format": (changed("format", value="zip"), "'zip', version 1"),
    "another version": (changed("version", value=2), "version 2"),
    "a field too many": (changed("more", value=1), "and nothing else"),
    "class names": (changed("class_names", value=[1]), "class_names"),
    "no list of stages": (changed("stages", value=3), "not a list"),
    "no stages": (changed("stages", value=[]), "no stages"),
    "a stage that is none": (changed("stages", 0, value=7), "a stage must have"),
    "a file elsewhere": (changed("stages", 0, "file", value="../stage.onnx"), "in the same folder"),
    "a file without a name": (changed("stages", 0, "file", value=""), "in the same folder"),
    "the folder above": (changed("stages", 0, "file", value=".."), "in the same folder"),
    "no flops": (changed("stages", 0, "flops", value=0), "above 0"),
    "flops that are text": (changed("stages", 0, "flops", value="many"), "above 0"),
    "flops that are no number": (changed("stages", 1, "flops", value=float("nan")), "above 0"),
    "a threshold above 1": (changed("stages", 0, "threshold", value=1.5), "from 0 to 1"),
    "a threshold that is no number": (changed("stages", 0, "threshold", value=True), "from 0 to 1"),
    "no threshold": (changed("stages", 0, "threshold", value=None), "except the last"),
    "a threshold at the end": (changed("stages", 1, "threshold", value=0.5), "except the last"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_manifest_with(tmp_path, tiny, case):
    change, text = WRONG[case]
    path = tiny.cascade(tmp_path / "model.exits") / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=text) as raised:
        Cascade(path.parent)
    assert str(path) in raised.value.message


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_manifest_that_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_all_thresholds_at_once():
    stages = [
        Stage(file=f"{name}.onnx", flops=1, threshold=limit)
        for name, limit in (("a", 0.1), ("b", 0.2), ("c", None))
    ]
    manifest = Manifest(class_names=(), stages=tuple(stages))
    found = manifest.with_threshold(0.7)
    assert found.stages == (*(replace(stage, threshold=0.7) for stage in stages[:2]), stages[2])
