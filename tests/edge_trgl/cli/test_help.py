"""Help texts: the common options of a verb on one screen, every option and what it takes in the full list."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from edge_trgl.cli.command import VERBS, cli, verb_named
from edge_trgl.cli.configured import ConfiguredVerb
from edge_trgl.config.flags import FLAGS, setting_references

COLUMNS = 80
LINES = 40


def shown(verb: str, option: str) -> str:
    """What `edge-trgl VERB OPTION` prints on a terminal of 80 columns."""
    result = CliRunner().invoke(
        cli, [verb, option], prog_name="edge-trgl", terminal_width=COLUMNS, standalone_mode=False
    )
    assert result.exit_code == 0, result.exception
    assert all(len(line) <= COLUMNS for line in result.output.splitlines())
    return result.output


def options_of(verb: str) -> list[str]:
    return [one.opts[0] for one in verb_named(verb).params if isinstance(one, click.Option)]


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_one_screen(verb):
    text = shown(verb, "--help")
    assert len(text.splitlines()) <= LINES
    assert "--help-all lists every option" in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_full_list_has_every_option_and_setting(verb):
    lines = [line.split() for line in shown(verb, "--help-all").splitlines()]
    listed = [words[0] for words in lines if words]
    for option in options_of(verb):
        assert listed.count(option) + sum(word.startswith(f"{option}/--no-") for word in listed) == 1
    if isinstance(verb_named(verb), ConfiguredVerb):
        named = {flag.key for flag in FLAGS}
        for key in setting_references():
            assert listed.count(key) == (key not in named)


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_options_stand_in_groups(verb):
    text = shown(verb, "--help")
    places = [text.index(f"{heading}:\n") for heading in ("Data", "Model", "Training", "Budget", "Output")]
    assert places == sorted(places)


def test_bounds_and_sentences_come_from_the_fields():
    text = " ".join(shown("train", "--help-all").split())
    for key, about in setting_references().items():
        if all(flag.key != key or not flag.doc for flag in FLAGS):
            assert about.doc in text
    assert "learning rate; a finite number above 0 [0.02]" in text
    assert "auto, boundary or none [auto]" in text
