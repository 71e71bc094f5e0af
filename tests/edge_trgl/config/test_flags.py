"""What an option with a name of its own sets, and what is wrong with others."""

from __future__ import annotations

import pytest

from edge_trgl.config.flags import FLAGS, configuration
from edge_trgl.config.sources import parse_setting
from edge_trgl.runtime.errors import UsageError


def test_each_sets_an_option_that_there_is():
    default = configuration({})
    for flag in FLAGS:
        section, _, key = flag.key.partition(".")
        assert hasattr(getattr(default, section), key), flag
    assert len({flag.name for flag in FLAGS}) == len({flag.key for flag in FLAGS}) == len(FLAGS)
    assert configuration({flag.name: None for flag in FLAGS}) == default


def test_what_it_stands_for():
    config = configuration({"budget_mb": 500, "cache": "none", "no_transport": True, "regime": "sequential"})
    assert (config.budget.mb, config.train.cache, config.transport.enabled) == (500, "none", False)
    assert config.train.regime == "sequential"


@pytest.mark.parametrize("flip", [True, False])
def test_a_pair_of_switches_goes_both_ways(flip):
    assert configuration({"flip": flip}, values=[{"data": {"flip": not flip}}]).data.flip is flip
    assert configuration({"flip": None}, values=[{"data": {"flip": flip}}]).data.flip is flip


def test_a_switch_that_is_off_is_not_given():
    settings = [parse_setting("transport.enabled=false")]
    assert not configuration({"no_transport": False}, values=settings).transport.enabled


def test_flags_win_over_values_and_these_over_files(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nepochs = 7\nbatch_size = 8\nlr = 0.5\n")
    values = [{"train": {"batch_size": 4, "lr": 0.25}}]
    train = configuration({"lr": 0.125}, config_file=file, recipe="table14", values=values).train
    assert (train.epochs, train.batch_size, train.lr) == ("7", 4, 0.125)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"budget": 500}, "budget is not an option; did you mean budget_mb"),
        ({"budget_mb": "much"}, "budget.mb"),
        ({"cache": "disk"}, "train.cache"),
        ({"regime": "backwards"}, "train.regime"),
    ],
)
def test_mistakes(flags, text):
    with pytest.raises(UsageError, match=text):
        configuration(flags)
