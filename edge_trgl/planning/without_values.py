"""The tensors on which modules are counted: real ones, or ones with shape, layout and storage but no memory.

Both allocate the same bytes in the same order, except for some scalars.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edge_trgl.learning.materialise import made_real
from edge_trgl.runtime.memory import guard

VALUE = 104_729
"""The value of every number: a prime, which is neither a lap nor divisible by a period of steps."""

Module = TypeVar("Module", bound=nn.Module)


class Tensors(Protocol):
    """A context to compute in, and modules that are built for it."""

    def built(self, build: Callable[[], Module]) -> Module:
        """The module that `build` returns; to be called outside the context."""
        ...

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WithValues:
    """Ordinary tensors."""

    def built(self, build: Callable[[], Module]) -> Module:
        """The module as it is built."""
        return build()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class WithoutValues:
    """torch's fake tensors, which claim to be on the CPU and run no kernel; each value is `VALUE`."""

    def __init__(self) -> None:
        # Imported here because it loads torch._dynamo and sympy, which nothing else in planning needs.
        from torch._subclasses.fake_tensor import FakeTensorMode

        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._open = ExitStack()

    def built(self, build: Callable[[], Module]) -> Module:
        """The module without first weights, because initialisers may look at values."""
        with torch.device("meta"):
            module = build()
        with self:
            made_real(module, "cpu")
        return module

    def __enter__(self) -> None:
        self._open.enter_context(warnings.catch_warnings())
        # `laid_out` asks where a tensor begins; without memory the answer is 0, which counts as aligned.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        self._open.enter_context(self._mode)
        self._open.enter_context(_Answers())  # type: ignore[no-untyped-call]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class Choice:
    """Ordinary tensors until memory for them is refused, and from then on tensors without values.

    There is no way back: what counting without values loads stays in memory, whatever is counted afterwards.
    """

    def __init__(self) -> None:
        self.tensors: Tensors = WithValues()

    def limited(self, extra_mb: float) -> AbstractContextManager[None]:
        """`guard.limited` for tensors with values, no limit for those without."""
        return guard.limited(extra_mb) if isinstance(self.tensors, WithValues) else nullcontext()

    def give_up_values(self) -> None:
        """Go on without values."""
        self.tensors = WithoutValues()


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers questions for values, and skips operations that only change values.

    The latter are those that return nothing, such as an optimizer's update, which fake tensors cannot do and would
    run on real memory.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            kind = float if dtype.is_floating_point else bool if dtype == torch.bool else int
            return kind(VALUE)
        if not func._schema.returns:
            return None
        return func(*args, **(kwargs or {}))
