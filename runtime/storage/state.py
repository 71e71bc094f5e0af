"""The SQLite database of a run, which alone decides what is finished and which files belong to it.

It loads no torch, because the parent process and the report read it too.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edge_trgl.runtime.errors import RESUME, DiskFullError, StorageError
from edge_trgl.runtime.records import document_of, read_record
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord
from edge_trgl.runtime.storage.files import FileRecord

SCHEMA = 4
_APPLICATION_ID = 0x5452474C
_BUSY_TIMEOUT_S = 30.0
_FULL_HINT = f"free space on its disk, then go on: {RESUME}"
_HINT = "free space on its disk if that is full; a damaged database must come from a copy of the run"

_TABLES = """
CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 0), position INTEGER NOT NULL);
INSERT INTO run VALUES (0, 0);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE modules (
    module INTEGER PRIMARY KEY, name TEXT NOT NULL, num_bytes INTEGER NOT NULL, checksum TEXT NOT NULL
);
CREATE TABLE boundaries (name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE metrics (
    kind TEXT NOT NULL, module INTEGER NOT NULL, epoch INTEGER NOT NULL, position INTEGER NOT NULL,
    num_images INTEGER NOT NULL, loss_sum REAL, num_correct INTEGER NOT NULL, transport_sum REAL,
    transport_gradient REAL, other_gradient REAL, lr REAL
);
CREATE TABLE samples (
    time_s REAL NOT NULL, phase TEXT NOT NULL, module INTEGER, rss_mb REAL NOT NULL, peak_mb REAL NOT NULL,
    cuda_mb REAL NOT NULL, read_mb REAL NOT NULL, written_mb REAL NOT NULL
);
CREATE TABLE events (time_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE phases (name TEXT NOT NULL, peak_mb REAL NOT NULL, seconds REAL NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class ModuleRecord:
    """The current version of a module: its number and its file."""

    module: int
    file: FileRecord


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Sums over the images of one stretch of training or evaluation of one module.

    Attributes:
        kind: "train", "validation" or "test".
        position: of the commit that stored the metric.
        transport_gradient, other_gradient: squared norms, summed over the steps that measured them.
    """

    kind: str
    module: int
    epoch: int
    position: int
    num_images: int
    loss_sum: float
    num_correct: int
    transport_sum: float
    transport_gradient: float
    other_gradient: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class VisitSample:
    """What the process used during one visit, in MiB. `module` is None outside of visits."""

    time_s: float
    phase: str
    module: int | None
    rss_mb: float
    peak_mb: float
    cuda_mb: float
    read_mb: float
    written_mb: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of the report: a restart, a new plan, a warning."""

    time_s: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The peak memory of the processes in one phase of the run, in MiB."""

    name: str
    peak_mb: float
    seconds: float


class RunState:
    """The database of a run, created if there is none. One process may write while others read.

    Raises:
        StorageError: the file is damaged, is not the database of a run, or has a schema of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reported():
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with self._reported():
                self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def position(self) -> int:
        """Return the position of the last commit; 0 before the first."""
        return int(self._rows("SELECT position FROM run")[0][0])

    def modules(self) -> dict[int, FileRecord]:
        """Return the file of the current version of each module."""
        rows = self._rows("SELECT module, name, num_bytes, checksum FROM modules ORDER BY module")
        return {
            module: FileRecord(name=name, num_bytes=num_bytes, checksum=checksum)
            for module, name, num_bytes, checksum in rows
        }

    def boundaries(self) -> list[BoundaryRecord]:
        """Return the boundaries of the last commit, sorted by name."""
        rows = self._rows("SELECT record FROM boundaries ORDER BY name")
        return [read_record(BoundaryRecord, json.loads(record)) for (record,) in rows]

    def metrics(self, kind: str | None = None) -> list[Metric]:
        """Return the metrics of one kind, or all of them, in the order of their commits."""
        where = "" if kind is None else "WHERE kind = ?"
        rows = self._rows(f"SELECT * FROM metrics {where} ORDER BY rowid", () if kind is None else (kind,))
        return [_metric(row) for row in rows]

    def samples(self) -> list[VisitSample]:
        """Return all memory samples in the order of their commits."""
        return [VisitSample(**row) for row in self._rows("SELECT * FROM samples ORDER BY rowid")]

    def events(self) -> list[Event]:
        """Return all events, oldest first."""
        return [Event(**row) for row in self._rows("SELECT * FROM events ORDER BY rowid")]

    def phases(self) -> list[Phase]:
        """Return all phases in the order in which they were recorded."""
        return [Phase(**row) for row in self._rows("SELECT * FROM phases ORDER BY rowid")]

    def meta(self, key: str, default: Any = None) -> Any:
        """Return the JSON value of `key`."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else default

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value under `key`."""
        with self._transaction():
            self._set_meta({key: value})

    def add_event(self, kind: str, text: str) -> None:
        """Append an event with the current time."""
        with self._transaction():
            self._insert("events", [Event(time_s=time.time(), kind=kind, text=text)])

    def record_phase(self, name: str, peak_mb: float, seconds: float) -> None:
        """Append the peak and the duration of a phase."""
        with self._transaction():
            self._insert("phases", [Phase(name=name, peak_mb=peak_mb, seconds=seconds)])

    def commit(
        self,
        *,
        position: int,
        modules: Iterable[ModuleRecord],
        boundaries: Iterable[BoundaryRecord],
        metrics: Iterable[Metric] = (),
        samples: Iterable[VisitSample] = (),
        meta: Mapping[str, object] = {},
    ) -> None:
        """Record the end of a visit or chunk in one transaction, which is durable once this returns.

        Args:
            position: how many visits of the schedule are done.
            modules: the new current versions; other modules keep theirs.
            boundaries: all current boundaries; others are forgotten.
            metrics: appended.
            samples: appended.
            meta: JSON values to set.

        Raises:
            StorageError: the disk is full or fails; the last commit stands.
        """
        with self._transaction():
            self._db.execute("UPDATE run SET position = ?", (position,))
            self._db.executemany(
                "INSERT OR REPLACE INTO modules VALUES (?, ?, ?, ?)",
                ((one.module, one.file.name, one.file.num_bytes, one.file.checksum) for one in modules),
            )
            self._db.execute("DELETE FROM boundaries")
            self._db.executemany(
                "INSERT INTO boundaries VALUES (?, ?)",
                ((one.spec.name, json.dumps(document_of(one))) for one in boundaries),
            )
            self._insert("metrics", metrics)
            self._insert("samples", samples)
            self._set_meta(meta)

    def _open(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = DELETE")
        # EXTRA also syncs the folder after the journal is gone: without it a power cut can undo a commit.
        self._db.execute("PRAGMA synchronous = EXTRA")
        self._db.execute("PRAGMA foreign_keys = ON")
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            self._make_tables()
        self._check()

    def _make_tables(self) -> None:
        with self._transaction():
            # Another process may have created them in the meantime.
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)

    def _check(self) -> None:
        if self._db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise StorageError(f"{self.path} is not the database of a run", hint="give the folder of a run")
        schema = self._db.execute("PRAGMA user_version").fetchone()[0]
        if schema != SCHEMA:
            raise StorageError(
                f"{self.path} has schema {schema}, this version of edge-trgl knows schema {SCHEMA}",
                hint="use the version that made the run",
            )
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StorageError(f"{self.path} is damaged: {found}", hint=_HINT)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._reported():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back when the disk is full.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError as error:
            # SQLite reports an exhausted quota, or a journal that cannot be created, under other names.
            if "full" in str(error) or files.is_full(self.path.parent):
                text = f"the disk is full: {self.path} could not be written"
                raise DiskFullError(text, hint=_FULL_HINT) from error
            raise StorageError(f"{self.path} cannot be used: {error}", hint=_HINT) from error

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        with self._reported():
            return self._db.execute(statement, values).fetchall()

    def _insert(self, table: str, rows: Iterable[Metric | VisitSample | Event | Phase]) -> None:
        for row in rows:
            names = [field.name for field in fields(row)]
            values = ", ".join(f":{name}" for name in names)
            self._db.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})", asdict(row))

    def _set_meta(self, values: Mapping[str, object]) -> None:
        rows = ((key, json.dumps(value)) for key, value in values.items())
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _metric(row: sqlite3.Row) -> Metric:
    # SQLite keeps a NaN, the loss of a run that diverged, as NULL.
    values: dict[str, Any] = {key: math.nan if row[key] is None else row[key] for key in list(row.keys())}
    return Metric(**values)
