"""Which column of a CSV file is the time, the label, the group, and which ones the network reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from edge_trgl.data.sources.readings.csv_table import Rows, Table
    from edge_trgl.data.sources.readings.description import Described

TIMES = ("time", "timestamp", "t")
LABELS = ("label", "class", "activity", "target")
GROUPS = ("group", "subject", "person", "user", "machine", "id")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the columns in use; each of the first three is None where there is none.

    Args:
        time: of the time.
        label: of the class.
        group: of the person or the machine.
        channels: those that the network reads, in its order.
        unread: those that are left out because they hold no numbers.
    """

    time: str | None
    label: str | None
    group: str | None
    channels: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        roles = {"time": self.time, "label": self.label, "group": self.group}
        words = [f"{role} {name}" for role, name in roles.items() if name is not None]
        return f"{', '.join(words)}; channels {', '.join(self.channels)}"


def columns_of(table: Table, first: Rows | None, about: Described, *, labelled: bool = True) -> Columns:
    """Choose the columns of a file by its description, by their names and by its first rows.

    `labelled`: whether a label is needed.

    Raises:
        InputError: a column that is named is not there, or none can be chosen.
    """
    asked = about.description
    label = _role(table, about, "label", asked.label, LABELS)
    if label is None and labelled:
        raise InputError(
            f"{table.path} has no column for the label; its columns are {_listed(table)}",
            hint=f"Name it: {about.setting('label', _quoted(_likely_label(table, first)))}",
        )
    time = _role(table, about, "time", asked.time, TIMES)
    group = _role(table, about, "group", asked.group, GROUPS)
    taken = {label, time, group}
    for name in asked.channels:
        _check_there(table, about, "channels", name)
    # Programs write row numbers into a column without a name.
    free = [name for name in table.columns if name and not name.startswith("Unnamed:") and name not in taken]
    numeric = tuple(name for name in free if _is_numeric(table, first, name))
    channels = asked.channels or numeric
    if not channels:
        raise InputError(
            f"{table.path} has no column of numbers beside its time, label and group",
            hint=f"Its columns are {_listed(table)}.",
        )
    unread = () if asked.channels else tuple(name for name in free if name not in numeric)
    return Columns(time=time, label=label, group=group, channels=channels, unread=unread)


def _role(table: Table, about: Described, role: str, asked: str | None, names: tuple[str, ...]) -> str | None:
    if asked is not None:
        if asked:
            _check_there(table, about, role, asked)
        return asked or None
    found = [name for name in table.columns if name.lower() in names]
    if len(found) > 1:
        raise InputError(
            f"{table.path} has the columns {' and '.join(found)}; which of them is the {role} is not clear",
            hint=f"Name it: {about.setting(role, _quoted(found[0]))}",
        )
    return found[0] if found else None


def _check_there(table: Table, about: Described, role: str, name: str) -> None:
    if name not in table.columns:
        raise InputError(
            f"{table.path} has no column {name}, which is the {role} by {about.toml}",
            hint=f"Its columns are {_listed(table)}.",
        )


def _is_numeric(table: Table, first: Rows | None, name: str) -> bool:
    """Whether a column holds numbers: then one cell that is none is a mistake."""
    return first is not None and any(map(table.is_number, first.column(table.columns.index(name))))


def _likely_label(table: Table, first: Rows | None) -> str:
    """A column of text that is no time and no group by its name, or else the last one."""
    named = [name for name in table.columns if name and name.lower() not in (*TIMES, *GROUPS)]
    named = named or [name for name in table.columns if name]
    texts = [name for name in named if not _is_numeric(table, first, name)]
    return (texts or named)[-1]


def _listed(table: Table) -> str:
    return ", ".join(name for name in table.columns if name)


def _quoted(name: str) -> str:
    """A name as TOML has it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
