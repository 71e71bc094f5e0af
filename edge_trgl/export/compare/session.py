"""Run an exported model in onnxruntime, one module at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from edge_trgl.export.arrays import Array
from edge_trgl.export.graph.names import entry_name, prefix_of
from edge_trgl.export.onnx_file.onnx_file import typed
from edge_trgl.export.onnx_file.stream_reader import StreamedModel

if TYPE_CHECKING:
    import onnxruntime


class Session:
    """One module, cut out of an exported model's graph, with the weights stored in the model's file.

    The weights are passed as inputs, so that onnxruntime computes with the one copy that is read here.

    Args:
        written: the model.
        number: the module, counted from 1.
        threads: CPU threads; 0 leaves the choice to onnxruntime.
        inside: names of inner float32 tensors to return beside the module's outputs.

    Attributes:
        entry: the name of the module's input.

    Raises:
        StorageError: the weights cannot be read.
    """

    def __init__(self, written: StreamedModel, number: int, threads: int, inside: Sequence[str] = ()) -> None:
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
        """Run the module on `x` [N, ...].

        Returns:
            Its boundary, its logits or both, and the tensors of `inside`, by name.
        """
        outputs = [value.name for value in self._session.get_outputs()]
        # Boundary files are float32. In a half-precision model this restores the float16 values exactly.
        values = self._session.run(outputs, {self.entry: x.astype(self._dtype, copy=False), **self._weights})
        return dict(zip(outputs, values, strict=True))


def part_of(written: StreamedModel, number: int) -> onnx.ModelProto:
    """Cut out module `number`, counted from 1, as a model whose inputs are the module's input and its weights."""
    graph = written.model.graph
    nodes = [node for node in graph.node if node.name.startswith(prefix_of(number))]
    read = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    declared = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    part = onnx.ModelProto()
    part.CopyFrom(written.model)
    part.ClearField("graph")
    part.graph.name = prefix_of(number)
    part.graph.node.extend(nodes)
    part.graph.input.append(declared[entry_name(number)])
    part.graph.input.extend(typed(weight) for name, weight in written.weights.items() if name in read)
    part.graph.output.extend(value for name, value in declared.items() if name in made)
    return part


def opened(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a CPU session for a model whose weights are inputs, configured to use little memory beside them."""
    import onnxruntime  # 20 MiB, which processes that only write files should not pay

    options = onnxruntime.SessionOptions()
    # An optimised session repacks every weight: the file is in memory three times instead of once.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
