"""Heads as the user asks for them: names, one for each module, or the fastest."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial

import pytest
from preloaded import command
from torch import nn

from edge_trgl.cli.plan import plan_text
from edge_trgl.config.head_choice import ACCURATE, NAMES, parse_heads
from edge_trgl.config.sources import resolve
from edge_trgl.data import open_dataset
from edge_trgl.engine import from_config
from edge_trgl.engine.open_run import open_run
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.heads import HEADS
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.planning.count import chain_costs, fastest_costs
from edge_trgl.report.gather import gather
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory.limits import Limits

STEP = StepConfig(transport=Transport(tau=0.5))


# ---- names


def test_every_head_has_its_name():
    assert tuple(HEADS) == NAMES


@pytest.mark.parametrize(
    ("text", "names", "auto"),
    [
        ("conv", ("conv",), False),
        ("conv, deep,linear", ("conv", "deep", "linear"), False),
        ("auto", ACCURATE, True),
        ("auto:pooled, linear", ("pooled", "linear"), True),
        (" auto : tokens", ("tokens",), True),
    ],
)
def test_choices(text, names, auto):
    choice = parse_heads(text)
    assert (choice.names, choice.auto) == (names, auto)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pool", "names 'pool', which is not a head; did you mean pooled?"),
        ("conv,lineer", "names 'lineer', which is not a head; did you mean linear?"),
        ("autos", "names 'autos', which is not a head; did you mean auto?"),
        (
            "auto:",
            "names '', which is not a head; choose from conv, deep, linear, lite, mlp, pooled, tokens, auto",
        ),
        ("auto:auto", "names 'auto', which is not a head"),
        ("conv,auto", "names 'auto', which is not a head"),
        ("conv:linear", "names 'conv:linear', which is not a head"),
        ("", "names '', which is not a head"),
    ],
)
def test_what_is_no_choice_is_named(text, message):
    with pytest.raises(UsageError) as caught:
        resolve({"model": {"head": text}})
    assert f"model.head {message}" in caught.value.message
    assert caught.value.exit_code == 2


def test_a_list_of_toml_is_a_list_of_names():
    assert resolve({"model": {"head": ["conv", "linear"]}}).model.heads() == parse_heads("conv,linear")


# ---- of a chain


def _chain(*shapes, **options):
    """A chain of one module for each of `shapes`, which it puts out whatever it reads."""
    blocks = [partial(_Give, shape) for shape in shapes]
    return Chain.from_blocks(blocks, input_shape=(2,), num_classes=3, **options)


class _Give(nn.Module):
    """[B, 2] or any other → [B, *shape], by one linear layer."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(2, shape[0])

    def forward(self, x):
        channels = self.linear(x.flatten(1)[:, :2])
        return channels.view(*channels.shape, *(1,) * (len(self.shape) - 1)).expand(-1, *self.shape).clone()


def test_a_head_for_each_module_is_that_module_s():
    chain = _chain((4, 4), (4, 4), (4,), head=("conv", "pooled", "tokens"))
    assert [type(chain.classifier(k, (4, 4))).__name__ for k in range(3)] == [
        "ConvHead",
        "PooledHead",
        "TokensHead",
    ]
    assert [cost.head for cost in chain_costs(chain, STEP)] == ["conv", "pooled", "tokens"]


def test_regrouped_a_module_has_the_head_of_its_last_block():
    chain = _chain(*[(4,)] * 5, head=("conv", "deep", "linear", "pooled", "tokens"))
    pairs = chain.regroup((0, 2, 4))
    assert pairs.head == ("deep", "pooled", "tokens")
    assert pairs.regroup((0, 1, 2, 3)).head == ("deep", "deep", "pooled", "tokens")
    assert chain.regroup((0,)).head == ("tokens",)
    assert replace(chain, head="conv").regroup((0, 2)).head == "conv"


def test_heads_and_modules_are_as_many():
    with pytest.raises(ValueError, match="blocks has 3 modules; 2 heads are given"):
        _chain((4,), (4,), (4,), head=("conv", "linear"))


# ---- the fastest

ALLOWED = ("conv", "deep", "pooled")


def test_auto_finds_the_best_of_all_combinations():
    # Many channels make convolutions slow; behind few they are faster than the many layers of the pooled head.
    chain = _chain((64, 200), (8, 1))
    every = itertools.product(ALLOWED, repeat=2)
    best = min(every, key=lambda heads: sum(c.seconds(16) for c in chain_costs(replace(chain, head=heads), STEP)))
    found = tuple(cost.head for cost in fastest_costs(chain, STEP, 16, ALLOWED))
    assert found == best
    assert len(set(found)) == 2
    assert fastest_costs(chain, STEP, 16, ALLOWED) == chain_costs(replace(chain, head=found), STEP)


def test_the_fastest_depends_on_the_batch():
    chain = _chain((64, 16))
    heads = [fastest_costs(chain, STEP, size, ("conv", "pooled"))[0].head for size in (2, 512)]
    assert heads == ["conv", "pooled"]


def test_auto_passes_over_heads_that_cannot_read_an_output():
    costs = fastest_costs(_chain((4, 4, 4), (4,)), STEP, 16, ("pooled", "tokens"))
    assert [cost.head for cost in costs][1] == "tokens"
    with pytest.raises(UsageError, match=r"module 1 of blocks: the pooled head reads maps") as caught:
        fastest_costs(_chain((4, 4, 4), (4,)), STEP, 16, ("pooled", "conv"))
    assert "--head linear" in caught.value.hint


