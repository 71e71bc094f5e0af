"""Makes `import torch` light: without the parts that no training step calls, and in stages.

In a process that took three steps of a small net, the first of them on a batch of 4 (torch 2.13, x86), the
high-water mark was 254 MiB with neither, 215 without these parts, and 155 in stages too.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

from edge_trgl.runtime.memory import counters, file_pages
from edge_trgl.runtime.memory.without import without
from edge_trgl.runtime.processes.stand_ins import StandIns

LEFT_OUT = (
    # Kernels in Python for tensors without values, and the decompositions that they come from.
    "torch._decomp",
    "torch._meta_registrations",
    "torch._native",
    "torch._prims",
    "torch._prims_common",
    "torch._refs",
    # Compilers, tracers and exporters.
    "torch._dynamo",
    "torch._export",
    "torch._functorch",
    "torch._higher_order_ops",
    "torch._inductor",
    "torch._subclasses",
    "torch.compiler",
    "torch.export",
    "torch.func",
    "torch.fx",
    # Other tasks than a training step.
    "torch.ao",
    "torch.distributed",
    "torch.distributions",
    "torch.hub",
    "torch.masked",
    "torch.optim",
    "torch.package",
    "torch.profiler",
    "torch.quantization",
    "torch.signal",
    "torch.testing",
    "torch.utils._debug_mode",
    "torch.utils.data",
)
"""Modules that a training step does not call, in torch 2.4.0, 2.13.0 and 2.14.1, with which they were tried."""

OTHERS = ("torchgen", "unittest")
"""Modules of other packages that torch imports for tests and code generators."""

KEPT = ("torch._functorch.utils", "torch.fx.experimental.sym_node")
"""What a step calls among them: autograd's functions in Python, and the C++ of every new tensor."""


COMPARED = ("torch.export.ExportedProgram",)
"""What `torch.onnx.export` asks for, to see that a module is no such thing."""

ONNX_LEFT_OUT = ("torch.onnx._internal.exporter", "torch.onnx.ops")
"""What `torch.onnx` loads for the exporter that ours is not."""


def install(on_whole: Callable[[str], None], *, whole: bool = False) -> None:
    """Make the next `import torch` of this process light, as far as the process does not do without.

    Args:
        whole: leave out nothing.
        on_whole: called when something asks for a part that was left out, with its name, before all is loaded.
    """
    if "torch" in sys.modules:
        return
    light = not whole and "diet" not in without()
    stand_ins = StandIns(
        "torch",
        left_out=LEFT_OUT if light else (),
        others=OTHERS if light else (),
        kept=KEPT if light else (),
        compared=COMPARED,
        on_whole=on_whole,
        before=_load_largest_library,
        after=_finish,
    )
    sys.meta_path.insert(0, stand_ins)
    if light:
        sys.meta_path.insert(0, StandIns("torch.onnx", left_out=ONNX_LEFT_OUT, on_whole=on_whole))


def _load_largest_library(folders: Sequence[str]) -> None:
    """Load torch's largest library and return its pages, before there are those of the rest.

    `folders`: those of the package torch.
    """
    for folder in folders:
        # A build for CUDA may need libraries that only `import torch` finds.
        with suppress(OSError):
            ctypes.CDLL(f"{folder}/lib/libtorch_cpu.so")
    file_pages.give_back()


def anonymous_mb() -> float | None:
    """The anonymous MiB of this process when torch was loaded; None if that was before `install`."""
    return _loaded_mb[0] if _loaded_mb else None


_loaded_mb: list[float] = []


def _finish() -> None:
    """Do what a part that is left out does for all others, and return the pages that loading has touched."""
    _loaded_mb[:] = [counters.usage().anonymous]
    native = sys.modules["torch"]._C
    if hasattr(native, "_set_generator_metaclass"):
        module, name = next(place for place in _GENERATOR_CLASSES if find_spec(place[0]) is not None)
        native._set_generator_metaclass(getattr(import_module(module), name))
    file_pages.give_back()


_GENERATOR_CLASSES = (
    ("torch._custom_class_base", "CustomClassBaseMeta"),
    ("torch._opaque_base", "OpaqueBaseMeta"),
)
"""Where `torch._prims.rng_prims` finds the class of `torch.Generator`'s class, in torch 2.14 and 2.13."""
