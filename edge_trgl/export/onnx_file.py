"""Writing an ONNX file: trace without weights, stream the weights beside the graph, check, rename."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_trgl import __version__
from edge_trgl.export.wire import ModelStream, stream
from edge_trgl.runtime import files
from edge_trgl.runtime.errors import ExportRejectedError

INPUT = "input"
OUTPUT = "logits"

# What one protobuf message may hold: readers count its bytes in a signed 32-bit number.
MAX_FILE_BYTES = 2**31 - 1


def write(
    model: nn.Module,
    path: Path,
    *,
    input_shape: tuple[int, ...],
    metadata: Mapping[str, str],
    opset: int = 17,
) -> None:
    """Write `model` to `path` as one self-contained ONNX file, durably, or leave `path` as it was.

    The graph takes `input` float32 [N, *input_shape] and gives `logits` [N, num_classes], N free. Batch norms
    stay as they are: runtimes fold them on load. Peak memory is the model, one tensor and the checker's
    copy of the file.

    Args:
        model: float32; put in eval mode and left so.
        path: where the file goes; a temporary name in the same folder is used until it has been checked.
        input_shape: (C, H, W), or (C, L) of windows.
        metadata: goes into the file's `metadata_props`.
        opset: of the default domain.

    Raises:
        ExportRejectedError: the model has an operation that the opset lacks, the file would pass the
            2 GiB of a protobuf message, or the checker refuses it.
        StorageError: the disk is full or fails.
    """
    temporary = files.temporary_of(path)
    try:
        graph = _trace(model.eval(), temporary, input_shape, opset)
        chunks = stream(_finished(graph, metadata), _take_weights(graph, model))
        _require_size(chunks)
        files.write_durable(temporary, chunks)
        _check(temporary, path, opset)
        files.rename(temporary, path)
    finally:
        files.remove(temporary)


def rejected(path: Path) -> Path:
    """Where a refused file is kept: `model.onnx` goes to `model.onnx.rejected`."""
    return path.with_name(path.name + ".rejected")


def _trace(model: nn.Module, scratch: Path, input_shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """The graph alone, by way of the file `scratch`: weights become inputs beside the image, uncopied."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The newer exporter writes opset 18 when asked for 17; the warnings say to use it.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.zeros(1, *input_shape),),
                scratch,
                export_params=False,
                do_constant_folding=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
                opset_version=opset,
                dynamo=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).splitlines()[0]
        raise ExportRejectedError(
            f"the network cannot be written at opset {opset}: {reason}",
            hint="replace that operation in the model, or export with another opset",
        ) from error
    return onnx.load(scratch)


def _take_weights(graph: onnx.ModelProto, model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that the graph's inputs name, in its order; those inputs are removed from the graph."""
    names = [value.name for value in graph.graph.input if value.name != INPUT]
    kept = [value for value in graph.graph.input if value.name == INPUT]
    del graph.graph.input[:]
    graph.graph.input.extend(kept)
    tensors = model.state_dict()
    return {name: tensors[name] for name in names}


def _finished(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    graph.producer_name = "edge-trgl"
    graph.producer_version = __version__
    onnx.helper.set_model_props(graph, dict(metadata))
    return graph


def _require_size(chunks: ModelStream) -> None:
    if chunks.num_bytes > MAX_FILE_BYTES:
        raise ExportRejectedError(
            f"the ONNX file would be {chunks.num_bytes / 2**20:.0f} MiB, and one file holds "
            f"{MAX_FILE_BYTES / 2**20:.0f} MiB at most",
            hint="export a smaller depth, or train a narrower network",
        )


def _check(temporary: Path, path: Path, opset: int) -> None:
    _assert_versions(temporary, opset)
    try:
        # By name, not as a message: the checker then holds the only copy, and gives it back.
        onnx.checker.check_model(str(temporary), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        files.rename(temporary, rejected(path))
        raise ExportRejectedError(
            f"{path.name} was refused by the ONNX checker: {str(error).splitlines()[0]}",
            hint=f"the file is kept as {rejected(path)}; please report it",
        ) from error


def _assert_versions(path: Path, opset: int) -> None:
    """Exporters have been seen to write another opset than the one asked for."""
    model = onnx.load(path, load_external_data=False)
    found = {entry.domain: entry.version for entry in model.opset_import}
    assert found == {"": opset}, f"asked for opset {opset}, the file has {found}"
    oldest = onnx.helper.find_min_ir_version_for(model.opset_import)
    assert model.ir_version <= oldest, f"IR {model.ir_version} is newer than opset {opset} needs ({oldest})"
