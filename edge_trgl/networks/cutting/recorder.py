"""Records what a model does with a batch, call by call, by running its forward pass on the device meta.

Nothing is computed there. Passes with two batch sizes, in training and in evaluation mode, show which numbers
follow the batch or the mode. The Python code is not analysed, only watched: what it decides by shapes and settings
is decided while it is recorded.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name

from edge_trgl.networks.cutting.expressions import Expression, encode, torch_function
from edge_trgl.networks.cutting.layers import batch_norm_class, is_layer
from edge_trgl.networks.cutting.merged_recording import PASSES, merge
from edge_trgl.networks.cutting.nested import tensors_in
from edge_trgl.networks.cutting.recording import Call, Recording, Scope, Value
from edge_trgl.networks.cutting.users_code import ForwardError, first_line
from edge_trgl.runtime.errors import InputError

_NOT_THE_MODEL = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
"""How the names of source files begin that are not the model's own."""


def record(model: nn.Module, input_shape: Sequence[int]) -> Recording:
    """Record the forward pass of a model.

    Args:
        model: all its tensors are on the device meta; its mode and its dropouts are changed.
        input_shape: the shape of one sample.

    Raises:
        InputError: the forward pass cannot be followed; the message says where and why.
        ForwardError: the model's own code raised an error, and not for want of values.
    """
    for part in model.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.inplace = False  # else it would change its input in training mode alone
    return merge([_record_pass(model.train(training), input_shape, size) for training, size in PASSES])


def _record_pass(model: nn.Module, input_shape: Sequence[int], batch_size: int) -> Recording:
    x = torch.zeros((batch_size, *input_shape), device="meta")
    recorder = _Recorder(model, x)
    try:
        with torch.no_grad(), torch.device("meta"), recorder.watching(), recorder:
            out = model(x)
    except InputError:
        raise
    except Exception as error:
        if not _is_for_want_of_values(error):
            raise ForwardError(recorder.source_line_of(error)) from error
        raise InputError(
            f"the model cannot be followed at {recorder.source_line_of(error)}: "
            f"{type(error).__name__}: {first_line(error)}",
            hint="Its forward must run on tensors without values, on samples of the size of the data's.",
        ) from error
    return recorder.recording(out)


def _is_for_want_of_values(error: Exception) -> bool:
    """Return whether an operation failed because it has no kernel for tensors without values."""
    return isinstance(error, NotImplementedError) or "meta" in str(error)


