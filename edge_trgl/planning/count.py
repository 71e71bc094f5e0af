"""What each module of a chain costs: shapes, and bytes at any batch size, from steps on tiny batches.

The step that training takes (`learning.steps`) is run, gradients included, and its timeline gives the bytes at any
batch size. A step that would take more than `calibrated.REAL_MB` is run on tensors without values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.optimizers import late_weights
from edge_trgl.learning.segments import laid_out
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.learning.step_kinds import StepKind
from edge_trgl.learning.steps import (
    Batch,
    StepOptions,
    discard,
    forward_kinds,
    sends_back,
    take_step,
    training_kind,
)
from edge_trgl.method.recompute import Recompute
from edge_trgl.networks.chain import Chain, Pieces, Shape
from edge_trgl.planning import calibrated
from edge_trgl.planning.live_bytes import SMALL, Timeline, timeline_of
from edge_trgl.planning.without_values import Choice, Tensors
from edge_trgl.runtime.errors import InputError, UsageError
from edge_trgl.runtime.memory import allocator, guard

_Entry = tuple[Shape, torch.dtype]
"""Shape and dtype of a sample that enters a module."""


@dataclass(frozen=True, kw_only=True)
class ModuleCost:
    """One module: shapes of a sample, bytes that last, and timelines of what lives no longer than a step.

    `name`: what it is made of; `head`: the name of its head, None without one. `num_params`: of the trunk.
    `weight_bytes`: weights, buffers and λ; `momentum_bytes`: all that the optimizer keeps. `learning_bytes`: of
    the weights that are trained, and so of all gradients; `gradient_bytes`: of the gradients that are alive at
    once. `opening_bytes`: peak while the module is made. `steps`: training, by level of recomputation; end to end
    this is the backward, with the gradient that is sent back but not the one that is read. `forward`: passes that
    train nothing. `takes_one`: whether a step on a single sample is possible.
    """

    module: int
    name: str
    head: str | None
    input_shape: Shape
    output_shape: Shape
    output_dtype: str
    num_params: int
    weight_bytes: int
    momentum_bytes: int
    learning_bytes: int
    gradient_bytes: int
    opening_bytes: int
    steps: Mapping[Recompute, Timeline]
    forward: Timeline
    takes_one: bool

    @property
    def state_bytes(self) -> int:
        """All that is paged."""
        return self.weight_bytes + self.momentum_bytes

    def least(self, batch_size: int) -> int:
        """The smallest peak of a step in bytes, state included, over all levels of recomputation."""
        return self.state_bytes + min(step.peak(batch_size) for step in self.steps.values())

    def seconds(self, batch_size: int) -> float:
        """About how long a step takes that keeps everything, to compare one head with another."""
        return self.steps["none"].seconds(batch_size)


def chain_costs(chain: Chain, config: StepConfig, choice: Choice | None = None) -> list[ModuleCost]:
    """The cost of every module of `chain`, in order; equal modules are run once.

    If `config` has a micro-batch, of any size, steps have two parts, the second of which meets the gradients of
    the first; the batch size of a timeline is then that of a part. `choice`: the tensors to count on, to be shared
    by all chains that one process counts.

    Raises:
        UsageError: a head does not suit a module's output.
        InputError: a block cannot read the output of the block before, or changes its input in place.
    """
    counted = _Counted(config, choice)
    return _in_order(chain, lambda module, entry: counted.cost(chain, module, entry))


def fastest_costs(
    chain: Chain, config: StepConfig, batch_size: int, allowed: Sequence[str], choice: Choice | None = None
) -> list[ModuleCost]:
    """The same with the head, among those `allowed`, with which each module trains fastest.

    Speed is counted, not measured: a choice that changes the weights must not depend on what else the machine
    does. Of equal heads, the one that takes the least memory, then the one with the fewest parameters.

    Raises:
        UsageError: none of them suits a module's output.
    """
    counted = _Counted(config, choice)

    def fastest(module: int, entry: _Entry) -> ModuleCost:
        found, refused = [], []
        for name in allowed:
            try:
                found.append(counted.cost(replace(chain, head=name), module, entry))
            except UsageError as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return min(found, key=lambda c: (c.seconds(batch_size), c.least(batch_size), c.learning_bytes))

    return _in_order(chain, fastest)


def block_weights(
    chain: Chain, config: StepConfig, batch_size: int, allowed: Sequence[str], choice: Choice | None = None
) -> list[float]:
    """The peak in bytes of each block's own local step, to divide a chain into equally heavy modules.

    Each block has the fastest of the `allowed` heads.
    """
    single = chain.regroup(tuple(range(len(chain.blocks))))
    costs = fastest_costs(single, config, batch_size, allowed, choice)
    return [float(cost.steps["none"].peak(batch_size)) for cost in costs]


def _in_order(chain: Chain, cost_of: Callable[[int, _Entry], ModuleCost]) -> list[ModuleCost]:
    """The cost of each module, whose entry is the output of the one before."""
    costs: list[ModuleCost] = []
    entry: _Entry = (chain.input_shape, torch.float32)
    for module in range(len(chain)):
        costs.append(cost_of(module, entry))
        entry = (costs[-1].output_shape, getattr(torch, costs[-1].output_dtype))
    return costs


class _Counted:
    """The costs of modules; equal modules are run once."""

    def __init__(self, config: StepConfig, choice: Choice | None) -> None:
        self._config = config
        self._choice = choice or Choice()
        self._seen: dict[Any, ModuleCost] = {}

    def cost(self, chain: Chain, module: int, entry: _Entry) -> ModuleCost:
        blocks = tuple(_identity(chain.blocks[index]) for index in chain.module_blocks(module))
        first = chain.is_exempt(module) or (module == 0 and chain.end_to_end)
        kinds = self._config.loss.of(module, len(chain)).kinds
        signature = (blocks, entry, first, chain.head_of(module), kinds)
        if signature not in self._seen:
            self._seen[signature] = _module_cost(chain, module, self._config, *entry, self._choice)
        return replace(self._seen[signature], module=module)


def _identity(factory: Any) -> Any:
    # Partials of one function with equal arguments build equal blocks; any other callable is a kind of its own.
    function = getattr(factory, "func", None)
    return (function, factory.args, tuple(sorted(factory.keywords.items()))) if function else id(factory)


def _module_cost(
    chain: Chain, module: int, config: StepConfig, shape: Shape, dtype: torch.dtype, choice: Choice
) -> ModuleCost:
    try:
        with choice.limited(calibrated.REAL_MB):
            return _counted(chain, module, config, shape, dtype, choice.tensors)
    except (MemoryError, OSError, RuntimeError) as error:
        if not guard.refused(error):
            raise
    allocator.trim()  # outside of the handler, whose traceback keeps the tensors
    choice.give_up_values()
    return _counted(chain, module, config, shape, dtype, choice.tensors)


def _counted(
    chain: Chain, module: int, config: StepConfig, shape: Shape, dtype: torch.dtype, tensors: Tensors
) -> ModuleCost:
    trunk = tensors.built(lambda: chain.trunk(module))
    with tensors:
        output = _output(chain, module, trunk, config, _batch(SMALL, shape, dtype))
    try:
        local = tensors.built(lambda: LocalModule(chain, module, tuple(output.shape[1:]), config))
    except ValueError as error:
        hint = "Try --head linear, --loss cross-entropy, or a larger image."
        raise UsageError(
            f"module {module} of {chain.name}: {error}",
            hint="Choose fewer --blocks." if chain.reconstructs(module) else hint,
        ) from error
    with tensors:
        return _cost_of(chain, local.materialise("cpu"), config, (shape, dtype), output)


def _cost_of(chain: Chain, local: LocalModule, config: StepConfig, entry: _Entry, output: Tensor) -> ModuleCost:
    module = local.index
    works = _Works(
        local=local,
        config=config,
        x=entry,
        image=chain.input_shape if local.mix.wants_image else None,
        out=output,
        frozen=module < chain.frozen,
        forward_kinds=forward_kinds(chain, module, config),
        sends_back=sends_back(chain, module),
    )
    momentum_bytes = _bytes(local.moments().values())
    return ModuleCost(
        module=module,
        name=_title(local.trunk),
        head=chain.head_of(module),
        input_shape=entry[0],
        output_shape=tuple(output.shape[1:]),
        output_dtype=str(output.dtype).removeprefix("torch."),
        num_params=sum(p.numel() for p in local.trunk.parameters()),
        weight_bytes=_bytes(local.tensors().values()) - momentum_bytes,  # λ too
        momentum_bytes=momentum_bytes,
        learning_bytes=_bytes(_learning(local)),
        gradient_bytes=_gradient_bytes(local, config),
        opening_bytes=_opening_bytes(chain, local),
        steps={recompute: timeline_of(partial(works.step, recompute)) for recompute in get_args(Recompute)},
        forward=timeline_of(works.forward),
        takes_one=_takes_one(works),
    )


def _takes_one(works: _Works) -> bool:
    """Whether a step on one sample is possible: batch norm over a single position needs two."""
    try:
        works.step("none", 1)()
    except ValueError:
        return False
    return True


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _learning(part: nn.Module, *, recurse: bool = True) -> list[nn.Parameter]:
    return [weight for weight in part.parameters(recurse) if weight.requires_grad]


def _gradient_bytes(local: LocalModule, config: StepConfig) -> int:
    """Bytes of gradients alive at once: with early updates those of one layer and the late ones, else all."""
    if config.micro_batch or not config.early_update:
        return _bytes(_learning(local))
    late = late_weights(_learning(local))
    layers = (_learning(layer, recurse=False) for layer in local.modules())
    return _bytes(late) + max(_bytes(weight for weight in layer if weight not in late) for layer in layers)


def _opening_bytes(chain: Chain, local: LocalModule) -> int:
    """Peak bytes while the module is made: its tensors without moments, and what making the largest one takes."""
    largest = max((_bytes([weight]) for weight in local.parameters()), default=0)
    # Laying out a weight copies it; an orthogonal one comes from a QR decomposition, which holds three like it.
    beside = largest if chain.gain is None else 3 * largest
    return _bytes(local.tensors().values()) - _bytes(local.moments().values()) + beside


@dataclass(frozen=True, kw_only=True)
class _Works:
    """Prepares the works of one module on as many samples as asked for.

    `x`: shape and dtype of a sample of its input. `image`: the shape of an image, if the loss wants it. `out`:
    some batch of its output.
    """

    local: LocalModule
    config: StepConfig
    x: tuple[Shape, torch.dtype]
    image: Shape | None
    out: Tensor
    frozen: bool
    forward_kinds: tuple[StepKind, ...]
    sends_back: bool
    laps: Iterator[int] = field(default_factory=itertools.count)

    def step(self, recompute: Recompute, size: int) -> Callable[[], None]:
        """A step that trains the module; a frozen module only has its forward work."""
        if self.frozen:
            return self.forward(size)
        parts, part = (2, size) if self.config.micro_batch else (1, None)
        self.local.reconfigure(recompute=recompute, micro_batch=part)
        kind, num_samples = training_kind(self.local), parts * size
        gradient = _batch(num_samples, tuple(self.out.shape[1:]), self.out.dtype) if kind == "backward" else None
        batch = Batch(
            x=_batch(num_samples, *self.x),
            y=_labels(num_samples),
            image=None if self.image is None else _batch(num_samples, self.image, torch.float32),
            gradient=gradient,
        )
        # Always the first step of a lap, because the steps of λ differ in what they allocate.
        options = StepOptions(lap=next(self.laps), send_back=discard if self.sends_back else None)
        return lambda: take_step(self.local, kind, batch, options)

    def forward(self, size: int) -> Callable[[], None]:
        """The passes that train nothing."""
        batch = Batch(x=_batch(size, *self.x), y=_labels(size))

        def run() -> None:
            for kind in self.forward_kinds:
                take_step(self.local, kind, batch, StepOptions())

        return run


def _labels(size: int) -> Tensor:
    return torch.zeros((size,), dtype=torch.int64)


def _output(chain: Chain, module: int, trunk: nn.Sequential, config: StepConfig, x: Tensor) -> Tensor:
    """The trunk's output for a batch x; each block is checked on the way."""
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16)
    with torch.no_grad(), autocast:
        for index, block in zip(chain.module_blocks(module), trunk, strict=True):
            version = x._version
            try:
                out = block(x)
            except (RuntimeError, ValueError) as error:
                if guard.refused(error):
                    raise
                reason = str(error).splitlines()[0]
                raise InputError(
                    f"block {index} of {chain.name} cannot take the shape {list(x.shape[1:])}: {reason}",
                    hint="Check the input size and that each block reads what the one before gives.",
                ) from error
            if x._version != version:
                raise InputError(
                    f"block {index} of {chain.name} changes its input in place",
                    hint="Use the form that is not in place for the first operation of a block.",
                )
            x = out
    return x


def _batch(size: int, shape: Shape, dtype: torch.dtype) -> Tensor:
    return laid_out(torch.zeros((size, *shape), dtype=dtype))


def _title(trunk: nn.Module) -> str:
    names = [type(part).__name__ for block in trunk.children() for part in _pieces(block)]
    return " + ".join(
        f"{names.count(name)}x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )


def _pieces(block: nn.Module) -> list[nn.Module]:
    return list(block.children()) if isinstance(block, Pieces) else [block]
