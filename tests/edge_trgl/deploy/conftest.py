"""Small ONNX files, made by hand, whose answers can be computed with numpy."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

NAMES = ("cat", "dog", "owl", "yak")


def weights(num_features, num_classes=4, seed=0):
    """[features, classes], large enough for probabilities that differ."""
    return np.random.default_rng(seed).normal(0, 0.05, (num_features, num_classes)).astype(np.float32)


def features(images):
    """[N, C]: what every tiny network looks at."""
    return images.reshape(*images.shape[:2], -1).astype(np.float32).mean(axis=2)


def logits(images, seed=0, num_classes=4):
    return features(images) @ weights(images.shape[1], num_classes, seed)


def save(path, nodes, inputs, outputs, constants, metadata=None):
    """`inputs`, `outputs`: shapes by name; `constants`: arrays by name."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def mean_nodes(shape, output="features"):
    """From `input` to [N, C]."""
    axes = list(range(2, len(shape) + 1))
    return [helper.make_node("ReduceMean", ["input"], [output], axes=axes, keepdims=0)]


def classifier(path, shape=(3, 8, 8), *, exits=(), batch="batch", names=NAMES, metadata=None):
    """A network of one or, with the seeds `exits`, of several classifiers."""
    seeds = {f"logits_{number}": seed for number, seed in enumerate(exits, 1)} or {"logits": 0}
    nodes = mean_nodes(shape)
    for name, seed in seeds.items():
        nodes.append(helper.make_node("MatMul", ["features", f"w{seed}"], [name]))
    constants = {f"w{seed}": weights(shape[0], 4, seed) for seed in seeds.values()}
    described = {} if names is None else {"class_names": json.dumps(names)}
    return save(
        path,
        nodes,
        {"input": [batch, *shape]},
        {name: [batch, 4] for name in seeds},
        constants,
        {**described, **(metadata or {})},
    )


def cascade(folder, *, thresholds=(0.5, None), flops=(100, 300), shape=(3, 8, 8), batch="batch"):
    """Two stages: the second one reads the features that the first one gives, with weights of seed 1."""
    folder.mkdir()
    channels = shape[0]
    save(
        folder / "stage-1.onnx",
        [*mean_nodes(shape, "boundary"), helper.make_node("MatMul", ["boundary", "w"], ["logits"])],
        {"input": [batch, *shape]},
        {"logits": [batch, 4], "boundary": [batch, channels]},
        {"w": weights(channels)},
    )
    save(
        folder / "stage-2.onnx",
        [helper.make_node("MatMul", ["boundary", "w"], ["logits"])],
        {"boundary": [batch, channels]},
        {"logits": [batch, 4]},
        {"w": weights(channels, seed=1)},
    )
    stages = [
        {"file": f"stage-{number}.onnx", "flops": amount, "threshold": threshold}
        for number, (amount, threshold) in enumerate(zip(flops, thresholds, strict=True), 1)
    ]
    document = {"format": "edge-trgl exits", "version": 1, "class_names": list(NAMES), "stages": stages}
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def as_large_as_resnet18(path, side=64):
    """Twenty convolutions with batch norms as in ResNet-18, without its shortcuts: 11.2 million weights."""
    layers = [(3, 64, 2), *[(64, 64, 1)] * 4]
    for before, after in ((64, 128), (128, 256), (256, 512)):
        layers += [(before, after, 2), *[(after, after, 1)] * 3]
    generator = np.random.default_rng(0)
    constants, nodes, last = {}, [], "input"
    for index, (before, after, stride) in enumerate(layers):
        scale = (2 / (9 * before)) ** 0.5
        constants[f"w{index}"] = generator.normal(0, scale, (after, before, 3, 3)).astype(np.float32)
        norm = []
        for name, value in (("g", 1), ("b", 0), ("m", 0), ("v", 1)):
            norm.append(f"{name}{index}")
            constants[norm[-1]] = np.full(after, value, np.float32)
        size = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        nodes += [
            helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], **size),
            helper.make_node("BatchNormalization", [f"c{index}", *norm], [f"n{index}"]),
            helper.make_node("Relu", [f"n{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    nodes += [
        helper.make_node("ReduceMean", [last], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "w"], ["logits"]),
    ]
    constants["w"] = weights(512)
    return save(
        path,
        nodes,
        {"input": ["batch", 3, side, side]},
        {"logits": ["batch", 4]},
        constants,
        {"class_names": json.dumps(NAMES)},
    )


@pytest.fixture(scope="session")
def tiny():
    """The makers of files above, and what the files compute."""
    return SimpleNamespace(
        NAMES=NAMES,
        as_large_as_resnet18=as_large_as_resnet18,
        cascade=cascade,
        classifier=classifier,
        features=features,
        logits=logits,
        save=save,
    )


@pytest.fixture
def pixels():
    """Draws images or windows [N, *shape] with values from 0 to 255."""
    generator = np.random.default_rng(3)
    return lambda num, shape=(3, 8, 8): generator.uniform(0, 255, (num, *shape)).astype(np.float32)
