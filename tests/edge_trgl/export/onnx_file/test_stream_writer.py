"""Any weights, written inside a model and beside it, are what onnx reads and what is read back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_trgl.export.onnx_file import onnx_file, stream_reader, weights
from edge_trgl.export.onnx_file.weights import Weight

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.bool_, np.uint8])
TENSORS = st.lists(
    DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))),
    max_size=5,
)


def stored(folder, tensors):
    """The tensors in one file, with a byte between them so that none is aligned."""
    path, content, found = folder / "source", b"", []
    for number, tensor in enumerate(tensors):
        content += b"|"
        place = {"path": path, "start": len(content), "num_bytes": tensor.nbytes}
        found.append(Weight(name=f"w{number}", dtype=tensor.dtype.name, shape=tensor.shape, **place))
        content += tensor.tobytes()
    path.write_bytes(content)
    return found


@given(tensors=TENSORS, inside=st.booleans(), name=st.text(max_size=200))
@settings(max_examples=60)
def test_weights_come_back(tensors, inside, name):
    model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], [], doc_string=name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        written = onnx_file.write(model, stored(path.parent, tensors), path, max_inside=10**9 if inside else 0)
        onnx_file.publish(written)
        loaded, found = onnx.load(path), stream_reader.read(path)
        assert loaded.graph.doc_string == found.model.graph.doc_string == name
        assert len(loaded.graph.initializer) == len(found.weights) == len(tensors)
        for tensor, theirs in zip(tensors, loaded.graph.initializer, strict=True):
            for read in (onnx.numpy_helper.to_array(theirs), found.weights[theirs.name].read()):
                assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
                assert read.tobytes() == tensor.tobytes()


def test_a_large_weight_is_copied_a_slice_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SLICE_BYTES", 1000)
    (weight,) = stored(tmp_path, [np.arange(1025, dtype=np.float32)])
    assert [len(view) for view in weight.slices()] == [1000, 1000, 1000, 1000, 100]
    assert b"".join(map(bytes, weight.slices())) == np.arange(1025, dtype=np.float32).tobytes()


@pytest.mark.parametrize("change", [{"dims": [2]}, {"raw_data": b""}])
def test_a_weight_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path, change):
    tensor = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, **{"dims": [1], "raw_data": bytes(4)} | change
    )
    graph = onnx.helper.make_graph([], "graph", [], [], [tensor])
    (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="the weight w has"):
        stream_reader.read(tmp_path / "model.onnx")