class _Recorder(TorchFunctionMode):
    """Notes every call of one forward pass of `model` on `x`."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self._model = model
        self._calls: list[Call] = []
        self._values: list[Value] = []
        self._numbers: dict[int, int] = {}  # value number by id of its tensor
        self._kept_alive: list[Tensor] = []  # or another tensor could get the id of one that is gone
        self._weights = {
            id(weight): name for name, weight in itertools.chain(model.named_parameters(), model.named_buffers())
        }
        self._norms = {
            id(part.running_mean): name
            for name, part in model.named_modules()
            if batch_norm_class(part) and part.running_mean is not None
        }
        self._constants: dict[str, Tensor] = {}
        self._scopes: list[Scope] = []
        self._open_scopes: list[int] = []
        self._inside_layer = False
        self._add_value(x)

    def recording(self, out: Any) -> Recording:
        """Return what was noted; `out` is what the forward pass returned."""
        if not isinstance(out, Tensor) or id(out) not in self._numbers:
            raise InputError(
                f"the model's forward gives {type(out).__name__}, not one tensor that is computed from its input",
                hint="Wrap it in a module whose forward gives the logits alone, [N, classes].",
            )
        return Recording(
            calls=tuple(self._calls),
            values=tuple(self._values),
            scopes=tuple(self._scopes),
            output=self._numbers[id(out)],
            constants=self._constants,
        )

    # ---- watching the modules

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note a call of a layer as one call, and what other modules call with their scope around it."""
        with ExitStack() as stack:
            stack.callback(setattr, torch.autograd.Function, "apply", torch.autograd.Function.__dict__["apply"])
            torch.autograd.Function.apply = classmethod(_refuse_autograd_function)  # type: ignore[assignment,method-assign]
            for name, part in self._model.named_modules():
                if is_layer(part):
                    part.forward = self._layer_call(name, part.forward)
                    stack.callback(delattr, part, "forward")
                elif not isinstance(part, nn.Identity):
                    stack.callback(part.register_forward_pre_hook(self._enter(name)).remove)
                    stack.callback(part.register_forward_hook(self._leave, always_call=True).remove)
            yield

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(part: nn.Module, inputs: Any) -> None:
            self._open_scopes.append(len(self._scopes))
            self._scopes.append(Scope(name=name, kind=type(part)))

        return enter

    def _leave(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._open_scopes.pop()

    def _layer_call(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside_layer = True
            try:
                return self._recorded(f"layer {name}", forward, args, kwargs)
            finally:
                self._inside_layer = False

        return call

    # ---- watching the functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside_layer:
            return func(*args, **kwargs)
        norm = self._norms.get(id(_argument(args, kwargs, 1, "running_mean"))) if _is_batch_norm(func) else None
        if norm is not None:
            # Noted as a layer, for the rest of the library knows batch norms by their layers.
            return self._recorded(f"layer {norm}", func, args, kwargs, noted=(args[:1] or (kwargs["input"],), {}))
        return self._recorded("", func, args, kwargs)

    def _recorded(self, target: str, func: Any, args: Any, kwargs: Any, noted: Any = None) -> Any:
        """Run a call and note it if it made or changed a tensor; `noted`: arguments to note instead of its own."""
        tensors = list(tensors_in((args, kwargs)))
        versions = [tensor._version for tensor in tensors]
        noted_args, noted_kwargs = noted or (args, kwargs)
        arguments, options = self._encoded(list(noted_args)), self._encoded(dict(noted_kwargs))
        result = func(*args, **kwargs)
        changed = [tensor for tensor, old in zip(tensors, versions, strict=True) if tensor._version != old]
        if target == "" and any(id(tensor) in self._weights for tensor in changed):
            self._check_counters([self._weights[id(tensor)] for tensor in changed if id(tensor) in self._weights])
            return result
        if not changed and not list(tensors_in(result)):
            return result
        changes = tuple(self._numbers[id(tensor)] for tensor in changed if id(tensor) in self._numbers)
        result = _own_object(result, [tensor for tensor in tensors if not any(tensor is one for one in changed)])
        for tensor in tensors_in(result):
            self._add_value(tensor)
        self._calls.append(
            Call(
                target=target or self._name_of(func),
                arguments=arguments,
                options=options,
                result=self._encoded(result),
                changes=changes,
                scope=tuple(self._open_scopes),
                source_line=_source_line(sys._getframe(1)),
            )
        )
        return result

    def _check_counters(self, names: Sequence[str]) -> None:
        """Refuse a change of a weight or buffer, except the batch counters of norms, which are noted as layers."""
        counters = {f"{name}.num_batches_tracked" for name in self._norms.values()}
        if not set(names) <= counters:
            raise InputError(
                f"the model cannot be cut: {_source_line(sys._getframe(3))} changes its own {', '.join(names)}",
                hint="A forward may change the running statistics of batch norms and no other buffer.",
            )

    def _name_of(self, func: Any) -> str:
        name = resolve_name(func) or ""
        try:
            known = torch_function(name) == func
        except AttributeError:
            known = False
        if not known:
            raise InputError(
                f"the model cannot be cut: {_source_line(sys._getframe(2))} calls {name or func}, "
                "which is not one of torch's own functions",
                hint="Use torch's functions in its forward.",
            )
        return name

    def _add_value(self, tensor: Tensor) -> None:
        # A tensor that was changed in place gets a new number: it is another value from then on.
        self._numbers[id(tensor)] = len(self._values)
        self._kept_alive.append(tensor)
        storage = tensor.untyped_storage()._cdata
        self._values.append(
            Value(shapes=(tuple(tensor.shape),), floating=tensor.is_floating_point(), storage=storage)
        )

    def _encoded(self, value: Any) -> Expression:
        try:
            return encode(value, self._encode_tensor)
        except TypeError as error:
            raise InputError(
                f"the model cannot be cut: at {_source_line(sys._getframe(2))}, {error}",
                hint="Give torch's functions tensors, numbers, text, and lists of these.",
            ) from error

    def _encode_tensor(self, tensor: Tensor) -> Expression:
        if id(tensor) in self._weights:
            return ["weight", self._weights[id(tensor)]]
        if id(tensor) in self._numbers:
            return ["value", self._numbers[id(tensor)]]
        if tensor.is_meta:
            raise InputError(
                f"the model cannot be cut: {_source_line(sys._getframe(2))} uses a tensor that "
                "none of torch's own functions made",
                hint="Make it with a function of torch, or register it as a buffer.",
            )
        name = f"constant{len(self._constants)}"
        self._constants[name] = tensor
        self._weights[id(tensor)] = name
        return ["weight", name]

    def source_line_of(self, error: Exception) -> str:
        """Return the last line of the model's own source before an error, and the module it is in."""
        lines = []
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if not code.co_filename.startswith(_NOT_THE_MODEL):
                lines.append(f"{Path(code.co_filename).name}:{traceback.tb_lineno}")
            traceback = traceback.tb_next
        scope = self._scopes[self._open_scopes[-1]] if self._open_scopes else None
        inside = f" ({scope.kind.__name__} {scope.name})" if scope and scope.name else ""
        return (lines[-1] if lines else "its first line") + inside


def _refuse_autograd_function(kind: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> None:
    """Stand in for `apply`: its forward could be recorded, but its own backward would be lost."""
    raise InputError(
        f"the model cannot be cut: {_source_line(sys._getframe(1))} calls {kind.__name__}, an autograd function",
        hint="Give the model a form without it.",
    )


def _is_batch_norm(func: Any) -> bool:
    return func is functional.batch_norm


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _own_object(result: Any, inputs: Sequence[Tensor]) -> Any:
    """Return `result`, or a view of it where it is an input handed through, so that each value has its own id."""
    if isinstance(result, Tensor) and any(result is tensor for tensor in inputs):
        return result.view_as(result)
    return result


def _source_line(frame: FrameType | None) -> str:
    """Return the line of the model's own source that a call comes from."""
    while frame is not None and frame.f_code is not _record_pass.__code__:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_THE_MODEL):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a container of layers"
