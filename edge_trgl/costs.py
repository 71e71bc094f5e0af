"""What each module of a chain costs: shapes, and bytes at any batch size, from local steps on tiny batches.

The very step that training takes is run on two and on three samples, and every storage that it makes is
counted from its birth to its death. The two runs allocate in the same order, and each allocation grows
linearly with the batch; so the bytes alive at every moment of a step on B samples follow exactly, and with
them the peak. What the kernels of a device allocate inside (reordered copies, scratch) is not seen here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edge_trgl.chain import Chain, Pieces, Shape
from edge_trgl.local import LocalModule, StepConfig
from edge_trgl.runtime.errors import InputError, UsageError

SMALL, LARGER = 2, 3
"""Samples of the two runs; batch norm needs two."""


@dataclass(frozen=True)
class Timeline:
    """Bytes alive after each allocation of a run on `SMALL` and on `LARGER` samples."""

    small: tuple[int, ...]
    larger: tuple[int, ...]

    def peak(self, batch_size: int) -> int:
        """The most bytes alive in the same run on `batch_size` samples."""
        moments = zip(self.small, self.larger, strict=True)
        return max((low + (high - low) * (batch_size - SMALL) for low, high in moments), default=0)


@dataclass(frozen=True, kw_only=True)
class ModuleCost:
    """One module: shapes of a sample, bytes that last, and timelines of what lasts no longer than a step.

    `state_bytes`: weights, buffers and momentum; `num_params`: of the trunk.
    """

    module: int
    name: str
    input_shape: Shape
    output_shape: Shape
    output_dtype: str
    num_params: int
    weight_bytes: int
    momentum_bytes: int
    step: Timeline
    recomputed_step: Timeline
    forward: Timeline

    @property
    def state_bytes(self) -> int:
        """All that is paged."""
        return self.weight_bytes + self.momentum_bytes


def chain_costs(chain: Chain, config: StepConfig) -> list[ModuleCost]:
    """The cost of every module of `chain`, in order; equal modules are run once.

    Raises:
        UsageError: a head does not suit a module's output.
        InputError: a block cannot read the output of the block before, or changes its input in place.
    """
    costs: list[ModuleCost] = []
    shape, dtype = chain.input_shape, torch.float32
    seen: dict[Any, ModuleCost] = {}
    for module in range(len(chain)):
        blocks = tuple(_identity(chain.blocks[index]) for index in chain.module_blocks(module))
        signature = (blocks, shape, dtype, chain.encoder_exempt and module == 0)
        if signature not in seen:
            seen[signature] = _module_cost(chain, module, config, shape, dtype)
        costs.append(replace(seen[signature], module=module))
        shape, dtype = costs[-1].output_shape, getattr(torch, costs[-1].output_dtype)
    return costs


def block_weights(chain: Chain, config: StepConfig, batch_size: int) -> list[float]:
    """Bytes at most of each block's own local step, to cut a chain into equally heavy modules."""
    single = chain.regroup(tuple(range(len(chain.blocks))))
    return [float(cost.step.peak(batch_size)) for cost in chain_costs(single, config)]


def _identity(factory: Any) -> Any:
    # partials of one function with equal arguments build equal blocks; any other callable is its own kind.
    function = getattr(factory, "func", None)
    return (function, factory.args, tuple(sorted(factory.keywords.items()))) if function else id(factory)


def _module_cost(chain: Chain, module: int, config: StepConfig, shape: Shape, dtype: torch.dtype) -> ModuleCost:
    output = _output(chain, module, config, _batch(SMALL, shape, dtype)[0])
    try:
        local = LocalModule(chain, module, tuple(output.shape[1:]), config).materialise("cpu")
    except ValueError as error:
        raise UsageError(
            f"module {module} of {chain.name}: {error}", hint="Try --head linear, or a larger image."
        ) from error

    def step(x: Tensor, y: Tensor) -> None:
        local.accumulate(x, y, seed=0, emit=lambda out: None)
        local.zero_grad()

    timelines = []
    for recompute in (False, True):
        local.config = replace(config, recompute=recompute, micro_batch=None)
        timelines.append(_timeline(step, shape, dtype))
    forward = _timeline(lambda x, y: local.infer(x, y, None), shape, dtype)
    parameters = list(local.parameters())
    return ModuleCost(
        module=module,
        name=_title(local.trunk),
        input_shape=shape,
        output_shape=tuple(output.shape[1:]),
        output_dtype=str(output.dtype).removeprefix("torch."),
        num_params=sum(p.numel() for p in local.trunk.parameters()),
        weight_bytes=_bytes(local.tensors().values()) - _bytes(parameters),  # λ too
        momentum_bytes=_bytes(parameters),
        step=timelines[0],
        recomputed_step=timelines[1],
        forward=forward,
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _timeline(run: Callable[[Tensor, Tensor], None], shape: Shape, dtype: torch.dtype) -> Timeline:
    moments = []
    for size in (SMALL, LARGER):
        x, y = _batch(size, shape, dtype)
        with _live_bytes() as live:
            run(x, y)
        moments.append(tuple(live.moments))
    return Timeline(*moments)


def _output(chain: Chain, module: int, config: StepConfig, x: Tensor) -> Tensor:
    """The trunk's output for the batch x, each block checked on the way."""
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16)
    with torch.no_grad(), autocast:
        for index, block in zip(chain.module_blocks(module), chain.trunk(module), strict=True):
            version = x._version
            try:
                out = block(x)
            except (RuntimeError, ValueError) as error:
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


def _batch(size: int, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.zeros((size, *shape), dtype=dtype)
    laid_out = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    return laid_out, torch.zeros((size,), dtype=torch.int64)


def _title(trunk: nn.Module) -> str:
    names = [type(part).__name__ for block in trunk.children() for part in _pieces(block)]
    return " + ".join(
        f"{names.count(name)}x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )


def _pieces(block: nn.Module) -> list[nn.Module]:
    return list(block.children()) if isinstance(block, Pieces) else [block]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made while it is on, from birth to death."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments: list[int] = []
        self._now = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping it means importing it, which makes planning 70 MiB larger than training.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in before and storage._cdata not in self._known:
                self._count(storage)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        self._known.add(identity)
        self._now += size
        self.moments.append(self._now)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self._now -= size


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


@contextmanager
def _live_bytes() -> Iterator[_LiveBytes]:
    mode = _LiveBytes()
    with mode:
        yield mode
