"""The sections: bounds, what goes together, epochs, and the way to TOML and back."""

from __future__ import annotations

import sys

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.config.sections import RunConfig
from edge_trgl.config.sources import resolve
from edge_trgl.runtime.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# Section, name, values at the bound that are taken, values past it that are not.
BOUNDS = [
    ("data", "validation", [0.001, 0.999], [0, 1, -0.1, 1.5]),
    ("data", "crop_padding", [0], [-1]),
    ("model", "width", [2, 4], [0, 1, 3, -2]),
    ("model", "modules", [1], [0, -1]),
    ("train", "laps", [1], [0]),
    ("train", "batch_size", [1], [0]),
    ("train", "views", [1], [0]),
    ("train", "grow_patience", [1], [0]),
    ("train", "lr", [1e-9], [0, -0.1, float("nan")]),
    ("train", "lr_factor", [1e-9, 2], [0, -0.1, float("nan")]),
    ("train", "lr_milestones", [(1,), (120, 160)], [(0,), (3, -1)]),
    ("train", "warmup_epochs", [0, 9], [-1, 10]),
    ("train", "betas", [(0, 0), (0.9, 0.999)], [(0.9,), (0.9, 1), (-0.1, 0.9), (0.9, 0.9, 0.9)]),
    ("train", "momentum", [0, 0.999], [-0.1, 1, float("nan")]),
    ("train", "weight_decay", [0], [-1e-9]),
    ("train", "label_smoothing", [0, 0.999], [-0.1, 1]),
    ("train", "checkpoint_minutes", [0], [-1]),
    ("train", "threads", [1], [0]),
    ("train", "epochs", [1], [0, -3, "0"]),
    ("transport", "tau", [1e-9], [0, -1]),
    ("transport", "lambda_first", [1e-9], [0]),
    ("transport", "growth", [0], [-0.1]),
    ("transport", "every", [1], [0]),
    ("budget", "mb", [0.1], [0, -5]),
    ("budget", "chunk", ["auto", "epoch", "1", 12], ["0", "-1", "many", "1.5", ""]),
    ("budget", "resident", ["auto", "1", 3], ["0", "epoch", "-1"]),
]


@pytest.mark.parametrize(("section", "name", "value"), [(s, n, v) for s, n, good, _ in BOUNDS for v in good])
def test_values_at_a_bound_are_taken(section, name, value):
    found = getattr(getattr(resolve({section: {name: value}}), section), name)
    assert str(found) == str(value) or found == value


