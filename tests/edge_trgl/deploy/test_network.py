"""What a session is opened with: little memory on the CPU, unless it is asked for or needed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from nearness import assert_near
from onnx import helper

from edge_trgl.deploy import network
from edge_trgl.deploy.network import Network
from edge_trgl.runtime.errors import InputError

LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.fixture
def opened(monkeypatch):
    """The options of every session that is opened, with a CUDA that is in truth the CPU."""
    found = []

    def session(path, options, *, providers, enable_fallback):
        found.append(options)
        real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = SimpleNamespace(get_providers=lambda: providers, run=real.run)
        for name in ("get_inputs", "get_outputs", "get_modelmeta", "disable_fallback"):
            setattr(names, name, getattr(real, name))
        return names

    runtime = SimpleNamespace(**vars(onnxruntime))
    runtime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    runtime.InferenceSession = session
    monkeypatch.setattr(network, "load_runtime", lambda: runtime)
    return found


def quantised(tiny, path):
    """A network that rounds its input to whole numbers."""
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["logits"]),
    ]
    constants = {"scale": np.array(1, np.float32), "zero": np.array(0, np.uint8)}
    return tiny.save(path, nodes, {"input": ["n", 2, 3]}, {"logits": ["n", 2, 3]}, constants)


def test_no_arena_and_the_graph_as_it_is_written(tmp_path, tiny, opened):
    Network(tiny.classifier(tmp_path / "model.onnx"), provider="cpu", threads=3)
    (options,) = opened
    assert options.graph_optimization_level == LEVELS.ORT_DISABLE_ALL
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.intra_op_num_threads == 3


def test_rewritten_where_it_is_asked_for_or_another_provider_computes(tmp_path, tiny, opened):
    path = tiny.classifier(tmp_path / "model.onnx")
    Network(path, provider="cpu", optimize=True)
    Network(path, provider="cuda")
    assert Network(path).provider.name == "cuda"
    assert [options.graph_optimization_level for options in opened] == [LEVELS.ORT_ENABLE_ALL] * 3


def test_products_of_8_bit_numbers_do_not_saturate_where_there_is_no_vnni(tmp_path, tiny, opened):
    Network(quantised(tiny, tmp_path / "model.onnx"), provider="cpu")
    (options,) = opened
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_a_quantised_file_is_rewritten_wherever_its_nodes_stand_in_it(tmp_path, tiny, opened, monkeypatch):
    path = quantised(tiny, tmp_path / "model.onnx")
    for chunk_bytes in (2**20, *range(16, 60)):
        monkeypatch.setattr(network, "_CHUNK_BYTES", chunk_bytes)
        Network(path, provider="cpu")
        assert opened.pop().graph_optimization_level == LEVELS.ORT_ENABLE_ALL
    (rounded,) = Network(path, provider="cpu").run({"input": np.full((1, 2, 3), 2.7, np.float32)}, ["logits"])
    assert (rounded == 3).all()


def test_a_file_whose_name_cannot_be_written_down(tmp_path):
    path = tmp_path / "m\udcff.onnx"
    path.touch()
    with pytest.raises(InputError, match="is not valid UTF-8"):
        Network(path)


def test_weights_in_a_file_of_their_own(tmp_path, tiny, pixels):
    import onnx

    model = onnx.load(tiny.classifier(tmp_path / "whole.onnx"))
    onnx.save(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    images = pixels(2)
    (found,) = Network(tmp_path / "model.onnx").run({"input": images}, ["logits"])
    assert_near(found, tiny.logits(images))
