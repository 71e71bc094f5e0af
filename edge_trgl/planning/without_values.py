"""Where modules are counted: on real tensors, or on tensors with a shape, a layout and a storage but no memory.

Both allocate the same bytes in the same order, but for some scalars.
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
"""A prime, so that no count of steps or laps is equal to it, or divides it: the usual step is counted."""

Module = TypeVar("Module", bound=nn.Module)


class Tensors(Protocol):
    """A context for all that computes, and for modules that are built to compute in it."""

    def built(self, build: Callable[[], Module]) -> Module:
        """The module that `build` gives; called outside of the context."""
        ...

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WithValues:
    """Ordinary tensors."""

    def built(self, build: Callable[[], Module]) -> Module:
        """As it is built."""
        return build()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class WithoutValues:
    """torch's fake tensors: they say that they are on the CPU, and no kernel runs on them.

    Whoever asks for the value of one gets `VALUE`.
    """

    def __init__(self) -> None:
        # Here, because it loads torch._dynamo and sympy, which nothing else of planning needs.
        from torch._subclasses.fake_tensor import FakeTensorMode

        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._open = ExitStack()

    def built(self, build: Callable[[], Module]) -> Module:
        """Built as for a run, without drawing weights, whose initialisers may look at values."""
        with torch.device("meta"):
            module = build()
        with self:
            made_real(module, "cpu")
        return module

    def __enter__(self) -> None:
        self._open.enter_context(warnings.catch_warnings())
        # Where a tensor begins is asked for; without memory the answer is 0, which is what is wanted.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        self._open.enter_context(self._mode)
        self._open.enter_context(_Answers())  # type: ignore[no-untyped-call]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class Choice:
    """Ordinary tensors, until their memory is refused; from then on those without values, which no module fills.

    To go back would cost both: what counting without values loads stays, whatever is counted then.
    """

    def __init__(self) -> None:
        self.tensors: Tensors = WithValues()

    def limited(self, extra_mb: float) -> AbstractContextManager[None]:
        """A limit for tensors with values, as `budget.limited`; none for those without."""
        return guard.limited(extra_mb) if isinstance(self.tensors, WithValues) else nullcontext()

    def give_up_values(self) -> None:
        """Count without them."""
        self.tensors = WithoutValues()


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers questions for values, and takes as done what only changes them.

    The latter returns nothing: an optimizer's step, for example, which fake tensors would take on real memory,
    having no way of their own.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            kind = float if dtype.is_floating_point else bool if dtype == torch.bool else int
            return kind(VALUE)
        if not func._schema.returns:
            return None
        return func(*args, **(kwargs or {}))
