"""Labels, class names and groups in a `.npz` archive: one number or one text for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.data.sources.label_codes import ONE_LABEL, Codes, LabelCodes
from edge_trgl.data.sources.npz_array import ArrayHeader, open_array
from edge_trgl.data.sources.source import Groups, renumber
from edge_trgl.data.sources.streams import read_all_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of all splits.

    Args:
        class_names: one for each label.
        of_split: labels by split, from 0, int64 [N].
        notices: sentences about what was done to them.
    """

    class_names: tuple[str, ...]
    of_split: Mapping[str, NDArray[np.int64]]
    notices: tuple[str, ...] = ()


def read_labels(path: Path, splits: Sequence[str], *, has_names: bool) -> Labels:
    """Read `y_train` and those of the other splits, and `class_names` if the archive has it.

    Raises:
        InputError: an array is missing or damaged, or does not hold one class for each sample.
    """
    headers = {split: _label_header(path, f"y_{split}") for split in splits}
    if {header.dtype.kind in "US" for header in headers.values()} == {True}:
        codes = LabelCodes(f"y_train in {path}")
        coded = {split: _codes(header, codes) for split, header in headers.items()}
        class_names, of_split = codes.classes(path, coded)
        return Labels(class_names=class_names, of_split=of_split)
    numbers, of_split = renumber(path, {split: _whole_numbers(header) for split, header in headers.items()})
    floats = [header for header in headers.values() if header.dtype.kind == "f"]
    return Labels(
        class_names=_named(path, numbers) if has_names else numbers,
        of_split=of_split,
        notices=tuple(f"{header.name} is {header.dtype} and is read as whole numbers" for header in floats),
    )


def read_groups(path: Path, num_samples: int) -> Groups:
    """Read `g_train`: numbers or text [N].

    Raises:
        InputError: it is damaged, holds something else, or not one value for each sample.
    """
    header = _header(path, "g_train")
    _check_column(header, "iuUS", "groups are whole numbers or text [N]", "Save one for each training sample.")
    of_sample = _codes(header, Codes())
    if len(of_sample) != num_samples:
        raise InputError(
            f"{header} holds {len(of_sample)} groups for {num_samples} training samples",
            hint="Save one group for each training sample.",
        )
    return Groups(of_sample=of_sample, without="Without regard to groups: save the archive without g_train.")


def check_count(samples: ArrayHeader, labels: str, num_labels: int) -> None:
    """Check that there is a label for each sample.

    Raises:
        InputError: there are more or fewer.
    """
    if samples.shape[0] != num_labels:
        raise InputError(
            f"{samples} holds {samples.shape[0]} samples, but {labels} has {num_labels} labels",
            hint="Save one label for each sample.",
        )


def _header(path: Path, name: str) -> ArrayHeader:
    with open_array(path, name) as (_, header):
        return header


def _label_header(path: Path, name: str) -> ArrayHeader:
    header = _header(path, name)
    if header.shape and int(np.prod(header.shape[1:])) != 1 and header.dtype.kind in "biufUS":
        raise InputError(
            f"{header} has the shape {header.shape}, not one label for each sample",
            hint=ONE_LABEL.format("several labels") + " Of rows with a single 1, save y.argmax(axis=1).",
        )
    _check_column(header, "iufUS", "labels are whole numbers or text [N]", "Save one class for each sample.")
    return header


def _check_column(header: ArrayHeader, kinds: str, wanted: str, hint: str) -> None:
    if header.dtype.kind not in kinds or not header.shape or int(np.prod(header.shape[1:])) != 1:
        raise InputError(f"{header} is {header.dtype} of shape {header.shape}; {wanted}", hint=hint)


def _values(header: ArrayHeader) -> list[NDArray[Any]]:
    """Read the values of a column in parts, each [B]."""
    num_bytes = header.dtype.itemsize
    with open_array(header.path, header.name) as (stream, _):
        records = read_all_records(header.path, stream, header.shape[0], num_bytes)
        return [part.view(header.dtype)[:, 0] for part in records]


def _codes(header: ArrayHeader, codes: Codes) -> NDArray[np.int64]:
    if not header.dtype.itemsize:
        raise InputError(f"{header} holds empty texts only", hint="Save a name for each sample.")
    texts = (_text(value) for part in _values(header) for value in part.tolist())
    return np.fromiter((codes[text] for text in texts), np.int64)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _whole_numbers(header: ArrayHeader) -> NDArray[np.int64]:
    if header.dtype.kind in "US":
        raise InputError(f"{header} is text; other labels are numbers", hint="Save all labels the same way.")
    values = np.concatenate([np.empty(0, header.dtype), *_values(header)])
    if header.dtype.kind == "f" and not (values == np.floor(values)).all():  # NaN is not equal
        raise InputError(
            f"{header} holds labels that are no whole numbers",
            hint=ONE_LABEL.format("a number (regression)") + " Save the number of a class for each sample.",
        )
    return values.astype(np.int64)


def _named(path: Path, numbers: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `class_names` of the classes that training has."""
    header = _header(path, "class_names")
    _check_column(header, "US", "class names are text [classes]", "Save one name for each class.")
    names = [_text(value) for part in _values(header) for value in part.tolist()]
    if int(numbers[-1]) >= len(names):
        raise InputError(
            f"{path} has the label {numbers[-1]}, but only {len(names)} class_names",
            hint="Save the name of label 0 first, and one for each label.",
        )
    return tuple(names[int(number)] for number in numbers)
