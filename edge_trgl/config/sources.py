"""Where a configuration comes from: profile, recipes, TOML file and flags, read and merged.

Later sources win: built-in defaults < profile < recipes < file < flags. Every mistake is collected and shown at
once, by the dotted name that the user typed.
"""

from __future__ import annotations

import difflib
import os
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from edge_trgl.runtime.errors import InputError, UsageError
from edge_trgl.runtime.storage import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edge_trgl.config.sections import RunConfig


def resolve(*sources: Mapping[str, Any]) -> RunConfig:
    """The configuration that nested `sources` give, later ones winning.

    Raises:
        UsageError: naming every mistake.
    """
    merged: dict[str, dict[str, Any]] = {}
    mistakes: list[str] = []
    sections = {item.name: _section_type(item.name) for item in fields(RunConfig)}
    for source in sources:
        for section, values in source.items():
            if section not in sections:
                mistakes.append(_unknown(section, list(sections)))
            elif not isinstance(values, Mapping):
                mistakes.append(f"{section} must be a section, [{section}]")
            else:
                merged.setdefault(section, {}).update(values)
    built = {}
    for section, kind in sections.items():
        values, wrong = _typed(section, kind, merged.get(section, {}))
        mistakes += wrong
        built[section] = kind(**values)
    config = RunConfig(**built)
    told = {mistake.split()[0] for mistake in mistakes}
    mistakes += [problem for problem in config.problems() if not any(name in problem for name in told)]
    if mistakes:
        raise UsageError("; ".join(mistakes), hint="edge-trgl train --help lists the options.")
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        InputError: it cannot be read or is not TOML.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as TOML: {error}", hint="Check the path and the syntax."
        ) from error
    return document


PROFILES = Path(__file__).parent.parent / "profiles"


def own_profiles() -> Path:
    """The folder of the profiles that `edge-trgl probe --save NAME` writes, there or not."""
    # The specification of that variable: a relative path is none.
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".config") / "edge-trgl" / "profiles"


def read_profile(name: str) -> dict[str, Any]:
    """What a profile gives `resolve`: the sections of its `[defaults]`, and its `[board]`.

    `name`: of a saved profile, of a bundled one, or a path ending in .toml.

    Raises:
        UsageError: no such profile, or it has another form.
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


def read_recipes(names: str) -> list[dict[str, Any]]:
    """What the recipes of a comma-separated list give `resolve`, in its order: later ones win.

    Raises:
        UsageError: no such recipe.
    """
    known = {file.stem: file for file in RECIPES.glob("*.toml")}
    return [read_toml(_named("recipe", name.strip(), known, "; several with commas")) for name in names.split(",")]


def _profiles() -> dict[str, Path]:
    return {file.stem: file for folder in (PROFILES, own_profiles()) for file in sorted(folder.glob("*.toml"))}


def _named(kind: str, name: str, files: Mapping[str, Path], more: str) -> Path:
    """The file of that name; `more` ends the hint that lists the names there are."""
    if name in files:
        return files[name]
    near = [known for known in files if name and name in known] or difflib.get_close_matches(name, files)
    raise UsageError(
        f"there is no {kind} {name!r}",
        hint=(f"Did you mean {' or '.join(near)}? " if near else "") + f"Known: {', '.join(sorted(files))}{more}.",
    )


def parse_setting(text: str) -> dict[str, dict[str, Any]]:
    """`section.key=value` as a source; the value is TOML, or else the text itself.

    Raises:
        UsageError: it has another form.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise UsageError(f"--set {text}: expected section.key=value", hint="For example --set train.momentum=0.8")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return {section: {key: parsed}}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted names whose values differ between two documents, with both values."""
    found = []
    for section in sorted({*old, *new}):
        before, after = old.get(section, {}), new.get(section, {})
        found += [
            f"{section}.{name}: {before.get(name)} in the run, {after.get(name)} now"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return found


def _section_type(name: str) -> Any:
    return typing.get_type_hints(RunConfig)[name]


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name} is not known" + (f", did you mean {near[0]}?" if near else f"; known: {', '.join(known)}")


def _typed(section: str, kind: Any, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    hints = typing.get_type_hints(kind)
    good, mistakes = {}, []
    for name, value in values.items():
        if name not in hints:
            mistakes.append(_unknown(f"{section}.{name}", [f"{section}.{known}" for known in hints]))
            continue
        try:
            good[name] = _convert(value, hints[name])
        except ValueError as error:
            mistakes.append(f"{section}.{name} = {value!r}: {error}")
    return good, mistakes


def _convert_union(value: Any, hints: list[Any]) -> Any:
    """`value` as the first of `hints` that takes it."""
    for hint in hints[:-1]:
        try:
            return _convert(value, hint)
        except ValueError:
            continue
    return _convert(value, hints[-1])


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, for the few types that the sections use."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert_union(value, [a for a in arguments if a is not type(None)])
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(_convert(item, arguments[0]) for item in items if item != "")
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if isinstance(value, bool):
        raise ValueError(f"expected {hint.__name__}")
    if hint is str:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if not files.is_utf8(text):
            raise ValueError("expected a name in UTF-8; rename it")
        return text
    try:
        converted = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {hint.__name__}") from None
    if hint is int and isinstance(value, float) and converted != value:
        raise ValueError("expected a whole number")
    return converted
