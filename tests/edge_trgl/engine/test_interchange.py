"""Parallel training in any order of its grid gives the same bits: the loop nest may be interchanged."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from plans import PLENTY, lay_out

pytestmark = pytest.mark.slow  # each trains several times

PLAIN_NET = '''
from torch import nn

from edge_trgl.networks.chain import Chain
from plans import PLENTY, lay_out
from dataclasses import replace


def head_to_tail(blocks, input_shape, num_classes):
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, num_modules=3)


def dropout(input_shape, num_classes):
    """No batch norm; plain nn.Dropout, which draws from the default generator."""
    block = lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Dropout(0.3))
    first = lambda: nn.Sequential(nn.Conv2d(input_shape[0], 4, 3, stride=2), nn.Tanh())
    return head_to_tail([first, block, block, block], input_shape, num_classes)


def built(input_shape, num_classes):
    """Blocks that carry weights of their own, with batch norm and dropout."""
    import torch

    torch.manual_seed(7)
    first = nn.Sequential(nn.Conv2d(input_shape[0], 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2))
    last = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(36, 20), nn.ReLU())
    return head_to_tail(nn.Sequential(first, block, last), input_shape, num_classes)
'''

LAYOUTS = [
    {"budget__chunk": chunk, "budget__resident": resident, "budget__prefetch": prefetch}
    for chunk, (resident, prefetch) in itertools.product(
        ("1", "8", "epoch"), (("3", False), ("1", False), ("1", True))
    )
]


@pytest.fixture(autouse=True)
def _user_nets(tmp_path, monkeypatch):
    (tmp_path / "user_nets.py").write_text(PLAIN_NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "user_nets", raising=False)


FEW = LAYOUTS[::4]
"""Each chunk once, and each way to keep modules."""


@pytest.mark.parametrize(
    ("net", "layouts"),
    [("km-3-1", LAYOUTS), ("km-3-2", FEW), ("user_nets:dropout", FEW), ("user_nets:built", FEW)],
)
def test_every_layout_gives_the_same_weights(train_run, net, layouts):
    hashes = {
        str(number): train_run(f"layout{number}", model__name=net, **layout).sha256
        for number, layout in enumerate(layouts)
    }
    assert len(set(hashes.values())) == 1, hashes


def test_every_layout_gives_the_same_weights_with_adamw(train_run):
    settings = {"train__optimizer": "adamw", "train__lr": 0.002, "train__warmup_epochs": 1}
    hashes = {train_run(f"layout{number}", **settings, **layout).sha256 for number, layout in enumerate(FEW)}
    assert len(hashes) == 1
    assert train_run("sgd").sha256 not in hashes


def test_weights_depend_on_the_seed(train_run):
    assert train_run("a", train__seed=0).sha256 != train_run("b", train__seed=1).sha256


@pytest.fixture
def large_files(monkeypatch):
    """Every boundary on disk is a large file of many chunks."""
    from edge_trgl.runtime.storage import boundary_spec

    monkeypatch.setattr(boundary_spec, "LARGE_FILE_BYTES", 1)
    monkeypatch.setattr(boundary_spec, "CHUNK_BYTES", 4096)


def test_placement_and_recompute_change_nothing(plan_run):
    from edge_trgl.engine import training
    from edge_trgl.engine.open_run import open_run

    def trained(name, **changes):
        run = plan_run(name, model__name="km-2-2", budget__chunk="2")
        facts = run.facts()
        lay_out(facts, **changes)
        facts.close()
        return training.train(open_run(run), limits=PLENTY, others_mb=0.0).weights_sha256

    hashes = {
        (placement, recompute): trained(f"{placement} {recompute}", placement=placement, recompute=recompute)
        for placement in ("memory", "disk")
        for recompute in ("none", "norms", "blocks")
    }
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize(
    "settings",
    [
        {"train__regime": "multi-lap", "train__laps": 2, "train__views": 2},
        {"train__regime": "multi-lap", "train__laps": 2, "train__views": 1, "model__width": 32},
        {"train__regime": "parallel", "budget__chunk": "3"},
    ],
    ids=["laps", "records of whole sectors", "stream"],
)
def test_boundaries_in_memory_on_disk_and_read_ahead(plan_run, large_files, settings):
    from edge_trgl.engine import training
    from edge_trgl.engine.open_run import open_run

    hashes = set()
    for placement, prefetch in (("memory", False), ("disk", False), ("disk", True)):
        run = plan_run(f"{placement} {prefetch}", **settings)
        facts = run.facts()
        lay_out(facts, placement=placement, prefetch=prefetch)
        facts.close()
        hashes.add(training.train(open_run(run), limits=PLENTY, others_mb=0.0).weights_sha256)
    assert len(hashes) == 1


def test_without_augmentation_a_cache_and_streaming_the_prefix_agree(train_run):
    settings = {"train__regime": "sequential", "data__augment": False, "train__views": 1}
    cached = train_run("cached", **settings)
    streamed = train_run("streamed", **settings, train__cache="none")
    assert cached.sha256 == streamed.sha256


def test_a_prefix_in_training_mode_is_the_same_in_every_layout_and_moves_its_statistics(train_run):
    settings = {"train__regime": "sequential", "train__cache": "none", "train__prefix": "train-mode"}
    hashes = {
        train_run(f"{chunk}-{resident}", **settings, budget__chunk=chunk, budget__resident=resident).sha256
        for chunk, resident in (("1", "1"), ("3", "3"), ("epoch", "1"))
    }
    assert len(hashes) == 1
    frozen = train_run("frozen", **{**settings, "train__prefix": "frozen"})
    assert frozen.sha256 not in hashes


@pytest.mark.parametrize("saving", ["paging", "disk", "recompute", "early-update", "reuse", "trim"])
@pytest.mark.parametrize("regime", ["parallel", "sequential"])
def test_each_saving_can_be_switched_off_and_changes_nothing(train_run, regime, saving):
    settings = {"train__regime": regime, "model__name": "km-2-2"}
    with_all = train_run("with", None, **settings)
    without = train_run("without", None, **settings, budget__without=[saving])
    assert with_all.sha256 == without.sha256
    layouts = [one.run.facts().planned.plan.layout for one in (with_all, without)]
    assert layouts[0].placement == "disk"
    assert layouts[0].recompute == "blocks"
    expected = {
        "paging": {"resident": 2},
        "disk": {"placement": "memory"},
        "recompute": {"recompute": "none"},
    }.get(saving, {})
    assert {name: getattr(layouts[1], name) for name in expected} == expected


@pytest.mark.parametrize(("name", "share"), [("fp16-boundaries", 2), ("int8-boundaries", 3.5)])
def test_narrow_boundaries_change_results_and_say_so(train_run, plan_run, name, share):
    from edge_trgl.engine import training
    from edge_trgl.engine.open_run import open_run

    run = plan_run("narrow", budget__allow=[name], train__regime="sequential")
    facts = run.facts()
    forms = facts.counted.demand.forms
    (narrow,) = (number for number, form in enumerate(forms) if form.lossy == (name,))
    lay_out(facts, form=narrow)
    facts.planned = replace(facts.planned, layout=facts.counted.layouts[narrow])
    facts.close()
    result = training.train(open_run(run), limits=PLENTY, others_mb=0.0)
    exact = train_run("exact", train__regime="sequential")
    assert result.weights_sha256 != exact.sha256
    (less, more) = (forms[number].rows[1] for number in (narrow, 0))
    assert less.reads * share <= more.reads
    assert (less.widened, more.widened) == (more.reads, 0)
    losses = [
        sum(metric.loss_sum for metric in each.metrics("train")) for each in (run.facts(), exact.run.facts())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
