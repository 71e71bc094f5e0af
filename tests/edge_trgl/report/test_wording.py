"""Numbers as people read them; a no-break space stands between a number and its unit."""

from __future__ import annotations

import pytest

from edge_trgl.report import wording


@pytest.mark.parametrize(
    ("mb", "text"),
    [
        (None, "–"),
        (0, "0 MiB"),
        (0.25, "0.25 MiB"),
        (331.2, "331 MiB"),
        (9000, "9,000 MiB"),
        (20480, "20.0 GiB"),
    ],
)
def test_size(mb, text):
    assert wording.size(mb) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0.0_s"),
        (9.94, "9.9_s"),
        (59.4, "59_s"),
        (59.6, "1_min"),
        (184, "3_min 4_s"),
        (3600, "1_h"),
        (7500, "2_h 5_min"),
        (97200, "1_d 3_h"),
    ],
)
def test_duration(seconds, text):
    assert wording.duration(seconds) == text.replace("_", "\u00a0")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (812.3, "812"), (1000, "1.0_k"), (30.46e6, "30.5_M"), (1.2e9, "1.2_G")]
)
def test_count(value, text):
    assert wording.count(value) == text.replace("_", "\u00a0")


def test_percent_and_number():
    assert wording.percent(0.9198) == "91.98\u00a0%"
    assert wording.percent(None) == wording.number(None) == "–"
    assert wording.number(0.12345) == "0.123"


def test_flatten_keeps_the_order_and_writes_values_as_in_the_file():
    config = {"b": {"c": {"d": [1, True]}, "e": None}, "a": False, "text": "x"}
    assert wording.flatten(config) == [("b.c.d", "[1, true]"), ("b.e", "–"), ("a", "false"), ("text", "x")]


def test_moments_are_those_of_a_clock():
    assert wording.moment(0) == "1970-01-01 00:00:00"
    assert wording.moment(1764114312.7) == "2025-11-25 23:45:12"


@pytest.mark.parametrize(
    ("fraction", "text"), [(None, "–"), (0.0123, "1.23 %"), (3.5e-5, "0.0035 %"), (1.5, "150 %")]
)
def test_shares_have_three_digits(fraction, text):
    assert wording.share(fraction).replace(wording.GAP, " ") == text
