"""Configuration: sources, bounds, what a mistake is told, and the way to TOML and back."""

from __future__ import annotations

import sys

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_trgl.config import (
    RunConfig,
    differences,
    parse_epochs,
    parse_setting,
    read_profile,
    read_toml,
    resolve,
)
from edge_trgl.runtime.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_later_sources_win_value_by_value():
    profile = {"train": {"lr": 0.1, "batch_size": 8, "seed": 3}}
    file = {"train": {"lr": 0.2, "batch_size": 16}, "model": {"width": 8}}
    flags = {"train": {"lr": 0.3}}
    config = resolve(profile, file, flags)
    assert (config.train.lr, config.train.batch_size, config.train.seed) == (0.3, 16, 3)
    assert config.model.width == 8
    assert config.train.momentum == RunConfig().train.momentum
    assert resolve(flags, profile).train.lr == 0.1


def test_nothing_given_is_the_defaults():
    assert resolve() == RunConfig()
    assert RunConfig().problems() == []


def test_sources_are_not_changed():
    first, second = {"train": {"lr": 0.1}}, {"train": {"lr": 0.2}}
    resolve(first, second)
    assert (first, second) == ({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}})


# Section, name, values at the bound that are taken, values past it that are not.
BOUNDS = [
    ("data", "validation", [0.001, 0.999], [0, 1, -0.1, 1.5]),
    ("data", "crop_padding", [0], [-1]),
    ("model", "width", [2, 4], [0, 1, 3, -2]),
    ("model", "modules", [1], [0, -1]),
    ("train", "laps", [1], [0]),
    ("train", "batch_size", [1], [0]),
    ("train", "views", [1], [0]),
    ("train", "lr", [1e-9], [0, -0.1, float("nan")]),
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
    assert {text.split()[0] for text in caught.value.message.split("; ")} == {f"{section}.{name}"}
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"train": {"laps": 2}}, "train.laps above 1 is for train.regime multi-lap"),
        (
            {"train": {"laps": 5, "regime": "multi-lap", "epochs": "4"}},
            "train.epochs must be at least one a lap",
        ),
        ({"model": {"partition": "weight"}}, "model.partition weight needs model.modules"),
        ({"train": {"epochs": "50+10k"}}, "parallel trains every module for the same number"),
        (
            {"train": {"epochs": "5,6", "regime": "end-to-end"}},
            "end-to-end trains every module for the same number",
        ),
        (
            {"train": {"regime": "sequential"}, "budget": {"chunk": "4"}},
            "budget.chunk is for parallel training, or without a cache; train.regime is sequential",
        ),
        (
            {"train": {"regime": "end-to-end", "cache": False}, "budget": {"chunk": "4"}},
            "train.regime is end-to-end",
        ),
        (
            {"budget": {"resident": "1", "without": ["paging"]}},
            "budget.resident says nothing with budget.without paging",
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
        {"train": {"regime": "sequential", "cache": False}, "budget": {"chunk": "epoch"}},
        {"train": {"regime": "end-to-end"}, "model": {"modules": 1}},
        {"model": {"partition": "weight", "modules": 3}},
    ],
)
def test_what_goes_together_is_taken(source):
    config = resolve(source)
    for section, values in source.items():
        assert {name: getattr(getattr(config, section), name) for name in values} == values


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"train": {"batchsize": 8}}, "train.batchsize is not known, did you mean train.batch_size?"),
        ({"trian": {"lr": 8}}, "trian is not known, did you mean train?"),
        ({"zzz": {}}, "zzz is not known; known: data, model, train, transport, budget, board"),
        ({"train": 5}, "train must be a section, [train]"),
        (
            {"train": {"regime": "serial"}},
            "train.regime = 'serial': choose one of parallel, multi-lap, sequential, end-to-end",
        ),
        ({"train": {"batch_size": "many"}}, "train.batch_size = 'many': expected int"),
        ({"train": {"batch_size": 2.5}}, "train.batch_size = 2.5: expected a whole number"),
        ({"train": {"batch_size": True}}, "train.batch_size = True: expected int"),
        ({"train": {"lr": "fast"}}, "train.lr = 'fast': expected float"),
        ({"data": {"augment": "yes"}}, "data.augment = 'yes': expected true or false"),
        ({"data": {"augment": 1}}, "data.augment = 1: expected true or false"),
        ({"model": {"downsample": [1, "x"]}}, "model.downsample = [1, 'x']: expected int"),
        ({"budget": {"allow": ["fp16"]}}, "budget.allow = ['fp16']: choose one of micro-batch, fp16-boundaries"),
    ],
)
def test_mistakes_are_told_by_the_dotted_name(source, message):
    with pytest.raises(UsageError) as caught:
        resolve(source)
    assert caught.value.message == message


def test_all_mistakes_of_form_are_told_at_once():
    source = {"train": {"lr": "fast", "batchsize": 8, "regime": "serial"}, "budget": {"mb": []}, "zzz": {}}
    with pytest.raises(UsageError) as caught:
        resolve(source, {"model": 3})
    assert len(caught.value.message.split("; ")) == 7  # zzz has its own list of what is known
    for name in ("train.lr", "train.batchsize", "train.regime", "budget.mb", "zzz", "model must be"):
        assert name in caught.value.message


