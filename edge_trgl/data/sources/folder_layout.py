"""Which folders of a set of image files are splits, and which are classes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge_trgl.data.sources.streams import as_input_error
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""How the folder of each split may be called, in capitals or not."""

_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def detect(folder: Path) -> bool:
    """Return whether `folder` has the folder of a split, or a sub-folder with a file in it."""
    children = subfolders(folder)
    return any(_split_of(child) for child in children) or any(_has_file(child) for child in children)


def split_folders(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the folder of each split, and a sentence about each folder beside them that is not used.

    A folder without split folders is that of the training images.

    Raises:
        InputError: there are two folders for one split, or splits but no training images.
    """
    folders: dict[str, Path] = {}
    others = []
    for child in subfolders(folder):
        split = _split_of(child)
        if split is None:
            others.append(child.name)
        elif split in folders:
            raise InputError(
                f"{folder} has both {folders[split].name} and {child.name} for one split",
                hint="Put their images together, or take one of them out of the folder.",
            )
        else:
            folders[split] = child
    if not folders:
        return {"train": folder}, ()
    if "train" not in folders:
        raise InputError(
            f"{folder} has {' and '.join(child.name for child in folders.values())} but no train folder",
            hint="Put the training images in train/CLASS/…",
        )
    notices = [f"the folder {name} stands beside {folders['train'].name} and is not used" for name in others]
    return folders, tuple(notices)


def is_flat(folder: Path) -> bool:
    """Return whether a folder of training images has no class folders, only files."""
    return not subfolders(folder) and _has_file(folder)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders of the training images, in alphabetical order.

    Raises:
        InputError: there are none, or they have the names of splits.
    """
    children = subfolders(folder)
    if not children:
        raise InputError(
            f"{folder} has no class folders", hint="Put the images of each class into a folder of its own."
        )
    for inside in (folder, *children):
        named = [child.name for child in subfolders(inside) if _split_of(child)]
        if named:
            raise InputError(
                f"{inside} has the folder {named[0]}, which is the name of a split and not of a class",
                hint="The splits stand above the classes: train/CLASS/…, test/CLASS/…",
            )
    return tuple(child.name for child in children)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder in alphabetical order, without hidden ones."""
    with as_input_error(folder):
        return sorted(child for child in folder.iterdir() if child.is_dir() and not _is_hidden(child.name))


def walk(folder: Path) -> Iterator[str]:
    """Yield the path of every file below a folder in alphabetical order, leaving out hidden ones."""
    for parent, children, names in os.walk(folder, followlinks=True):
        children[:] = sorted(child for child in children if not _is_hidden(child))
        yield from (f"{parent}/{name}" for name in sorted(names) if not _is_hidden(name))


def _split_of(folder: Path) -> str | None:
    return _SPLIT_OF.get(folder.name.lower())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to archives


def _has_file(folder: Path) -> bool:
    return next(walk(folder), None) is not None