@pytest.mark.parametrize("shape", [(16, 14, 14), (64, 8, 8), (8, 50), (4,), (4, 2, 3, 2)])
def test_auto_alone_has_a_head_for_any_output(shape):
    # A convolution costs more than the operations that all of them have in common.
    assert fastest_costs(_chain(shape), STEP, 32, parse_heads("auto").names)[0].head == "lite"


def test_of_equals_the_one_with_fewer_weights_is_taken(monkeypatch):
    monkeypatch.setattr("edge_trgl.planning.count.ModuleCost.least", lambda cost, batch_size: 1)
    monkeypatch.setattr("edge_trgl.planning.count.ModuleCost.seconds", lambda cost, batch_size: 1.0)
    assert fastest_costs(_chain((4, 4, 4)), STEP, 16, NAMES)[0].head == "linear"


# ---- of a run

FACTORY = """
from dataclasses import replace
from functools import partial
from torch import nn
from edge_trgl.networks.chain import Chain
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.runtime.memory.limits import Limits

def make(input_shape, num_classes):
    blocks = [partial(nn.Conv2d, input_shape[0], 4, 3), partial(nn.Conv2d, 4, 4, 3)]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, head="tokens")
"""


def _heads(run):
    """The heads that training builds."""
    return [type(open_run(run).factory.build(module).head).__name__ for module in range(3)]


def test_the_heads_that_auto_finds_are_kept_with_the_run(plan_run, finish):
    run = plan_run("auto", model__head="auto:conv,pooled,deep")
    facts = run.facts()
    layout = facts.planned.layout
    facts.close()
    assert set(layout.heads) <= {"conv", "pooled", "deep"}
    named = plan_run("named", model__head=",".join(layout.heads))
    assert _heads(run) == _heads(named)
    assert finish(run).sha256 == finish(named).sha256
    facts = run.facts()
    assert [row.head for row in gather(run, facts).modules] == list(layout.heads)
    facts.close()


def test_each_module_of_a_run_has_the_head_that_is_named_for_it(plan_run):
    assert _heads(plan_run("each", model__head="deep,linear,tokens")) == ["DeepHead", "LinearHead", "TokensHead"]
    assert _heads(plan_run("own")) == ["ConvHead"] * 3
    assert _heads(
        plan_run("weight", model__modules=3, model__partition="weight", model__head="deep,linear,conv")
    ) == [
        "DeepHead",
        "LinearHead",
        "ConvHead",
    ]


def test_end_to_end_has_the_last_of_the_heads(plan_run):
    run = plan_run("whole", model__head="deep,linear,tokens", train__regime="end-to-end")
    facts = run.facts()
    layouts = facts.counted.layouts
    facts.close()
    assert {layout.heads for layout in layouts} == {("tokens",), (None, None, "tokens")}


def test_a_factory_s_own_heads_unless_others_are_named(plan_run, tmp_path, monkeypatch):
    (tmp_path / "own_heads.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    info = open_dataset(plan_run("data").data)
    for head, expected in (
        (None, "tokens"),
        ("deep", "deep"),
        ("conv,deep", ("conv", "deep")),
        ("auto", "tokens"),
    ):
        config = resolve({"model": {"name": "own_heads:make", "head": head}})
        assert from_config.make_chain(config, info).head == expected


def test_heads_of_another_number_than_modules_are_refused(plan_run):
    with pytest.raises(UsageError, match=r"--head lists 2 heads for the 3 modules of km-3-1") as caught:
        plan_run("few", model__head="conv,linear")
    assert caught.value.exit_code == 2


def _command(folder, *arguments):
    small = ("--model", "km-3-1", "--width", "4", "--batch-size", "16", "--threads", "1", "--set", "data.limit=80")
    return command(folder, *arguments, *small)


def test_a_run_with_a_head_for_each_module(tmp_path):
    flags = ("--head", "pooled,tokens,deep", "--no-probe", "--epochs", "1", "--run", "each", "--export", "--json")
    trained = _command(tmp_path, "train", *flags)
    assert trained.returncode == 0, trained.stderr
    assert len(json.loads(trained.stdout)["accuracy"]["per_depth"]) == 3
    assert 'head = "pooled,tokens,deep"' in (tmp_path / "each" / "run.toml").read_text()


def test_the_plan_tells_the_heads(tmp_path):
    options = ("--head", "auto:linear,deep", "--no-probe")
    planned = _command(tmp_path, "plan", *options, "--json")
    assert planned.returncode == 0, planned.stderr
    document = json.loads(planned.stdout)
    assert [row["head"] for row in document["table"]] == ["linear"] * 3 == document["layout"]["heads"]
    told = _command(tmp_path, "plan", *options)
    assert told.stdout.count(", linear head\n") == 3


def test_a_module_without_a_head_has_none_in_the_table(plan_run):
    facts = plan_run("run").facts()
    planned = facts.planned
    facts.close()
    table = (replace(planned.table[0], head=None), *planned.table[1:])
    run = PlannedRun(
        limits=Limits(budget_mb=1e5),
        disk_mb=1e6,
        data=None,
        planned=replace(planned, table=table),
        phases=(),
        parent_mb=14.0,
        engine_mb=10.0,
    )
    assert plan_text(run).count(" head\n") == 2


@pytest.mark.parametrize(
    ("head", "message"), [("pool", "did you mean pooled"), ("conv,linear", "2 heads for the 3 modules")]
)
def test_wrong_heads_are_a_mistake_of_usage(tmp_path, head, message):
    refused = _command(tmp_path, "plan", "--head", head)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
