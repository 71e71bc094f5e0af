"""Finds out which format a data set has, and opens it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_trgl.data.sources import cifar_binary, cifar_pickle, idx, npz, readings, sample, stl10
from edge_trgl.data.sources.folder_layout import detect
from edge_trgl.data.sources.source import IMAGE_FOLDERS
from edge_trgl.run.data_summary import UNLABELLED
from edge_trgl.runtime.errors import InputError, UsageError, command

if TYPE_CHECKING:
    from edge_trgl.config.data import AskedResize
    from edge_trgl.data.sources.source import Source


class _Format(Protocol):
    """The module of a format that is known by its file names."""

    FILE_NAMES: str

    def detect(self, folder: Path) -> list[Path]: ...

    def load(self, folder: Path) -> Source: ...


@dataclass(frozen=True, kw_only=True)
class Photos:
    """How image files are read; see `load`."""

    image_size: int | None
    resize: AskedResize | None
    strict: bool


_FORMATS: tuple[_Format, ...] = (idx, cifar_pickle, cifar_binary, stl10)


def load(
    spec: str,
    *,
    image_size: int | None = None,
    resize: AskedResize | None = None,
    strict: bool = False,
    labels: bool = True,
) -> Source:
    """Open a data set: read its labels now, and its images when they are asked for.

    Args:
        spec: `sample`, a directory, a `FILE.npz`, a `FILE.csv`, or the `FILE.toml` that describes CSV files.
        image_size: for folders of image files, the side in pixels of the square that every image becomes.
        resize: how images of other proportions become a square; None to choose; "none" keeps a size that all have.
        strict: whether a damaged image file is refused; else it is left out.
        labels: whether labels are needed; else one class is enough, and image files need no class folders.

    Raises:
        InputError: the set is missing, damaged, of an unknown format, or, if `labels`, has fewer than two classes.
        UsageError: `image_size` is less than 1, or is given for a set whose images have one size already.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"--image-size is {image_size}; it must be 1 or more", hint="Give pixels: 96.")
    source = _open(spec, Photos(image_size=image_size, resize=resize, strict=strict))
    if resize is not None and resize != "none":
        source = replace(source, resize=resize)  # what predict does, too, to an image of another size
    if image_size is not None and source.shape[:-1] != (image_size, image_size):
        size = "×".join(map(str, reversed(source.shape[:-1])))
        raise UsageError(
            f"--image-size {image_size} does not apply to {spec}, whose size is {size} already",
            hint="Leave it out; it is for folders of image files.",
        )
    if labels:
        _check_classes(spec, source)
    return source


def _open(spec: str, photos: Photos) -> Source:
    path = Path(spec).expanduser()
    if spec == "sample":
        return sample.load()
    if path.is_dir():
        return _open_folder(path, photos)
    if not path.exists():
        raise InputError(
            f"there is no data set {spec}",
            hint="Give `sample`, or a directory or file that exists.",
        )
    if readings.is_table(path) or path.suffix == ".toml":
        return readings.load(path)
    if path.suffix != ".npz":
        raise InputError(
            f"{spec} is not a directory, nor a .npz, .csv or .toml file", hint="Unpack archives first."
        )
    return npz.load(path)


def _open_folder(folder: Path, photos: Photos) -> Source:
    sets = [(set_format, path) for set_format in _FORMATS for path in set_format.detect(folder)]
    if len(sets) > 1:
        raise InputError(
            f"{folder} holds {len(sets)} data sets",
            hint=f"Give one of them: {', '.join(str(path) for _, path in sets)}",
        )
    if sets:
        set_format, path = sets[0]
        return set_format.load(path)
    if readings.detect(folder):
        return readings.load(folder)
    # Imported here: only folders of image files need Pillow, which costs memory.
    from edge_trgl.data.sources import image_folder

    if image_folder.detect(folder) or image_folder.has_image(folder):
        return image_folder.load(folder, image_size=photos.image_size, resize=photos.resize, strict=photos.strict)
    known = [*(set_format.FILE_NAMES for set_format in _FORMATS), readings.FILE_NAMES, image_folder.FILE_NAMES]
    raise InputError(
        f"{folder} is not a data set of a known format",
        hint="\n".join(["A directory holds one of:", *(f"  {names}" for names in known)]),
    )


def _check_classes(spec: str, source: Source) -> None:
    if source.class_names == (UNLABELLED,):
        raise InputError(
            f"{spec} holds images without labels: the training images are in no class folders",
            hint="Put the images of each class into a folder of its own; or train blocks without labels: "
            + command("pretrain", "--data", spec),
        )
    num_present = len(np.unique(source.splits["train"].labels))
    if num_present < 2:
        raise InputError(
            f"{spec} has training {source.samples} of {num_present} class{'' if num_present == 1 else 'es'}",
            hint=_two_classes_or_more(spec, source),
        )


def _two_classes_or_more(spec: str, source: Source) -> str:
    """Name the folder below, if it is that one which holds class folders."""
    only = Path(spec, *source.class_names).expanduser()
    inside = source.format == IMAGE_FOLDERS and only.is_dir() and detect(only)
    return f"Training needs two classes or more{f'; is {only} the set?' if inside else '.'}"