@pytest.mark.parametrize(("section", "name", "value"), [(s, n, v) for s, n, _, bad in BOUNDS for v in bad])
def test_values_past_a_bound_are_named(section, name, value):
    with pytest.raises(UsageError) as caught:
        resolve({section: {name: value}})
    assert {text.split()[0] for text in caught.value.message.splitlines()} == {f"{section}.{name}"}
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"train": {"grow": True}, "model": {"shared_head": True}},
            "train.grow drops modules, and model.shared_head goes through all of them",
        ),
        (
            {"train": {"grow": True, "regime": "end-to-end"}},
            "train.grow needs a regime that trains module by module, not end-to-end",
        ),
        (
            {"train": {"grow": True, "regime": "multi-lap", "laps": 2, "epochs": "4"}},
            "train.grow needs one lap: with train.laps 2 every module is trained in the first",
        ),
        (
            {"train": {"grow": True, "regime": "sequential"}, "data": {"choose_on": "half-test"}},
            "train.grow looks at validation images in training, and data.choose_on is half-test",
        ),
        (
            {"train": {"grow": True, "regime": "sequential", "recalibrate": True}},
            "train.grow stops before the passes over all modules that train.recalibrate asks for",
        ),
        ({"train": {"laps": 2}}, "train.laps 2 needs train.regime multi-lap, not parallel"),
        (
            {"train": {"laps": 5, "regime": "multi-lap", "epochs": "4"}},
            "train.epochs must be at least one per lap, and train.laps is 5",
        ),
        (
            {"train": {"laps": 2, "regime": "multi-lap", "epochs": "5"}},
            "train.epochs 5 cannot be spread evenly over train.laps 2",
        ),
        (
            {"train": {"laps": 4, "regime": "multi-lap", "epochs": "8+2k"}},
            "train.epochs 8+2k cannot be spread evenly over train.laps 4",
        ),
        (
            {"train": {"laps": 2, "regime": "multi-lap", "epochs": "4,6,7"}},
            "train.epochs 4,6,7 cannot be spread evenly over train.laps 2",
        ),
        (
            {"train": {"views": 2}},
            "train.views 2 asks for augmented copies of what is cached; train.regime parallel caches nothing",
        ),
        (
            {"train": {"views": 2, "regime": "sequential", "cache": "none"}},
            "train.regime sequential caches nothing with train.cache none",
        ),
        (
            {"train": {"views": 2, "freeze": 1}, "data": {"augment": False}},
            "train.views 2 asks for augmented copies of what is cached; data.augment is false",
        ),
        ({"model": {"gain": 0}}, "model.gain must be a finite number above 0, not 0.0"),
        ({"model": {"partition": "weight"}}, "model.partition weight needs model.modules"),
        ({"train": {"lr_schedule": "steps"}}, "train.lr_schedule steps needs train.lr_milestones"),
        (
            {"train": {"prefix": "train-mode", "cache": "boundary"}},
            "train.prefix train-mode caches nothing; train.cache asks for boundary",
        ),
        ({"train": {"epochs": "50+10k"}}, "train.epochs must be one number, not '50+10k': train.regime parallel"),
        (
            {"train": {"epochs": "5,6", "regime": "end-to-end"}},
            "train.epochs must be one number, not '5,6': train.regime end-to-end",
        ),
        (
            {"train": {"epochs": "9,3", "regime": "sequential", "warmup_epochs": 3}},
            "train.warmup_epochs must be fewer than train.epochs",
        ),
        (
            {"train": {"regime": "sequential"}, "budget": {"chunk": "4"}},
            "budget.chunk 4 needs parallel training or train.cache none; train.regime is sequential",
        ),
        (
            {"train": {"regime": "end-to-end", "cache": "none"}, "budget": {"chunk": "4"}},
            "train.regime is end-to-end",
        ),
        (
            {"model": {"shared_head": True}, "train": {"regime": "sequential"}},
            "model.shared_head needs parallel training; train.regime is sequential",
        ),
        (
            {"model": {"shared_head": True}, "budget": {"chunk": "8"}},
            "model.shared_head needs budget.chunk 1, not 8",
        ),
        (
            {"model": {"shared_head": True}, "budget": {"resident": "2"}},
            "model.shared_head keeps all modules in memory; budget.resident must be auto, not 2",
        ),
        (
            {"model": {"shared_head": True, "head": "conv,linear"}},
            "model.shared_head needs one classifier, and model.head asks for conv,linear",
        ),
        (
            {"model": {"shared_head": True, "head": "auto"}},
            "model.shared_head needs one classifier, and model.head asks for auto",
        ),
        (
            {"budget": {"resident": "1", "without": ["paging"]}},
            "budget.resident 1 has no effect with budget.without paging",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(source, message):
    with pytest.raises(UsageError) as caught:
        resolve(source)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        {"train": {"regime": "multi-lap", "laps": 5, "epochs": "5"}},
        {"train": {"regime": "sequential", "epochs": "50+10k"}},
        {"train": {"regime": "sequential", "cache": "none"}, "budget": {"chunk": "epoch"}},
        {"train": {"regime": "sequential", "cache": "none", "prefix": "train-mode"}},
        {"train": {"lr_schedule": "steps", "lr_milestones": (120, 160, 200)}},
        {"train": {"regime": "end-to-end"}, "model": {"modules": 1}},
        {"model": {"partition": "weight", "modules": 3}},
        {"model": {"shared_head": True, "head": "conv,conv"}, "budget": {"chunk": "1", "without": ("paging",)}},
    ],
)
def test_what_goes_together_is_taken(source):
    config = resolve(source)
    for section, values in source.items():
        assert {name: getattr(getattr(config, section), name) for name in values} == values


@pytest.mark.parametrize(
    ("text", "num_modules", "expected"),
    [
        ("30", 3, (30, 30, 30)),
        (" 30 ", 1, (30,)),
        ("50+10k", 4, (50, 60, 70, 80)),
        ("5,6,7", 3, (5, 6, 7)),
        ("5, 6", 2, (5, 6)),
        ("9", 1, (9,)),
    ],
)
def test_epochs(text, num_modules, expected):
    assert parse_epochs(text, num_modules) == expected


def test_the_papers_epochs_come_to_950():
    assert sum(parse_epochs("50+10k", 10)) == 950
    assert 5 * sum(parse_epochs("10+2k", 10)) == 950


