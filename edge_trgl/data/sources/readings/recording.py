"""One CSV file of readings, streamed as arrays; a cell that is wrong is reported with its line."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.readings.windows import Cutter, Readings, Tally, Windows
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge_trgl.data.sources.label_codes import Codes
    from edge_trgl.data.sources.readings.columns import Columns
    from edge_trgl.data.sources.readings.csv_table import Rows, Table


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One file, which is one recording.

    Args:
        table: the file.
        columns: those in use.
        number: of the file among those of its set; the group of its readings where no column says it.
    """

    table: Table
    columns: Columns
    number: int = 0

    def windows(self, window: int, stride: int, labels: Codes, groups: Codes, tally: Tally) -> Iterator[Windows]:
        """Cut the file into windows; each call reads it again.

        Args:
            window: readings in a window.
            stride: readings from the start of a window to that of the next.
            labels, groups: get a number for each new text.
            tally: what is noticed is added to it.

        Raises:
            InputError: the file cannot be read, or a cell is empty or not what its column holds.
        """
        cutter = Cutter(window, stride, tally)
        for rows in self.table.rows():
            yield from cutter.feed(self._readings(rows, labels, groups))
        cutter.end_stretch()

    def _readings(self, rows: Rows, labels: Codes, groups: Codes) -> Readings:
        names, time = self.columns, self.columns.time
        num_rows = len(rows.lines)
        group = np.full(num_rows, self.number) if names.group is None else self._codes(rows, names.group, groups)
        return Readings(
            values=self._values(rows),
            labels=np.zeros(num_rows, np.int64) if names.label is None else self._codes(rows, names.label, labels),
            groups=group,
            times=None if time is None else self._times(rows, time),
        )

    def _values(self, rows: Rows) -> NDArray[np.float32]:
        """The channels, float32 [N, C]."""
        positions = [self._position(name) for name in self.columns.channels]
        number = self.table.number
        try:
            values = np.array([[number(row[position]) for position in positions] for row in rows.cells])
        except ValueError:
            values = np.array([[self._or_nan(row[position]) for position in positions] for row in rows.cells])
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, channel = bad[0].tolist()
            self._refuse(rows, row, self.columns.channels[channel], "a number")
        return values

    def _or_nan(self, cell: str) -> float:
        return self.table.number(cell) if self.table.is_number(cell) else np.nan

    def _codes(self, rows: Rows, name: str, codes: Codes) -> NDArray[np.int64]:
        cells = rows.column(self._position(name))
        if "" in cells:
            self._refuse(rows, cells.index(""), name, "a name")
        return np.fromiter((codes[cell] for cell in cells), np.int64, len(cells))

    def _times(self, rows: Rows, name: str) -> NDArray[np.float64]:
        """The times as numbers: as they are, or microseconds where they are dates."""
        cells = rows.column(self._position(name))
        read = self.table.number if self.table.is_number(cells[0]) else _microseconds
        try:
            times = np.array([read(cell) for cell in cells], np.float64)
        except ValueError:
            times = np.array([_read_or_nan(read, cell) for cell in cells])
        bad = np.flatnonzero(~np.isfinite(times))
        if len(bad):
            self._refuse(rows, int(bad[0]), name, "a time: a number, or such as 2024-05-31T12:00:00.25")
        return times

    def _position(self, name: str) -> int:
        try:
            return self.table.columns.index(name)
        except ValueError:
            raise InputError(
                f"{self.table.path} has no column {name}, which the first file has",
                hint="Give all files the same columns.",
            ) from None

    def _refuse(self, rows: Rows, row: int, name: str, wanted: str) -> None:
        cell = rows.cells[row][self._position(name)].strip()
        found = repr(cell) if cell else "nothing"
        raise InputError(
            f"line {rows.lines[row]} of {self.table.path} has {found} in the column {name}, not {wanted}",
            hint="Fill the gap or leave the line out.",
        )


def _microseconds(cell: str) -> float:
    """Read a date and time, in UTC where it does not say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an offset from UTC is understood is deprecated
        moment = np.datetime64(cell.removesuffix("Z"), "us")
    return float("nan") if np.isnat(moment) else float(moment.astype(np.int64))


def _read_or_nan(read: object, cell: str) -> float:
    assert callable(read)
    try:
        return float(read(cell))
    except ValueError:
        return float("nan")
