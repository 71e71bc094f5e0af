"""The page of results is the one that its files give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.results.markdown import percent, table
from tools.results.page import FILE, page


def test_the_page_is_not_stale():
    assert FILE.read_text() == page(), "run `python -m tools.results`"


def test_every_file_of_results_is_on_the_page():
    linked = set(re.findall(r"\]\((.*?\.(?:json|png))\)", page()))
    assert linked == {path.name for path in FILE.parent.iterdir() if path.suffix in (".json", ".png")}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"python -m (tools[\w.]*)", FILE.read_text()))))
def test_every_command_on_the_page_is_there(name):
    path = Path(*name.split("."))
    root = FILE.parents[2]
    assert (root / path.with_suffix(".py")).is_file() or (root / path / "__main__.py").is_file()


def test_a_table_has_a_rule_that_aligns_its_columns():
    assert table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | --: |\n| x | 1 |"


def test_a_fraction_is_told_in_percent():
    assert percent((0.5, 0.01)) == "50.00 ± 1.00"
    assert percent((-0.015, None), signed=True) == "−1.50"
    assert percent(None) == "–"
