"""What a small TOML file beside CSV files says of them: which column is what, and how long a window is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.config.fields import AT_LEAST_ONE, Bounds, mistakes_of, setting
from edge_trgl.config.sources import read_toml, typed
from edge_trgl.runtime.errors import InputError

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_IN_FOLDER = "readings.toml"
_SECTION = "description"


@dataclass(frozen=True, kw_only=True)
class Description:
    """The settings in a `readings.toml`; each may be left out."""

    file: str | None = setting(None, "the CSV file, or a folder of them", unset="the file of the same name")
    time: str | None = setting(None, "column of the time; empty for none", unset="time, timestamp or t")
    channels: tuple[str, ...] = setting((), "columns that the network reads", unset="all other numeric ones")
    label: str | None = setting(None, "column of the class", unset="label, class, activity or target")
    group: str | None = setting(
        None,
        "column of the person or machine; empty for none",
        unset="group, subject, person, user, machine or id",
    )
    window: int = setting(128, "readings in a window", bounds=Bounds(at_least=2))
    stride: int | None = setting(
        None, "readings from one window to the next", unset="half a window", bounds=AT_LEAST_ONE
    )

    @property
    def step(self) -> int:
        """Readings from the start of a window to that of the next."""
        return max(1, self.window // 2) if self.stride is None else self.stride


@dataclass(frozen=True, kw_only=True)
class Described:
    """CSV files and their description.

    Args:
        data: a CSV file, or a folder of them.
        toml: the file that describes them; it need not exist.
        description: what it says.
    """

    data: Path
    toml: Path
    description: Description

    def setting(self, name: str, value: str) -> str:
        """How to add a setting to the description, as a command where there is no file yet; `value` is TOML."""
        if self.toml.exists():
            return f"write {name} = {value} in {self.toml}"
        return f"echo {shlex.quote(f'{name} = {value}')} > {shlex.quote(str(self.toml))}"


def is_table(path: Path) -> bool:
    """Whether a file is a CSV file by its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def described(path: Path) -> Described:
    """Find the description of a CSV file or a folder of them, or the files of a description.

    Raises:
        InputError: a file is missing, or the description cannot be read or says something that it cannot say.
    """
    if path.suffix != ".toml":
        toml = _toml_of(path)
        return Described(data=path, toml=toml, description=_read(toml) if toml.is_file() else Description())
    description = _read(path)
    named = path.parent / description.file if description.file is not None else _beside(path)
    if not named.exists():
        raise InputError(
            f"there is no {named}, which {path} describes", hint='Name its file: file = "readings.csv"'
        )
    return Described(data=named, toml=path, description=description)


def _toml_of(data: Path) -> Path:
    """The description of a folder, or of a file: its own, or that of its folder; it need not exist."""
    if data.is_dir():
        return data / _IN_FOLDER
    own, of_folder = data.with_name(f"{_stem(data)}.toml"), data.with_name(_IN_FOLDER)
    return of_folder if of_folder.is_file() and not own.is_file() else own


def _beside(toml: Path) -> Path:
    """The files that a description without `file` describes."""
    candidates = [toml.with_name(f"{toml.stem}{suffix}") for suffix in SUFFIXES]
    found = next((path for path in candidates if path.is_file()), candidates[0])
    return toml.parent if toml.name == _IN_FOLDER and not found.is_file() else found


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def _read(toml: Path) -> Description:
    values, mistakes = typed(_SECTION, Description, read_toml(toml))
    description = Description(**values)  # type: ignore[arg-type]
    mistakes += mistakes_of(_SECTION, description)
    if mistakes:
        raise InputError("\n".join(f"{toml}: {mistake.replace(f'{_SECTION}.', '')}" for mistake in mistakes))
    return description
