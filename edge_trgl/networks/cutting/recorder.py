"""What a model does with a batch, call by call: its forward is run on the device meta, where nothing is computed.

Run so with two batch sizes, in training and in evaluation mode, it tells which numbers follow the batch or the
mode. Python is not analysed, only watched: whatever the forward does with shapes and settings is done with.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name

from edge_trgl.networks.cutting.expressions import Expression, encode, function
from edge_trgl.networks.cutting.layers import is_layer, norm_class
from edge_trgl.networks.cutting.nested import tensors_in
from edge_trgl.runtime.errors import InputError

SIZES = (2, 3)
"""Of the batches; batch norm needs two samples."""

_INVISIBLE = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
"""Beginnings of the names of files that are not the model's own."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor on its way: its shape in a batch of each of `SIZES`; `storage` is one for all views of a memory."""

    shapes: tuple[tuple[int, ...], ...]
    floating: bool
    storage: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a layer or of a function of torch.

    `target`: `layer NAME` or the function's name. `arguments`, `options` and `result` are expressions (see
    `expressions`). `changes`: values that it changes in place. `scope`: numbers of the calls of modules around it,
    the outermost first. `place`: the line of the model's source.
    """

    target: str
    arguments: Expression
    options: Expression
    result: Expression
    changes: tuple[int, ...]
    scope: tuple[int, ...]
    place: str


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A call of the module `name` (the model itself: empty), which is no layer."""

    name: str
    kind: type[nn.Module]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A forward: value 0 is the input, `output` another."""

    calls: tuple[Call, ...]
    values: tuple[Value, ...]
    scopes: tuple[Scope, ...]
    output: int
    constants: Mapping[str, Tensor]


def record(model: nn.Module, input_shape: Sequence[int]) -> Recording:
    """The forward of `model`, all of whose tensors are on the device meta, on samples of `input_shape`.

    Raises:
        InputError: it fails, or cannot be followed; says where and why.
    """
    for part in model.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.inplace = False  # else it would change its input in one mode alone
    # The order that `_merged` relies on.
    runs = [_run(model.train(mode), input_shape, size) for mode in (True, False) for size in SIZES]
    calls = [_merged_call(calls, runs[0].scopes) for calls in _in_step(runs)]
    values = [
        replace(one, shapes=(one.shapes[0], other.shapes[0]))
        for one, other in zip(runs[0].values, runs[1].values, strict=True)
    ]
    return replace(runs[0], calls=tuple(calls), values=tuple(values))


def _run(model: nn.Module, input_shape: Sequence[int], size: int) -> Recording:
    x = torch.zeros((size, *input_shape), device="meta")
    recorder = _Recorder(model, x)
    try:
        with torch.no_grad(), torch.device("meta"), recorder.watching(), recorder:
            out = model(x)
    except InputError:
        raise
    except Exception as error:
        # Whatever the user's code raises: it is told where, and why the model cannot be cut.
        raise InputError(
            f"the model cannot be followed at {recorder.place_of(error)}: {_first_line(error)}",
            hint="Its forward must run on tensors without values, on samples of the size of the data's.",
        ) from error
    return recorder.recording(out)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self._model = model
        self._calls: list[Call] = []
        self._values: list[Value] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # alive, or another tensor could get the id of one
        self._weights = {
            id(weight): name for name, weight in itertools.chain(model.named_parameters(), model.named_buffers())
        }
        self._norms = {
            id(part.running_mean): name
            for name, part in model.named_modules()
            if norm_class(part) and part.running_mean is not None
        }
        self._constants: dict[str, Tensor] = {}
        self._scopes: list[Scope] = []
        self._open: list[int] = []
        self._inside_layer = False
        self._number(x)

    def recording(self, out: Any) -> Recording:
        if not isinstance(out, Tensor) or id(out) not in self._numbers:
            raise InputError(
                f"the model's forward gives {type(out).__name__}, not one tensor that is computed from its input",
                hint="Wrap it in a module that gives the logits alone.",
            )
        return Recording(
            calls=tuple(self._calls),
            values=tuple(self._values),
            scopes=tuple(self._scopes),
            output=self._numbers[id(out)],
            constants=self._constants,
        )

    # ---- watching

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Layers are calls of their own; what other modules call is inside their scope."""
        with ExitStack() as stack:
            stack.callback(setattr, torch.autograd.Function, "apply", torch.autograd.Function.__dict__["apply"])
            torch.autograd.Function.apply = classmethod(_no_backward)  # type: ignore[assignment,method-assign]
            for name, part in self._model.named_modules():
                if is_layer(part):
                    part.forward = self._layer_call(name, part, part.forward)
                    stack.callback(delattr, part, "forward")
                elif not isinstance(part, nn.Identity):
                    stack.callback(part.register_forward_pre_hook(self._enter(name)).remove)
                    stack.callback(part.register_forward_hook(self._leave, always_call=True).remove)
            yield

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(part: nn.Module, inputs: Any) -> None:
            self._open.append(len(self._scopes))
            self._scopes.append(Scope(name=name, kind=type(part)))

        return enter

    def _leave(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._open.pop()

    def _layer_call(self, name: str, part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside_layer = True
            try:
                return self._recorded(f"layer {name}", forward, args, kwargs)
            finally:
                self._inside_layer = False

        return call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside_layer:
            return func(*args, **kwargs)
        norm = self._norms.get(id(_argument(args, kwargs, 1, "running_mean"))) if _is_batch_norm(func) else None
        if norm is not None:
            # As a layer it is what the rest of the library takes for a batch norm.
            return self._recorded(f"layer {norm}", func, args, kwargs, shown=(args[:1] or (kwargs["input"],), {}))
        return self._recorded("", func, args, kwargs)

    def _recorded(self, target: str, func: Any, args: Any, kwargs: Any, shown: Any = None) -> Any:
        """Run a call and note it, if it made or changed a tensor; `shown`: other arguments to note."""
        tensors = list(tensors_in((args, kwargs)))
        before = [tensor._version for tensor in tensors]
        arguments, options = shown or (args, kwargs)
        noted = encode(list(arguments), self._find), encode(dict(options), self._find)
        result = func(*args, **kwargs)
        changed = [one for one, version in zip(tensors, before, strict=True) if one._version != version]
        if target == "" and any(id(tensor) in self._weights for tensor in changed):
            self._check_counter([self._weights[id(tensor)] for tensor in changed if id(tensor) in self._weights])
            return result
        if not changed and not list(tensors_in(result)):
            return result
        changes = tuple(self._numbers[id(tensor)] for tensor in changed if id(tensor) in self._numbers)
        result = _apart(result, [tensor for tensor in tensors if not any(tensor is one for one in changed)])
        for tensor in tensors_in(result):
            self._number(tensor)
        self._calls.append(
            Call(
                target=target or self._name_of(func),
                arguments=noted[0],
                options=noted[1],
                result=encode(result, self._find),
                changes=changes,
                scope=tuple(self._open),
                place=_place(sys._getframe(1)),
            )
        )
        return result

    def _check_counter(self, names: Sequence[str]) -> None:
        """A batch norm that is taken for a layer counts its batches by itself; nothing else may change."""
        counters = {f"{name}.num_batches_tracked" for name in self._norms.values()}
        if not set(names) <= counters:
            raise InputError(
                f"the model cannot be cut: {_place(sys._getframe(3))} changes its own {', '.join(names)}",
                hint="Of what a forward changes only the running statistics of a batch norm are followed.",
            )

    def _name_of(self, func: Any) -> str:
        name = resolve_name(func) or ""
        try:
            known = function(name) == func
        except AttributeError:
            known = False
        if not known:
            raise InputError(
                f"the model cannot be cut: {_place(sys._getframe(2))} calls {name or func}, which is no function "
                "of torch's own",
                hint="Use torch's functions in its forward.",
            )
        return name

    def _number(self, tensor: Tensor) -> None:
        # What was changed in place is another value from then on.
        self._numbers[id(tensor)] = len(self._values)
        self._kept.append(tensor)
        storage = tensor.untyped_storage()._cdata
        self._values.append(
            Value(shapes=(tuple(tensor.shape),), floating=tensor.is_floating_point(), storage=storage)
        )

    def _find(self, tensor: Tensor) -> Expression:
        if id(tensor) in self._weights:
            return ["weight", self._weights[id(tensor)]]
        if id(tensor) in self._numbers:
            return ["value", self._numbers[id(tensor)]]
        if tensor.is_meta:
            raise InputError(
                f"the model cannot be cut: {_place(sys._getframe(2))} uses a tensor that torch's own functions "
                "did not make",
                hint="Make it by a function of torch, or register it as a buffer.",
            )
        name = f"constant{len(self._constants)}"
        self._constants[name] = tensor
        self._weights[id(tensor)] = name
        return ["weight", name]

    def place_of(self, error: Exception) -> str:
        """The last line of the model's own source before an error, and the module that it is in."""
        places = []
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if not code.co_filename.startswith(_INVISIBLE):
                places.append(f"{Path(code.co_filename).name}:{traceback.tb_lineno}")
            traceback = traceback.tb_next
        scope = self._scopes[self._open[-1]] if self._open else None
        inside = f" ({scope.kind.__name__} {scope.name})" if scope and scope.name else ""
        return (places[-1] if places else "its first line") + inside


def _no_backward(kind: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> None:
    """What its forward calls could be followed, but would get another backward."""
    raise InputError(
        f"the model cannot be cut: {_place(sys._getframe(1))} calls {kind.__name__}, an autograd function",
        hint="Give the model a form without it.",
    )


def _is_batch_norm(func: Any) -> bool:
    return func is functional.batch_norm


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _apart(result: Any, inputs: Sequence[Tensor]) -> Any:
    """`result`, where it is an input that was handed through as an object of its own: both may be used."""
    if isinstance(result, Tensor) and any(result is tensor for tensor in inputs):
        return result.view_as(result)
    return result


def _place(frame: FrameType | None) -> str:
    """The line of the model's own source that a call comes from."""
    while frame is not None and frame.f_code is not _run.__code__:
        name = frame.f_code.co_filename
        if not name.startswith(_INVISIBLE):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a container of layers"


# ---- one from several


def _in_step(runs: Sequence[Recording]) -> Iterator[tuple[Call, ...]]:
    for calls in itertools.zip_longest(*(run.calls for run in runs)):
        if None in calls or len({(call.target, call.changes) for call in calls}) > 1:
            _differs(calls, runs)
        yield calls


def _differs(calls: Sequence[Call | None], runs: Sequence[Recording]) -> None:
    training, evaluation = calls[0], calls[len(SIZES)]
    by_mode = training is None or evaluation is None or training.target != evaluation.target
    call, run = next((call, run) for call, run in zip(calls, runs, strict=True) if call is not None)
    scope = run.scopes[call.scope[-1]] if call.scope else None
    inside = f" in {scope.kind.__name__} {scope.name}" if scope and scope.name else ""
    what = "whether it is trained" if by_mode else "the size of the batch"
    raise InputError(
        f"the model cannot be cut: what it does at {call.place}{inside} depends on {what}",
        hint="A module that draws at random in training is followed if it is torch's Dropout, StochasticDepth or "
        "DropPath.",
    )


def _merged_call(calls: Sequence[Call], scopes: Sequence[Scope]) -> Call:
    first = calls[0]
    try:
        return replace(
            first,
            arguments=_merged([call.arguments for call in calls]),
            options=_merged([call.options for call in calls]),
            result=_merged([call.result for call in calls]),
        )
    except ValueError as error:
        inside = scopes[first.scope[-1]].name if first.scope else ""
        raise InputError(
            f"the model cannot be cut: at {first.place} in {inside or 'it'}, {first.target} is given {error}",
            hint="Only multiples of the batch size, and settings of training and evaluation, may differ.",
        ) from error


def _merged(found: Sequence[Expression]) -> Expression:
    """One expression of those in training and in evaluation mode, each with batches of `SIZES`."""
    first = found[0]
    if all(one == first and type(one) is type(first) for one in found):
        return first
    if all(isinstance(one, list) and len(one) == len(first) and one[0] == first[0] for one in found):
        return [first[0], *(_merged(parts) for parts in zip(*(one[1:] for one in found), strict=True))]
    if any(isinstance(one, list) for one in found):
        raise ValueError("other things in training than in evaluation, or for other sizes of the batch")
    training, evaluation = found[: len(SIZES)], found[len(SIZES) :]
    if all(type(one) is int for one in found) and list(training) == list(evaluation):
        each = {number / size for number, size in zip(training, SIZES, strict=True)}
        if len(each) == 1 and each == {int(next(iter(each)))}:
            return ["batch", int(next(iter(each)))]
    if len(set(training)) == len(set(evaluation)) == 1:
        return ["mode", training[0], evaluation[0]]
    raise ValueError(f"{' and '.join(map(str, training))} for batches of {' and '.join(map(str, SIZES))}")
