"""Fields of the configuration: each states its default, one sentence of documentation and its bounds."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, TypeVar

from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The numbers that a field takes; NaN is never one of them. Of a list, those that each item may be.

    `at_most` and `below` are exclusive of each other, and so are `at_least` and `above`. `below=math.inf` asks for
    a finite number.
    """

    at_least: float = -math.inf
    above: float | None = None
    at_most: float = math.inf
    below: float | None = None
    multiple_of: int = 1

    def contain(self, number: float) -> bool:
        """Whether a number lies within."""
        return (
            self.at_least <= number <= self.at_most
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.multiple_of == 1 or number % self.multiple_of == 0)
        )

    def words(self) -> str:
        """The bounds as they follow the word "number": ` above 0 and below 1`; empty if there are none."""
        low = f" of at least {self.at_least:g}" if self.at_least > -math.inf else ""
        low = low if self.above is None else f" above {self.above:g}"
        high = f"at most {self.at_most:g}" if self.at_most < math.inf else ""
        high = high if self.below in (None, math.inf) else f"below {self.below:g}"
        return f"{low} and {high}" if low and high else low or f" of {high}" * bool(high)


ANY = Bounds()
AT_LEAST_ONE = Bounds(at_least=1)
NOT_NEGATIVE = Bounds(at_least=0)
POSITIVE = Bounds(above=0)
POSITIVE_FINITE = Bounds(above=0, below=math.inf)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field says of itself.

    Args:
        doc: one sentence without its full stop, short enough for one line of `--help`.
        more: the forms and units that only the full reference needs; may be empty.
        unset: what None or an empty list stands for; empty where the field cannot be either.
        bounds: of a number, or of each number in a list.
        length: the number of items of a list; None for any.
        form: what a text may look like; empty for any text.
        parse: reads a text of that form; raises UsageError, naming the field, where it has another one.
    """

    doc: str
    more: str = ""
    unset: str = ""
    bounds: Bounds = ANY
    length: int | None = None
    form: str = ""
    parse: Callable[[str], object] | None = None


def setting(
    default: T,
    doc: str,
    *,
    more: str = "",
    unset: str = "",
    bounds: Bounds = ANY,
    length: int | None = None,
    form: str = "",
    parse: Callable[[str], object] | None = None,
) -> T:
    """Declare a field of a section: its default, and what `Setting` keeps of it."""
    about = Setting(doc=doc, more=more, unset=unset, bounds=bounds, length=length, form=form, parse=parse)
    return field(default=default, metadata={"setting": about})


def settings_of(section: type[DataclassInstance]) -> dict[str, Setting]:
    """What the fields of a section say of themselves, by name."""
    return {item.name: item.metadata["setting"] for item in fields(section)}


def mistakes_of(name: str, section: DataclassInstance) -> list[str]:
    """A sentence for each field of the section `name` whose value is not one that the field takes."""
    hints = typing.get_type_hints(type(section))
    mistakes = []
    for key, about in settings_of(type(section)).items():
        value = getattr(section, key)
        if isinstance(value, str) and about.parse is not None:
            mistakes += _unreadable(about.parse, value)
        elif not _is_within(about, value):
            mistakes.append(f"{name}.{key} must be {expected(hints[key], about)}, not {shown(value)}")
    return mistakes


def _unreadable(parse: Callable[[str], object], text: str) -> list[str]:
    try:
        parse(text)
    except UsageError as error:
        return [error.message]
    return []


def _is_within(about: Setting, value: object) -> bool:
    if isinstance(value, tuple):
        return about.length in (None, len(value)) and all(_is_within(about, item) for item in value)
    if value is None or isinstance(value, (bool, str)):
        return True
    return about.bounds.contain(typing.cast(float, value))


def shown(value: object) -> str:
    """A value in a message: as the user would write it, text in quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value)


def expected(hint: object, about: Setting) -> str:
    """What a field of the type `hint` takes: `a whole number of at least 1`, `sgd or adamw`."""
    *words, last = _alternatives(hint, about)
    return f"{', '.join(words)} or {last}" if words else last


def words_of(hint: object) -> tuple[str, ...]:
    """The words that a field of the type `hint` takes, or that its items may be; none for any other type."""
    if typing.get_origin(hint) is tuple:
        return words_of(typing.get_args(hint)[0])
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _alternatives(hint: object, about: Setting) -> list[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [words for one in arguments if one is not type(None) for words in _alternatives(one, about)]
    if origin is Literal:
        return list(arguments)
    if origin is tuple:
        return [_list(arguments[0], about)]
    if hint is bool:
        return ["true", "false"]
    if hint is str:
        return [about.form or "text"]
    return [f"{_article(number := _number(hint, about.bounds))} {number}{about.bounds.words()}"]


def _list(item: object, about: Setting) -> str:
    counted = {None: "a list of", 2: "two"}[about.length]
    if words_of(item):
        return f"any of {', '.join(words_of(item))}"
    if item is str:
        return f"{counted} names"
    each = f", each{about.bounds.words().replace(' of', '', 1)}" if about.bounds.words() else ""
    return f"{counted} {_number(item, about.bounds)}s{each}"


def _number(hint: object, bounds: Bounds) -> str:
    kinds = ("finite", bounds.below == math.inf), ("even", bounds.multiple_of == 2), ("whole", hint is int)
    return " ".join([*(word for word, holds in kinds if holds), "number"])


def _article(words: str) -> str:
    return "an" if words.startswith("even") else "a"
