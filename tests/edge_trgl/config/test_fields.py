"""Fields of the configuration: bounds, and how they read."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from edge_trgl.config.fields import Bounds, Setting, expected, settings_of
from edge_trgl.config.sections import SECTIONS


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(), [-math.inf, 0, math.inf], [math.nan]),
        (Bounds(at_least=1), [1, 2, math.inf], [0.999, math.nan]),
        (Bounds(above=0, below=math.inf), [1e-300, 1e300], [0, math.inf, math.nan]),
        (Bounds(above=0, at_most=1), [0.5, 1], [0, 1.01]),
        (Bounds(at_least=2, multiple_of=2), [2, 4], [0, 3]),
    ],
)
def test_bounds(bounds, inside, outside):
    assert all(map(bounds.contain, inside))
    assert not any(map(bounds.contain, outside))


@pytest.mark.parametrize(
    ("hint", "about", "words"),
    [
        (float, {}, "a number"),
        (int | None, {"bounds": Bounds(at_least=1)}, "a whole number of at least 1"),
        (int, {"bounds": Bounds(at_least=2, multiple_of=2)}, "an even whole number of at least 2"),
        (float, {"bounds": Bounds(above=0, below=math.inf)}, "a finite number above 0"),
        (float, {"bounds": Bounds(at_most=9)}, "a number of at most 9"),
        (float, {"bounds": Bounds(at_least=0, below=1)}, "a number of at least 0 and below 1"),
        (Literal["auto", "min"] | float, {"bounds": Bounds(above=0)}, "auto, min or a number above 0"),
        (Literal["sgd", "adamw"], {}, "sgd or adamw"),
        (bool, {}, "true or false"),
        (str, {}, "text"),
        (str, {"form": "auto or a number of modules"}, "auto or a number of modules"),
        (tuple[str, ...], {}, "a list of names"),
        (tuple[Literal["a", "b"], ...], {}, "any of a, b"),
        (tuple[int, ...], {"bounds": Bounds(at_least=1)}, "a list of whole numbers, each at least 1"),
        (
            tuple[float, ...],
            {"bounds": Bounds(at_least=0, below=1), "length": 2},
            "two numbers, each at least 0 and below 1",
        ),
    ],
)
def test_what_a_field_takes_in_words(hint, about, words):
    assert expected(hint, Setting(doc="", **about)) == words


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_documents_itself(section):
    for name, about in settings_of(SECTIONS[section]).items():
        assert 0 < len(about.doc) <= 60, name
        assert not about.doc.endswith("."), name
