"""Run a written model in onnxruntime, one module at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from edge_trgl.export.arrays import Array
from edge_trgl.export.graph.names import entry_name, prefix_of
from edge_trgl.export.onnx_file.onnx_file import typed
from edge_trgl.export.onnx_file.stream_reader import Written

if TYPE_CHECKING:
    import onnxruntime


class Session:
    """Module `number`, counted from 1, of a model, cut out of its graph, with the weights that its file holds.

    The weights are fed as inputs: onnxruntime then computes with the one copy that is read here. `entry` is the
    name of the module's input; `inside` names tensors, float32, that the module gives beside its outputs.

    Raises:
        StorageError: the weights cannot be read.
    """

    def __init__(self, written: Written, number: int, threads: int, inside: Sequence[str] = ()) -> None:
        part = part_of(written, number)
        entry, given = part.graph.input[0], {value.name for value in part.graph.output}
        self.entry = entry.name
        self._dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        part.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in inside
            if name not in {self.entry, *given}
        )
        self._weights: dict[str, Array] = {
            value.name: written.weights[value.name].read() for value in part.graph.input[1:]
        }
        self._session = opened(part, threads)

    def __call__(self, x: Array) -> dict[str, Array]:
        """What the module gives for [N, ...], by name: its boundary, its logits, or both, and what is inside."""
        outputs = [value.name for value in self._session.get_outputs()]
        # Of a model in half precision that is what a boundary was before it went to its file.
        found = self._session.run(outputs, {self.entry: x.astype(self._dtype, copy=False), **self._weights})
        return dict(zip(outputs, found, strict=True))


def part_of(written: Written, number: int) -> onnx.ModelProto:
    """Module `number` as a model of its own: its input first, then its weights as inputs."""
    graph = written.model.graph
    nodes = [node for node in graph.node if node.name.startswith(prefix_of(number))]
    read = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    known = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    part = onnx.ModelProto()
    part.CopyFrom(written.model)
    part.ClearField("graph")
    part.graph.name = prefix_of(number)
    part.graph.node.extend(nodes)
    part.graph.input.append(known[entry_name(number)])
    part.graph.input.extend(typed(weight) for name, weight in written.weights.items() if name in read)
    part.graph.output.extend(value for name, value in known.items() if name in made)
    return part


def opened(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a session of a model whose weights are inputs; it holds little memory beside them."""
    import onnxruntime  # 20 MiB that writing a file need not pay for

    options = onnxruntime.SessionOptions()
    # An optimised session repacks every weight: three times the file in memory, against once without.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
