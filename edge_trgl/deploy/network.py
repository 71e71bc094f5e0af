"""Run an ONNX file in onnxruntime on named arrays; images and classes are not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_trgl.deploy.providers import NAMES, ProviderFailedError, load_runtime, take, why_not_loaded, with_slower
from edge_trgl.runtime.errors import InputError, command
from edge_trgl.runtime.memory import allocator, counters
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

_ERRORS_ONLY = 3
_SILENT = 4
_CHUNK_BYTES = MIB
_EXACT_INTEGERS = "session.x64quantprecision"
_SOURCE = re.compile(r"\S+\.(?:cc|h):\d+ .*?\) ")


class Network:
    """A loaded model file.

    Args:
        path: an ONNX file whose inputs are float32 with all sizes fixed except the first, N.
        provider: `auto`, `tensorrt`, `cuda` or `cpu`.
        threads: CPU threads; None for one per processor that this process may use.
        optimize: let onnxruntime optimise the graph on the CPU: a network like ResNet-18 then runs 7 to 17 %
            faster (64×64 and 224×224, x86), but its weights are in memory several times while it loads. Other
            providers and quantised files are always optimised, because they need it.

    Attributes:
        inputs: shape of one sample of each input, by name.
        outputs: names of the outputs, in the file's order.
        batch: the fixed batch size of the file; None if it takes any.
        metadata: the file's metadata.
        provider: the provider in use, and why no faster one is.
        threads: CPU threads in use.
        version: version of onnxruntime.

    Raises:
        InputError: the file cannot be read, or is not such a model.
        UsageError: onnxruntime is missing, or the provider does not work here.
    """

    def __init__(
        self, path: Path, *, provider: str = "auto", threads: int | None = None, optimize: bool = False
    ) -> None:
        runtime = load_runtime()
        if not path.is_file():
            raise InputError(
                f"there is no model file {path}",
                hint=f"If its folder is a run, write it: {command('export', path.parent)}",
            )
        if not files.is_utf8(str(path)):
            raise InputError(f"{path} is not valid UTF-8: onnxruntime cannot open it", hint="Rename it.")
        self.path = path
        self.threads = threads or counters.num_cpus()
        self.version: str = runtime.__version__
        lean = not optimize and not _is_quantised(path)
        self._failures = _failures(runtime)
        self._session, self.provider = take(
            provider, runtime.get_available_providers(), lambda name: self._open(runtime, name, lean=lean)
        )
        # Without this, the heap would keep the memory that loading freed.
        allocator.trim()
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        self.inputs = {name: tuple(shape[1:]) for name, shape in shapes.items()}
        self._check_inputs()
        self.batch = next((shape[0] for shape in shapes.values() if isinstance(shape[0], int)), None)
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, arrays: Mapping[str, NDArray[np.float32]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute the named outputs, [N, ...] each, from the inputs `arrays`, [N, ...] each.

        N is 1 or more; if the file's batch size is fixed, the samples are split and padded to it.

        Raises:
            InputError: onnxruntime cannot run the file.
        """
        num = len(next(iter(arrays.values())))
        step = self.batch or num
        parts = []
        for first in range(0, num, step):
            fed = {name: repeat_last(array[first : first + step], step) for name, array in arrays.items()}
            try:
                parts.append(self._session.run(list(outputs), fed))
            except self._failures as error:
                raise InputError(
                    f"{self.path} cannot be run: {_first_line(error)}", hint="Export it again."
                ) from error
        return [np.concatenate(values)[:num] for values in zip(*parts, strict=True)]

    def _open(self, runtime: ModuleType, name: str, *, lean: bool) -> Any:
        on_cpu = name == "cpu"
        available = runtime.get_available_providers()
        options = _options(runtime, self.threads, lean=lean and on_cpu)
        # A failing provider is reported in one sentence; onnxruntime would also log twenty lines.
        runtime.set_default_logger_severity(_ERRORS_ONLY if on_cpu else _SILENT)
        try:
            session = runtime.InferenceSession(
                str(self.path), options, providers=with_slower(name, available), enable_fallback=0
            )
        except self._failures as error:
            if on_cpu:
                raise InputError(
                    f"{self.path} cannot be loaded by onnxruntime: {_first_line(error)}", hint="Export it again."
                ) from error
            raise ProviderFailedError(_first_line(error)) from error
        finally:
            runtime.set_default_logger_severity(_ERRORS_ONLY)
        session.disable_fallback()
        if session.get_providers()[0] != NAMES[name]:
            raise ProviderFailedError(why_not_loaded(runtime, name))
        return session

    def _check_inputs(self) -> None:
        for value in self._session.get_inputs():
            fixed = len(value.shape) > 1 and all(isinstance(size, int) for size in value.shape[1:])
            if value.type != "tensor(float)" or not fixed:
                raise InputError(
                    f"{self.path} takes {value.name} {value.type} {value.shape}; "
                    "only float32 inputs with fixed sizes after the batch can be run",
                    hint="Give a file that the verb export wrote.",
                )


def _options(runtime: ModuleType, threads: int, *, lean: bool) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The arena never returns memory, and the memory pattern allocates all activations as one block.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # On x86 without VNNI, onnxruntime sums products of 8-bit numbers in 16 bits, where a pair of large ones
    # saturates and predictions become wrong. This selects the exact kernel there; elsewhere it changes nothing.
    options.add_session_config_entry(_EXACT_INTEGERS, "1")
    if lean:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _failures(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """All exceptions that onnxruntime raises; its own have no common base class."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    kinds = [kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, ValueError, *kinds)


def _is_quantised(path: Path) -> bool:
    """Whether the graph has quantisation nodes; searches the file's bytes for their names, without a parser."""
    wanted = b"uantizeLinear"  # of QuantizeLinear and DequantizeLinear
    end = b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                if wanted in end + chunk:
                    return True
                end = chunk[-len(wanted) :]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="Check its owner and its mode."
        ) from error
    return False


def repeat_last(array: NDArray[Any], num: int) -> NDArray[Any]:
    """Pad a batch to [num, ...] by repeating its last row."""
    return np.ascontiguousarray(np.pad(array, [(0, num - len(array)), *[(0, 0)] * (array.ndim - 1)], mode="edge"))


def _first_line(error: Exception) -> str:
    """The first line of onnxruntime's message, without the source location with which it often begins."""
    return (_SOURCE.sub("", str(error).strip(), count=1) or type(error).__name__).splitlines()[0]
