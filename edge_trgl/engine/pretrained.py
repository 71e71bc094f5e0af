"""Weights that were trained before: read from a file, module by module, never as a whole.

A file holds them by the names of the model's own state dict (torchvision, timm, a user's module), or as
`blocks.N.NAME` (any chain; N counts its blocks from 0). A run's folder is read by the latter.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.networks.chain import Chain, Shape
from edge_trgl.networks.cutting import Net, tensors_of
from edge_trgl.networks.heads import LinearHead
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.records import read_record
from edge_trgl.runtime.storage import files, safetensors_file

SHOWN = 3
"""Names in a message."""

_COUNTER = "num_batches_tracked"

_SLICE_BYTES = 1 << 20


class Weights(Protocol):
    """Named tensors in files."""

    shapes: dict[str, Shape]
    paths: list[Path]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """These tensors, one at a time; each may be gone when the next one comes."""
        ...


def open_weights(path: Path) -> Weights:
    """The weights in a safetensors file, in a file that torch.save wrote, or in a run's folder.

    Raises:
        InputError: it is none of these.
    """
    if path.is_dir():
        return _RunFolder(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file", hint="Check --pretrained.")
    with path.open("rb") as file:
        begins = file.read(16)
    # A safetensors file begins with the length of its header, in which there is an object.
    return _Safetensors(path) if begins[8:9] == b"{" else _TorchFile(path)


def sha256(weights: Weights) -> str:
    """Of the bytes of all its files, in order."""
    digest = hashlib.sha256()
    for path in weights.paths:
        with path.open("rb") as file:
            while part := file.read(_SLICE_BYTES):
                digest.update(part)
    return digest.hexdigest()


class _Safetensors:
    def __init__(self, path: Path) -> None:
        self.paths = [path]
        self._infos = safetensors_file.read_header(path)
        self.shapes = {name: info.shape for name, info in self._infos.items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        with files.opened(self.paths[0], os.O_RDONLY) as fd:
            for name in names:
                info = self._infos[name]
                tensor = torch.empty(info.shape, dtype=info.dtype, device="cpu")
                files.read_into(fd, safetensors_file.bytes_of(tensor), info.start)
                yield name, tensor


class _TorchFile:
    def __init__(self, path: Path) -> None:
        self.paths = [path]
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._opened().items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        # Opened anew for every module: pages that were touched count until the mapping is gone.
        tensors = self._opened()
        for name in names:
            yield name, tensors[name]

    def _opened(self) -> dict[str, Tensor]:
        path = self.paths[0]
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} cannot be read as weights: {str(error).splitlines()[0]}",
                hint="Save model.state_dict() with torch.save, or as safetensors; no other pickle is read.",
            ) from error
        while isinstance(content, dict) and len(nested := _nested(content)) == 1:
            content = nested[0]
        if not (isinstance(content, dict) and all(isinstance(one, Tensor) for one in content.values())):
            raise InputError(f"{path} holds no state dict", hint="Save model.state_dict().")
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _nested(content: Mapping[str, object]) -> list[object]:
    """A state dict that stands in a checkpoint beside other things."""
    return [content[name] for name in ("state_dict", "model") if isinstance(content.get(name), dict)]


class _RunFolder:
    def __init__(self, path: Path) -> None:
        run = Run.open(path)
        if not run.state_file.is_file():
            raise _untrained(path)
        state = run.state()
        modules = sorted(state.modules().items())
        if not modules:
            state.close()
            raise _untrained(path)
        starts = read_record(ChainLayout, state.meta("layout")).starts
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, Shape] = {}
        self.paths = []
        for module, record in modules:
            self.paths.append(run.modules / record.name)
            for own, info in safetensors_file.read_header(self.paths[-1]).items():
                name = _run_name(own, starts, module)
                if name is not None:
                    self._places[name] = (self.paths[-1], own)
                    self.shapes[name] = info.shape
        state.close()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            path, own = self._places[name]
            ((_, tensor),) = _Safetensors(path).read([own])
            yield name, tensor


def _untrained(path: Path) -> InputError:
    return InputError(f"{path} has no weights yet", hint="Train it first, or give another run or file.")


def _run_name(own: str, starts: Sequence[int], module: int) -> str | None:
    """The name of a tensor in a module's file, told by its block; the last module's head is that of the net."""
    part, _, rest = own.partition(".")
    if part == "trunk":
        block, _, name = rest.partition(".")
        return f"blocks.{starts[module] + int(block)}.{name}"
    return own if part == "head" and module == len(starts) - 1 else None


class Pretrained:
    """Fills a chain's modules out of `weights`; `net`: the chain's, where it was cut from a model.

    Attributes:
        num_blocks: how many blocks are in the file, the first ones: all, or those of the frozen modules alone.

    Raises:
        InputError: weights are missing, are of other shapes, or belong nowhere.
    """

    def __init__(self, weights: Weights, chain: Chain, net: Net | None) -> None:
        self._weights = weights
        self._chain = chain
        self._net = net
        self._names: list[dict[str, str]] = []
        lacking, different = self._looked_up()
        self.num_blocks = self._num_blocks()
        missing = [name for names in lacking[: self.num_blocks] for name in names]
        used = {name for names in self._names for name in names.values()}
        unknown = [name for name in weights.shapes if name not in used and not self._is_left(name)]
        for what, names in (("lacks", missing), ("has other shapes:", different), ("has too much:", unknown)):
            if names:
                self._refuse(what, names)

    def _looked_up(self) -> tuple[list[list[str]], list[str]]:
        """Note what each block finds in the file; what each lacks, and what has other shapes."""
        lacking, different, shapes = [], [], self._weights.shapes
        for number, factory in enumerate(self._chain.blocks):
            with torch.device("meta"):
                tensors = tensors_of(factory())
            found = self._found(number, tensors)
            there = {own: name for own, name in found.items() if name in shapes}
            self._names.append(there)
            lacking.append(
                [name for own, name in found.items() if own not in there and _needed(own, tensors[own])]
            )
            different += [
                f"{name} is {list(shapes[name])}, expected {list(tensors[own].shape)}"
                for own, name in there.items()
                if shapes[name] != tuple(tensors[own].shape)
            ]
        return lacking, different

    def _num_blocks(self) -> int:
        chain = self._chain
        frozen = chain.starts[chain.frozen]
        return len(chain.blocks) if any(self._names[frozen:]) or not frozen else frozen

    def holds(self, module: int) -> bool:
        """Whether the weights of `module` are in the file."""
        return self._chain.starts[module] < self.num_blocks

    def _found(self, number: int, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """The names that a block's tensors have in the file, or would have."""
        own = {name: f"blocks.{number}.{name}" for name in tensors}
        models = self._net.names(number, tensors) if self._net else own
        return {name: own[name] if own[name] in self._weights.shapes else models[name] for name in tensors}

    def _is_left(self, name: str) -> bool:
        return name.startswith("head.") or (self._net is not None and name in self._net.left)

    def _refuse(self, what: str, names: Sequence[str]) -> None:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(
            f"{self._weights.paths[0]} does not hold the weights of {self._chain.name}: "
            f"it {what} {'; '.join(names[:SHOWN])}{more}",
            hint="Names are those of the model's state dict, or blocks.N.NAME.",
        )

    @torch.no_grad()
    def fill(self, module: int, local: LocalModule) -> str | None:
        """Write the weights of `module` into it; returns what became of the head, if it is the last one."""
        for number, block in zip(self._chain.module_blocks(module), local.trunk, strict=True):
            tensors = tensors_of(block)
            own = {name: key for key, name in self._names[number].items()}
            for name, values in self._weights.read(own):
                tensors[own[name]].copy_(values)
        return self._fill_head(local) if module == len(self._chain) - 1 else None

    def _fill_head(self, local: LocalModule) -> str:
        tensors, shapes = tensors_of(local.head), self._weights.shapes
        forms = [{f"head.{name}": name for name in tensors}]
        if self._net and self._net.classifier and isinstance(local.head, LinearHead):
            forms.append({f"{self._net.classifier}.{name.removeprefix('linear.')}": name for name in tensors})
        for own in forms:
            if all(shapes.get(name) == tuple(tensors[key].shape) for name, key in own.items()):
                for name, values in self._weights.read(own):
                    tensors[own[name]].copy_(values)
                return "the last head is the file's classifier"
        return "the last head is drawn anew: the file has none of its form and number of classes"


def _needed(own: str, tensor: Tensor) -> bool:
    """Counters may be missing, and tables that are known without a file: on meta they alone have values."""
    return tensor.is_meta and not own.endswith(_COUNTER)
