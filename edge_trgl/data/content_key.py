"""The key of a prepared data set: equal keys mean equal record files, bit for bit.

It covers the files of the source, the settings that decide what becomes of them, and the code that does it.

Of a source's files it takes names, sizes, and the times of the last change of content and of status, not bytes.
On a board the card or disk limits reading: to hash ten gigabytes of photos takes about as long as to decode them,
which is what the key is there to avoid. The status time (`st_ctime`) makes this safe: a program that writes new
content and puts the old modification time back (`cp -p`, `tar`, `touch`) still changes it, and no program can set
it. The price is on the safe side: a set whose files were copied, or given to another user, is prepared again.
Names are relative to the folder, so a folder that was moved or renamed keeps its key.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import PIL

from edge_trgl.data.sources import sample
from edge_trgl.data.sources.readings.description import described, is_table
from edge_trgl.runtime.records import document_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_trgl.config.data import DataConfig

UNREAD = ("source", "augment", "crop_padding", "flip", "normalize", "cache_mb")
"""Settings of the section `data` that preparing does not read; those that are added later count until they are
listed here."""

_CODE = Path(__file__).parent


def content_key(settings: DataConfig, *, seed: int) -> str:
    """Return the key (hex) of the data set that these settings make of its source as it is now.

    Args:
        settings: the section `data`.
        seed: of the splits that are drawn.

    Raises:
        OSError: the source cannot be listed.
        InputError: the file that describes the source cannot be read.
    """
    document = document_of(settings)
    read = {name: document[name] for name in sorted(document.keys() - UNREAD)}
    libraries = [sys.byteorder, np.__version__, PIL.__version__]
    digest = hashlib.sha256(json.dumps([read, seed, libraries]).encode())
    for line in _code():
        digest.update(line)
    for line in _files(settings.source):
        digest.update(line)
    return digest.hexdigest()[:32]


def _code() -> Iterator[bytes]:
    """Yield the bytes of every file of code in this room: a change of it may change what it writes."""
    for path in sorted(_CODE.rglob("*.py")):
        yield path.read_bytes()


def _files(spec: str) -> Iterator[bytes]:
    """Yield a line for each file of a source."""
    for path in _places(spec):
        if path.is_dir():
            yield from _files_below(path)
        elif path.exists():
            yield _line(path.name, path.stat())


def _places(spec: str) -> tuple[Path, ...]:
    """The files and folders that a source is read from; the file that describes it may be missing."""
    path = sample.FOLDER if spec == "sample" else Path(spec).expanduser()
    if path.is_dir() or not (is_table(path) or path.suffix == ".toml"):
        return (path,)
    readings = described(path)
    return readings.data, readings.toml


def _files_below(folder: Path) -> Iterator[bytes]:
    seen = set()
    for parent, children, names in os.walk(folder, followlinks=True, onerror=_raise):
        about = Path(parent).stat()
        # A link may lead back to a folder above it.
        if (about.st_dev, about.st_ino) in seen:
            children.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        children[:] = sorted(child for child in children if not child.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent, name)
            yield _line(str(path.relative_to(folder)), _about(path))


def _about(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:  # a link to nothing, which preparing may leave out
        return path.lstat()


def _line(name: str, about: os.stat_result) -> bytes:
    return os.fsencode(f"{name}\0{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n")


def _raise(error: OSError) -> NoReturn:
    raise error