def test_all_values_out_of_bounds_are_told_at_once():
    source = {
        "data": {"validation": 2},
        "model": {"width": 3},
        "train": {"lr": 0, "momentum": 1, "epochs": "x", "laps": 0},
        "transport": {"tau": 0, "every": 0},
        "budget": {"mb": 0},
    }
    with pytest.raises(UsageError) as caught:
        resolve(source)
    told = {text.split()[0] for text in caught.value.message.split("; ")}
    assert told == {f"{section}.{name}" for section, values in source.items() for name in values}


def test_mistakes_of_both_kinds_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        resolve({"train": {"lr": -1, "batchsize": 8}})
    assert "train.lr" in caught.value.message
    assert "train.batchsize" in caught.value.message


@pytest.mark.parametrize(
    "source",
    [{"budget": {"chunk": "²"}}, {"train": {"batch_size": float("inf")}}],
)
def test_odd_numbers_are_a_users_mistake(source):
    with pytest.raises(UsageError):
        resolve(source)


def test_a_large_seed_is_a_whole_number():
    assert resolve({"train": {"seed": 2**53 + 1}}).train.seed == 2**53 + 1


def test_values_are_converted_as_text_files_and_flags_give_them():
    config = resolve({"train": {"epochs": 30, "lr": 1}, "model": {"downsample": "2,5", "modules": 4.0}})
    assert (config.train.epochs, config.model.downsample, config.model.modules) == ("30", (2, 5), 4)
    assert isinstance(config.train.lr, float)
    assert resolve({"model": {"downsample": []}}).model.downsample == ()
    assert resolve({"budget": {"allow": ["micro-batch"]}}).budget.allow == ("micro-batch",)


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
        ("", 2, "'' is not a number, a form like 50"),
        ("x", 2, "'x' is not a number"),
        ("10k", 2, "'10k' is not a number"),
        ("5+k", 2, "is not a number"),
        ("1.5", 2, "is not a number"),
        ("5,6,", 3, "is not a number"),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.momentum=0.8", {"train": {"momentum": 0.8}}),
        ("train.batch_size = 8", {"train": {"batch_size": 8}}),
        ("data.flip=false", {"data": {"flip": False}}),
        ("model.downsample=[1, 2]", {"model": {"downsample": [1, 2]}}),
        ('model.name="a:b"', {"model": {"name": "a:b"}}),
        ("model.name=my.nets:make", {"model": {"name": "my.nets:make"}}),
        ("train.epochs=50+10k", {"train": {"epochs": "50+10k"}}),
        ("data.source=a=b", {"data": {"source": "a=b"}}),
    ],
)
def test_settings(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["train.lr", "lr=0.1", "=", "train", ""])
def test_settings_of_another_form_are_refused(text):
    with pytest.raises(UsageError, match=r"expected section\.key=value"):
        parse_setting(text)


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
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_document_comes_back_from_toml_as_the_same_configuration(source):
    config = resolve(source)
    document = tomllib.loads(tomli_w.dumps(config.document()))
    assert document == config.document()
    assert resolve(document) == config


def test_a_document_names_every_value_but_none():
    document = RunConfig().document()
    assert set(document) == {"data", "model", "train", "transport", "budget", "board"}
    assert "limit" not in document["data"]
    assert document["budget"]["allow"] == []
    assert resolve({"data": {"limit": 7}}).document()["data"]["limit"] == 7


def test_differences_name_both_values():
    old = resolve({"train": {"lr": 0.1}, "data": {"limit": 10}}).document()
    new = resolve({"train": {"lr": 0.2}, "model": {"modules": 4}}).document()
    assert differences(old, new) == [
        "data.limit: 10 in the run, None now",
        "model.modules: None in the run, 4 now",
        "train.lr: 0.1 in the run, 0.2 now",
    ]
    assert differences(old, old) == []
    assert differences({}, {"train": {"lr": 1}}) == ["train.lr: None in the run, 1 now"]


def test_a_file_is_read(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[train]\nlr = 0.5\n")
    assert read_toml(path) == {"train": {"lr": 0.5}}


@pytest.mark.parametrize("content", [b"[train", b"lr = \xff", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"job\.toml cannot be read as TOML"):
        read_toml(path)


def test_profiles_by_name_and_by_file(tmp_path):
    assert resolve(read_profile("generic")).train.precision == "fp32"
    path = tmp_path / "board.toml"
    path.write_text("ram_mb = 1024\n[defaults.train]\nbatch_size = 8\n")
    assert read_profile(str(path)) == {"train": {"batch_size": 8}}
    path.write_text("ram_mb = 1024\n")
    assert read_profile(str(path)) == {}


def test_an_unknown_profile_lists_those_that_there_are():
    with pytest.raises(UsageError, match="there is no profile 'toaster'") as caught:
        read_profile("toaster")
    assert "generic" in caught.value.hint
