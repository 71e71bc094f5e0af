"""Where a configuration comes from: profile, recipes, TOML file and flags, read and merged.

Later sources win: built-in defaults < profile < recipes < file < flags. All mistakes are collected and told at
once, one a line, each by its dotted name.
"""

from __future__ import annotations

import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_trgl.config.conversion import NotUtf8Error, convert
from edge_trgl.config.fields import expected, settings_of, shown
from edge_trgl.config.nearest import nearest
from edge_trgl.config.sections import SECTIONS, Document, RunConfig
from edge_trgl.runtime.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Section = Mapping[str, object]
Source = Mapping[str, object]
"""Sections by name, not checked yet: what stands for a section may be anything."""


def resolve(*sources: Source, mistakes: Sequence[str] = ()) -> RunConfig:
    """Build the configuration that `sources` give, later ones winning.

    `mistakes`: sentences about mistakes that were found before; they are told together with those found here.

    Raises:
        UsageError: with one line for each mistake.
    """
    merged, wrong = _merged(sources)
    wrong = [*mistakes, *wrong]
    built = {}
    for section, kind in SECTIONS.items():
        values, mistyped = typed(section, kind, merged[section])
        wrong += mistyped
        built[section] = kind(**values)
    config = RunConfig(**built)
    wrong += config.mistakes()
    # A value that is wrong by itself is told once; what it would conflict with is not known.
    told = {sentence.split()[0] for sentence in wrong}
    wrong += [sentence for sentence in config.conflicts() if told.isdisjoint(re.split(r"[^\w.]+", sentence))]
    if wrong:
        raise UsageError("\n".join(wrong), hint="Every option and setting: edge-trgl train --help-all")
    return config


def _merged(sources: Iterable[Source]) -> tuple[dict[str, dict[str, object]], list[str]]:
    """The values of each section, and a sentence for what is not a section."""
    merged: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    mistakes = []
    for source in sources:
        for section, values in source.items():
            if section not in SECTIONS:
                mistakes.append(_unknown(section, SECTIONS))
            elif not isinstance(values, Mapping):
                mistakes.append(f"{section} must be a section, [{section}], not {shown(values)}")
            else:
                merged[section].update(values)
    return merged, mistakes


def read_toml(path: Path) -> dict[str, object]:
    """Read a configuration file.

    Raises:
        InputError: it cannot be read or is not TOML.
    """
    try:
        document: dict[str, object] = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as TOML: {error}", hint="Check the path and the syntax."
        ) from error
    return document


PROFILES = Path(__file__).parent.parent / "profiles"


def own_profiles() -> Path:
    """The folder to which `edge-trgl probe --save NAME` writes profiles; it may not exist."""
    # The XDG specification tells programs to ignore a relative path.
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".config") / "edge-trgl" / "profiles"


def read_profile(name: str) -> Source:
    """Read a profile as a source for `resolve`: the sections of its `[defaults]`, and its `[board]`.

    `name`: that of a saved profile or a bundled one, or a path ending in .toml.

    Raises:
        UsageError: there is no such profile, or its `defaults` are not sections.
        InputError: the file cannot be read.
    """
    path = Path(name) if name.endswith(".toml") else _named("profile", name, _profiles(), "; or give a .toml file")
    document = read_toml(path)
    defaults = document.get("defaults", {})
    if not isinstance(defaults, Mapping):
        raise UsageError(f"{path}: defaults must hold sections", hint="For example [defaults.train].")
    board = {"board": document["board"]} if "board" in document else {}
    return {**defaults, **board}


RECIPES = Path(__file__).parent.parent / "recipes"


def read_recipes(names: str) -> list[Source]:
    """Read the recipes of a comma-separated list as sources for `resolve`, in its order: later ones win.

    Raises:
        UsageError: there is no such recipe.
    """
    known = {file.stem: file for file in RECIPES.glob("*.toml")}
    return [
        read_toml(_named("recipe", name.strip(), known, "; separate several by commas"))
        for name in names.split(",")
    ]


def _profiles() -> dict[str, Path]:
    return {file.stem: file for folder in (PROFILES, own_profiles()) for file in sorted(folder.glob("*.toml"))}


def _named(kind: str, name: str, files: Mapping[str, Path], more: str) -> Path:
    """The file of that name; `more` ends the hint that lists the known names."""
    if name in files:
        return files[name]
    near = [known for known in files if name and name in known] or nearest(name, files, 3)
    raise UsageError(
        f"there is no {kind} {name!r}",
        hint=(f"Did you mean {' or '.join(near)}? " if near else "") + f"Known: {', '.join(sorted(files))}{more}.",
    )


def parse_setting(text: str) -> Document:
    """Read `section.key=value` as a source; the value is TOML, or else the text itself.

    Raises:
        UsageError: the text has another form.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise UsageError(
            f"--set {text} must have the form section.key=value", hint="For example --set train.momentum=0.8"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return {section: {key: parsed}}


def differences(old: Document, new: Document) -> list[str]:
    """The dotted names whose values differ between two documents, each with both values."""
    differing = []
    for section in sorted({*old, *new}):
        before, after = old.get(section, {}), new.get(section, {})
        differing += [
            f"{section}.{name}: {before.get(name)} in the run, {after.get(name)} now"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return differing


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = nearest(name, known)
    return f"{name} is not known; " + (f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}")


def typed(section: str, kind: type[DataclassInstance], values: Section) -> tuple[dict[str, object], list[str]]:
    """The values of a section in the types of its fields, and a sentence for each that has another one."""
    hints, settings = typing.get_type_hints(kind), settings_of(kind)
    typed, mistakes = {}, []
    for name, value in values.items():
        if name not in settings:
            mistakes.append(_unknown(f"{section}.{name}", [f"{section}.{known}" for known in settings]))
            continue
        try:
            typed[name] = convert(value, hints[name])
        except NotUtf8Error:
            mistakes.append(f"{section}.{name} is not valid UTF-8: {value!r}; rename the file or folder")
        except ValueError:
            wanted = expected(hints[name], settings[name])
            mistakes.append(f"{section}.{name} must be {wanted}, not {shown(value)}")
    return typed, mistakes
