"""Opens CSV files of readings as labelled windows.

A file is one recording; a folder holds one recording a file, or has such folders train/, val/ and test/. A small
TOML file beside them says what their columns are (`description`); what it leaves out is taken from their names.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.reading_progress import ReadingProgress
from edge_trgl.data.sources.label_codes import Codes, LabelCodes
from edge_trgl.data.sources.readings.columns import Columns, columns_of
from edge_trgl.data.sources.readings.csv_table import open_table
from edge_trgl.data.sources.readings.description import Described, described, is_table
from edge_trgl.data.sources.readings.recording import Recording
from edge_trgl.data.sources.readings.windows import GAP_STEPS, Tally
from edge_trgl.data.sources.source import Groups, Source, StreamedSplit, check_image_bytes
from edge_trgl.data.sources.streams import as_input_error
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_trgl.data.sources.readings.windows import Windows

FILE_NAMES = "recordings in .csv files, or train/….csv with val/….csv and test/….csv beside it"
NO_GROUP = '""'
_SPLITS = ("train", "val", "test")


def detect(folder: Path) -> bool:
    """Return whether a folder holds CSV files and no folders, or split folders that do."""
    splits = [folder / name for name in _SPLITS if (folder / name).is_dir()]
    return all(map(_holds_tables, splits)) if splits else _holds_tables(folder)


def load(path: Path) -> Source:
    """Read all readings once: their windows are counted, labelled and grouped.

    Args:
        path: a CSV file, a folder of them, or the TOML file that describes either.

    Raises:
        InputError: a file cannot be read, a cell is wrong, or no window can be cut.
    """
    about = described(path)
    recordings = _recordings(about)
    length, columns = about.description.window, recordings["train"][0].columns
    check_image_bytes(about.data, length * len(columns.channels) * 4)
    codes, groups, tally = LabelCodes(f"the column {columns.label} of {about.data}"), Codes(), Tally()
    progress = ReadingProgress("windows")
    indices = {
        split: _index(_windows(files, about, codes, groups, tally), progress)
        for split, files in recordings.items()
    }
    if not len(indices["train"].labels):
        _refuse_none(about, columns, tally)
    class_names, labels = codes.classes(about.data, {split: index.labels for split, index in indices.items()})
    is_grouped = columns.group is not None or (about.description.group is None and len(recordings["train"]) > 1)
    return Source(
        format="readings",
        shape=(length, len(columns.channels)),
        dtype="float32",
        class_names=class_names,
        splits={
            split: StreamedSplit(labels=labels[split], read_all=_Reader(about=about, recordings=recordings[split]))
            for split in recordings
        },
        groups=_groups(indices["train"].groups, about) if is_grouped else None,
        notices=_notices(about, columns, tally, is_grouped=is_grouped or "test" in recordings),
    )


def load_samples(path: Path, length: int) -> tuple[tuple[str, ...], Iterator[NDArray[np.float32]]]:
    """Open the windows of one CSV file; labels are neither needed nor read.

    Args:
        path: the file; a description beside it names its columns, as for training.
        length: readings in a window, whatever the description says.

    Returns:
        The names of the channels, and an iterator over float32 [B, length, C] arrays.

    Raises:
        InputError: as `load`; some mistakes are noticed only when the windows are read.
    """
    about = described(path)
    about = replace(about, description=replace(about.description, window=length))
    table = open_table(path)
    columns = replace(columns_of(table, next(table.rows(), None), about, labelled=False), label=None)
    return columns.channels, _Reader(about=about, recordings=[Recording(table=table, columns=columns)])()


def _groups(of_sample: NDArray[np.int64], about: Described) -> Groups:
    return Groups(of_sample=of_sample, without=f"Without regard to groups: {about.setting('group', NO_GROUP)}")


def _holds_tables(folder: Path) -> bool:
    with as_input_error(folder):
        children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    return any(map(is_table, children)) and not any(child.is_dir() for child in children)


def _recordings(about: Described) -> dict[str, list[Recording]]:
    """The files of each split."""
    if about.data.is_file():
        paths = {"train": [about.data]}
    else:
        folders = {name: about.data / name for name in _SPLITS if (about.data / name).is_dir()}
        folders = folders or {"train": about.data}
        paths = {name: sorted(filter(is_table, folder.iterdir())) for name, folder in folders.items()}
    if not paths.get("train"):
        raise InputError(
            f"{about.data} holds no CSV files to train on", hint="Put them in it, or in a folder train/ in it."
        )
    first = open_table(paths["train"][0])
    columns = columns_of(first, next(first.rows(), None), about)
    return {
        name: [
            Recording(table=open_table(path), columns=columns, number=number) for number, path in enumerate(files)
        ]
        for name, files in paths.items()
    }


def _windows(
    recordings: list[Recording], about: Described, labels: Codes, groups: Codes, tally: Tally
) -> Iterator[Windows]:
    length, step = about.description.window, about.description.step
    return itertools.chain.from_iterable(one.windows(length, step, labels, groups, tally) for one in recordings)


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The label and the group of every window, int64 [W] each."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


def _index(windows: Iterator[Windows], progress: ReadingProgress) -> _Index:
    labels, groups = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for some in windows:
        progress.add(len(some.labels))
        labels.append(some.labels)
        groups.append(np.full(len(some.labels), some.group))
    return _Index(labels=np.concatenate(labels), groups=np.concatenate(groups))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the windows of a split: the files are read again, which takes less memory than to keep them."""

    about: Described
    recordings: list[Recording]

    def __call__(self) -> Iterator[NDArray[np.float32]]:
        for some in _windows(self.recordings, self.about, Codes(), Codes(), Tally()):
            yield from some.batches()


def _refuse_none(about: Described, columns: Columns, tally: Tally) -> None:
    """Say why there is not one window."""
    length = about.description.window
    if tally.longest >= length:
        raise InputError(
            f"{about.data}: no window of {length} readings has one label for more than half of them",
            hint=f"A shorter window: {about.setting('window', str(max(2, length // 4)))}",
        )
    because = "" if columns.group is None else f" of one {columns.group}"
    message = (
        f"{about.data} has no {length} readings in a row{because} without a gap in time; "
        f"the longest stretch has {tally.longest}"
    )
    if tally.longest >= 8 or columns.group is None:
        raise InputError(message, hint=f"A shorter window: {about.setting('window', str(max(2, tally.longest)))}")
    ungrouped = about.setting("group", NO_GROUP)
    raise InputError(
        message,
        hint=f"Sort the lines by {columns.group}, then by time; if it is no person or machine: {ungrouped}",
    )


def _notices(about: Described, columns: Columns, tally: Tally, *, is_grouped: bool) -> tuple[str, ...]:
    """What the user should know of how the windows came about."""
    length, step = about.description.window, about.description.step
    notices = [
        f"{about.data}: {columns}; windows of {length} readings, one every {step} ({about.toml.name} sets it)"
    ]
    if columns.unread:
        notices.append(f"columns without numbers are left out: {', '.join(columns.unread)}")
    if tally.gaps:
        notices.append(
            f"gaps in time: {tally.gaps} (steps of more than {GAP_STEPS:g} times the usual one, or back); "
            "no window crosses one"
        )
    if tally.short:
        notices.append(f"left out: {tally.short} × less than {length} readings in a row")
    if tally.mixed:
        notices.append(f"left out: {tally.mixed} × a window without one label for more than half of its readings")
    if not is_grouped:
        notices.append(
            "no column says which person or machine was measured, so windows of the same one are in training and "
            "in test: the accuracy on others will be lower"
        )
    return tuple(notices)
