"""A CSV file as blocks of rows: its separator, its header, and the line of a cell that is wrong."""

from __future__ import annotations

import csv
import io
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_trgl.data.sources.streams import open_stream
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOCK_ROWS = 8192
_SEPARATORS = (",", ";", "\t")
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the first line of a CSV file says.

    Args:
        path: the file.
        encoding: how its bytes become text.
        separator: a comma, a semicolon or a tab.
        columns: the names of its columns, each different from the others where it is not empty.
    """

    path: Path
    encoding: str
    separator: str
    columns: tuple[str, ...]

    @property
    def number(self) -> Callable[[str], float]:
        """The function that reads a number, and raises ValueError where a cell is none.

        The decimal point may be a comma where commas do not separate columns.
        """
        return float if self.separator == "," else _with_decimal_comma

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number."""
        try:
            self.number(cell)
        except ValueError:
            return False
        return True

    def rows(self) -> Iterator[Rows]:
        """Stream the rows below the header, `BLOCK_ROWS` at a time; empty lines are passed over.

        Raises:
            InputError: a row has another number of cells than the header, or the file cannot be read.
        """
        block = Rows(lines=[], cells=[])
        with _opened(self.path, self.encoding) as text:
            for line, row in _numbered(self.path, text, self.separator):
                if len(row) != len(self.columns):
                    raise InputError(
                        f"line {line} of {self.path} has {len(row)} cells; its header names {len(self.columns)}",
                        hint="Give every line one cell for each column, in quotes where a text holds a separator.",
                    )
                block.lines.append(line)
                block.cells.append(row)
                if len(block.lines) == BLOCK_ROWS:
                    yield block
                    block = Rows(lines=[], cells=[])
        if block.lines:
            yield block


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a table: the number of each line in its file, from 1, and its cells."""

    lines: list[int]
    cells: list[list[str]]

    def column(self, position: int) -> list[str]:
        """The cells of one column, without spaces around them."""
        return [row[position].strip() for row in self.cells]


def open_table(path: Path) -> Table:
    """Read the header of a CSV file.

    Raises:
        InputError: the file cannot be read, is empty, or its first line does not name columns.
    """
    with open_stream(path) as stream:
        encoding = _ENCODINGS.get(stream.read(2), "utf-8-sig")
    with _opened(path, encoding) as text:
        header = next((line for line in _decoded(path, text) if line.strip()), "")
    candidates = [next(csv.reader([header], delimiter=separator), []) for separator in _SEPARATORS]
    # The names in a header hold fewer separators than there are between them.
    names = max(candidates, key=len)
    separator = _SEPARATORS[candidates.index(names)]
    table = Table(path=path, encoding=encoding, separator=separator, columns=tuple(name.strip() for name in names))
    _check_header(table)
    return table


def _check_header(table: Table) -> None:
    named = [name for name in table.columns if name]
    if not named:
        raise InputError(f"{table.path} is empty", hint="Its first line must name its columns.")
    if any(table.is_number(name) for name in named):
        raise InputError(
            f"{table.path} has no header: its first line holds numbers",
            hint="Write the names of the columns into its first line, for example: time,x,y,z,activity",
        )
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise InputError(f"{table.path} has two columns named {twice[0]}", hint="Rename one of them.")


def _with_decimal_comma(cell: str) -> float:
    return float(cell.replace(",", "."))


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    with open_stream(path) as stream:
        yield io.TextIOWrapper(stream, encoding=encoding, newline="")


def _decoded(path: Path, text: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        InputError: its bytes are not text.
    """
    try:
        yield from text
    except UnicodeError as error:
        better = path.with_name(f"{path.stem}-utf8{path.suffix}")
        raise InputError(
            f"{path} is not text in UTF-8: {error}",
            hint=f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > {shlex.quote(str(better))}",
        ) from error


def _numbered(path: Path, text: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the header, each with the number of its (last) line."""
    reader = csv.reader(_decoded(path, text), delimiter=separator, skipinitialspace=True)
    below_header = False
    try:
        for row in reader:
            if not any(row) and len(row) <= 1:
                continue
            if below_header:
                yield reader.line_num, row
            below_header = True
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {path} cannot be read: {error}", hint="Save it as CSV again."
        ) from error
