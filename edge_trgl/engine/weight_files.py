"""Reads files of trained weights in small parts: safetensors, files written by torch.save, and folders of runs."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from edge_trgl.networks.chain import Shape
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.storage import files, safetensors_file
from edge_trgl.runtime.units import MIB

_HASHED_AT_ONCE = MIB  # bytes

_STATE_DICTS = ("state_dict", "model", "model_state_dict", "net", "ema")
"""Names of the state dict in a checkpoint; the first one that is there is taken."""

_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""


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


def open_weights(path: Path, room_mb: float | None = None) -> WeightFiles:
    """Open a safetensors file, a file that torch.save wrote, or the folder of a trained run.

    The tensors of a run are named `blocks.N.NAME`, where N counts the blocks of the net from 0, and `head.NAME`
    for the last head; those of other files as the file names them.

    Args:
        path: the file or folder.
        room_mb: MiB that a file may take that has to be loaded whole; None for any.

    Raises:
        InputError: `path` does not exist, is none of the three, or has no room.
    """
    if path.is_dir():
        return _RunFolder(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file", hint="Check --pretrained.")
    return _SafetensorsFile(path) if _is_safetensors(path) else _TorchFile(path, room_mb)


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins with 8 bytes for the length of a header, and a JSON object."""
    with path.open("rb") as file:
        return file.read(16)[8:9] == b"{"


def metadata_of(path: Path) -> Mapping[str, str]:
    """Return the text in the header of a safetensors file; nothing for any other path.

    Raises:
        StorageError: the file is damaged.
    """
    return safetensors_file.read_metadata(path) if path.is_file() and _is_safetensors(path) else {}


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
    """A file of torch.save; one of the format before torch 1.6 is loaded whole, as it cannot be mapped."""

    def __init__(self, path: Path, room_mb: float | None) -> None:
        self.paths = [path]
        self._loaded: dict[str, Tensor] | None = None
        if not zipfile.is_zipfile(path):
            _check_room(path, room_mb)
            self._loaded = _state_dict(path, mapped=False)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors().items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        # Mapped anew for every module: pages that were read count as memory until the mapping is dropped.
        tensors = self._tensors()
        for name in names:
            yield name, tensors[name]

    def _tensors(self) -> dict[str, Tensor]:
        return _state_dict(self.paths[0], mapped=True) if self._loaded is None else self._loaded


def _check_room(path: Path, room_mb: float | None) -> None:
    size_mb = path.stat().st_size / MIB
    if room_mb is not None and size_mb > room_mb:
        raise InputError(
            f"{path} has the format of torch before 1.6, which is loaded whole: {size_mb:.0f} MiB, and the budget "
            f"leaves {max(room_mb, 0):.0f} MiB",
            hint=f"Give {math.ceil(size_mb - room_mb)} MiB more with --budget-mb, or write it anew on a larger "
            "machine: torch.save(torch.load(FILE, weights_only=True), FILE).",
        )


def _state_dict(path: Path, *, mapped: bool) -> dict[str, Tensor]:
    """Return the tensors of a state dict or of a checkpoint that holds one, by name."""
    try:
        torch.serialization.add_safe_globals([argparse.Namespace])  # the arguments of a training script
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except (RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} cannot be read as weights: {_reason(error)}",
            hint="Save model.state_dict() with torch.save, or as safetensors; no other pickle is read.",
        ) from error
    while isinstance(content, dict) and (nested := _nested_state_dict(content)) is not None:
        content = nested
    tensors = {
        name: value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise InputError(f"{path} holds no state dict", hint="Save model.state_dict().")
    return tensors


def _reason(error: Exception) -> str:
    """Return in a few words why a file cannot be read; torch's own message is a page long."""
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:
        return f"it holds Python objects ({asked[1]}), not only tensors, and reading these could run code"
    if isinstance(error, LookupError):  # of the unpickler, whose message is the byte that it does not know
        return "it is not what torch.save writes"
    return next(iter(str(error).splitlines()), type(error).__name__)


def _nested_state_dict(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a checkpoint holds under the first of the usual names of a state dict; None without any."""
    return next((content[name] for name in _STATE_DICTS if isinstance(content.get(name), dict)), None)


class Renamed:
    """The same tensors under other names; `names`: the name in the file, by the new one."""

    def __init__(self, weights: WeightFiles, names: Mapping[str, str]) -> None:
        self.paths = weights.paths
        self.shapes = {new: weights.shapes[old] for new, old in names.items()}
        self._weights = weights
        self._names = names

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the values of these tensors; see `WeightFiles`."""
        new = {self._names[name]: name for name in names}
        for old, tensor in self._weights.read(new):
            yield new[old], tensor


def without_prefixes(weights: WeightFiles) -> Iterator[WeightFiles]:
    """Yield the weights under their own names, and then with one more prefix of a wrapper taken off at a time."""
    names = {name: name for name in weights.shapes}
    yield weights
    while any(name.startswith(_PREFIXES) for name in names):
        shorter = {_without_prefix(new): old for new, old in names.items()}
        if len(shorter) < len(names):
            return  # two weights would have one name
        names = shorter
        yield Renamed(weights, names)


def _without_prefix(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


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
