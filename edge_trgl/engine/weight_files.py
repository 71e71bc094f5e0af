"""Reads files of trained weights in small parts: safetensors, files written by torch.save, and folders of runs."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from edge_trgl.networks.chain import Shape
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.storage import files, safetensors_file
from edge_trgl.runtime.units import MIB

_HASHED_AT_ONCE = MIB  # bytes


class WeightFiles(Protocol):
    """Named tensors in one or more files.

    Attributes:
        shapes: the shape of every tensor, by name.
        paths: the files, in the order in which their checksum is taken.
    """

    shapes: dict[str, Shape]
    paths: list[Path]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the values of these tensors, on the CPU.

        A tensor may share memory with the file: use it before asking for the next one.
        """
        ...


def open_weights(path: Path) -> WeightFiles:
    """Open a safetensors file, a file that torch.save wrote, or the folder of a trained run.

    The tensors of a run are named `blocks.N.NAME`, where N counts the blocks of the net from 0, and `head.NAME`
    for the last head; those of other files as the file names them.

    Raises:
        InputError: `path` does not exist or is none of the three.
    """
    if path.is_dir():
        return _RunFolder(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file", hint="Check --pretrained.")
    with path.open("rb") as file:
        first_bytes = file.read(16)
    # A safetensors file begins with 8 bytes for the length of its header, a JSON object.
    return _SafetensorsFile(path) if first_bytes[8:9] == b"{" else _TorchFile(path)


def sha256(weights: WeightFiles) -> str:
    """Return the SHA-256 (hex) over the bytes of all files, in order."""
    digest = hashlib.sha256()
    for path in weights.paths:
        with path.open("rb") as file:
            while part := file.read(_HASHED_AT_ONCE):
                digest.update(part)
    return digest.hexdigest()


class _SafetensorsFile:
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
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._mapped().items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        # Mapped anew for every module: pages that were read count as memory until the mapping is dropped.
        tensors = self._mapped()
        for name in names:
            yield name, tensors[name]

    def _mapped(self) -> dict[str, Tensor]:
        path = self.paths[0]
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} cannot be read as weights: {str(error).splitlines()[0]}",
                hint="Save model.state_dict() with torch.save, or as safetensors; no other pickle is read.",
            ) from error
        while isinstance(content, dict) and len(nested := _nested_state_dicts(content)) == 1:
            content = nested[0]
        if not (isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())):
            raise InputError(f"{path} holds no state dict", hint="Save model.state_dict().")
        # DataParallel puts "module." before every name.
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _nested_state_dicts(content: Mapping[str, object]) -> list[object]:
    """Return the dictionaries that a checkpoint holds under the usual names of a state dict."""
    return [content[name] for name in ("state_dict", "model") if isinstance(content.get(name), dict)]


class _RunFolder:
    def __init__(self, path: Path) -> None:
        run = Run.open(path)
        if not run.state_file.is_file():
            raise _untrained(path)
        facts = run.facts()
        modules = sorted(facts.modules().items())
        if not modules:
            facts.close()
            raise _untrained(path)
        starts = facts.planned.layout.starts
        self._stored: dict[str, tuple[Path, str]] = {}  # the file, and the name in it
        self.shapes: dict[str, Shape] = {}
        self.paths = []
        for module, record in modules:
            self.paths.append(run.modules / record.name)
            for stored_name, info in safetensors_file.read_header(self.paths[-1]).items():
                name = _name_in_net(stored_name, starts, module)
                if name is not None:
                    self._stored[name] = (self.paths[-1], stored_name)
                    self.shapes[name] = info.shape
        facts.close()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            path, stored_name = self._stored[name]
            ((_, tensor),) = _SafetensorsFile(path).read([stored_name])
            yield name, tensor


def _untrained(path: Path) -> InputError:
    return InputError(f"{path} has no weights yet", hint="Train it first, or give another run or file.")


def _name_in_net(stored_name: str, starts: Sequence[int], module: int) -> str | None:
    """Return the name of a tensor counted over all blocks of the net; None for heads other than the last."""
    part, _, rest = stored_name.partition(".")
    if part == "trunk":
        block, _, name = rest.partition(".")
        return f"blocks.{starts[module] + int(block)}.{name}"
    return stored_name if part == "head" and module == len(starts) - 1 else None