@pytest.mark.parametrize(
    ("text", "num_modules", "message"),
    [
        ("", 2, "must be a number, a form like 50+10k, or a list like 5,6,7, not ''"),
        ("x", 2, "not 'x'"),
        ("10k", 2, "not '10k'"),
        ("5+k", 2, "not '5+k'"),
        ("1.5", 2, "not '1.5'"),
        ("5,6,", 3, "not '5,6,'"),
        ("5,6,7", 2, "lists 3 numbers for 2 modules"),
        ("0", 2, "must be at least 1"),
        ("5,0", 2, "must be at least 1"),
        ("2+-1k", 3, "must be at least 1"),
    ],
)
def test_epochs_that_are_none(text, num_modules, message):
    with pytest.raises(UsageError, match=r"train\.epochs") as caught:
        parse_epochs(text, num_modules)
    assert message in caught.value.message


TEXT = st.text('ab7:/.=é"\\ \n')
FRACTIONS = st.floats(0.01, 0.9, allow_subnormal=False)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries(
            {}, optional={"source": TEXT, "limit": st.integers(1, 2**40), "validation": FRACTIONS}
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={"name": TEXT, "downsample": st.lists(st.integers(0, 9)), "modules": st.integers(1, 2**40)},
        ),
        "train": st.fixed_dictionaries(
            {}, optional={"lr": FRACTIONS, "seed": st.integers(-(2**40), 2**40), "threads": st.integers(1, 64)}
        ),
        "budget": st.fixed_dictionaries(
            {}, optional={"allow": st.just(["micro-batch"]), "chunk": st.just("epoch")}
        ),
    },
)


@given(CONFIGS)
def test_a_document_comes_back_from_toml_as_the_same_configuration(source):
    config = resolve(source)
    document = tomllib.loads(tomli_w.dumps(config.document()))
    assert document == config.document()
    assert resolve(document) == config


def test_a_document_names_every_value_but_none():
    document = RunConfig().document()
    assert set(document) == {"data", "model", "train", "transport", "loss", "budget", "board"}
    assert "limit" not in document["data"]
    assert document["budget"]["allow"] == []
    assert resolve({"data": {"limit": 7}}).document()["data"]["limit"] == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"loss": {"beta": 0.0}}, "loss.beta must be a number above 0 and at most 1, not 0.0"),
        ({"loss": {"lambda1": [1.0]}}, "loss.lambda1 must be two finite numbers, each at least 0, not [1.0]"),
        (
            {"loss": {"lambda2": [1.0, -1.0]}},
            "loss.lambda2 must be two finite numbers, each at least 0, not [1.0, -1.0]",
        ),
        ({"loss": {"lambda1": [0.0, 1.0], "lambda2": [0.0, 1.0]}}, "must not both be 0"),
        (
            {"loss": {"name": "infoproo"}},
            "must be cross-entropy, predsim, infopro, infopro-contrast or autoencoder, not 'infoproo'",
        ),
        ({"loss": {"name": "predsim"}, "train": {"regime": "end-to-end"}}, "loss.name predsim is a local loss"),
        (
            {"loss": {"name": "infopro-contrast"}, "budget": {"allow": ["micro-batch"]}},
            "budget.allow micro-batch excludes loss.name infopro-contrast",
        ),
    ],
)
def test_losses_that_cannot_be(source, message):
    with pytest.raises(UsageError) as caught:
        resolve(source)
    assert message in caught.value.message


def test_reconstruction_goes_with_micro_batches():
    config = resolve({"loss": {"name": "infopro", "lambda1": "2,1"}, "budget": {"allow": ["micro-batch"]}})
    assert config.loss.lambda1 == (2.0, 1.0)


@pytest.mark.parametrize(
    ("train", "data", "caches"),
    [
        ({"regime": "sequential"}, {}, True),
        ({"regime": "sequential", "prefix": "train-mode"}, {}, False),
        ({"freeze": 1}, {}, False),
        ({"freeze": 1}, {"augment": False}, True),
        ({"freeze": 1, "views": 2}, {}, True),
        ({"freeze": 1, "cache": "boundary"}, {}, True),
        ({"freeze": 1, "cache": "none"}, {"augment": False}, False),
        ({"freeze": 1, "prefix": "train-mode"}, {"augment": False}, False),
    ],
)
def test_nothing_is_cached_where_that_would_freeze_augmentation(train, data, caches):
    config = resolve({"train": train, "data": data})
    assert config.caches == caches
