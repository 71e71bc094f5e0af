"""Training with frozen modules: they stay as they are, and the others learn as in a loop written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plans import lay_out

from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.visits import Span
from edge_trgl.random_keys import key
from edge_trgl.runtime.errors import UsageError

FROZEN, EPOCHS, VIEWS, BATCH = 1, 3, 2, 16
SETTINGS = {"train__freeze": FROZEN, "train__epochs": str(EPOCHS), "train__views": VIEWS}
UNCACHED = {"train__cache": "none", "train__views": 1}

WAYS = {
    "parallel": {"train__regime": "parallel", "budget__chunk": "2", "budget__resident": "1"},
    "sequential": {"train__regime": "sequential"},
    "multi-lap": {"train__regime": "multi-lap", "train__laps": 3},
    "parallel, no cache": {"train__regime": "parallel", **UNCACHED},
    "sequential, no cache": {"train__regime": "sequential", **UNCACHED},
    "parallel, train-mode prefix": {"train__regime": "parallel", **UNCACHED, "train__prefix": "train-mode"},
    "train-mode prefix": {"train__regime": "sequential", **UNCACHED, "train__prefix": "train-mode"},
}


def _modules(run):
    opened = open_run(run)
    store = opened.modules()
    return [{name: t.clone() for name, t in store.open(k).tensors().items()} for k in range(len(opened))]


def _first(run):
    opened = open_run(run)
    return [opened.factory.initialise(k).tensors() for k in range(len(opened))]


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(t, second[name]) for name, t in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_frozen_modules_stay_as_they_are_and_the_others_do_not(train_run, way):
    trained = train_run("run", **{**SETTINGS, **WAYS[way]})
    first, found = _first(trained.run), _modules(trained.run)
    if trained.run.config().train.prefix == "train-mode":  # the statistics of its norms follow the batches
        first[0], found[0] = (
            {n: t for n, t in each.items() if ".running_" not in n and "tracked" not in n}
            for each in (first[0], found[0])
        )
    assert [_same(a, b) for a, b in zip(first, found, strict=True)] == [True, False, False]
    # Nothing is kept for a training that never comes: no classifier, no momentum.
    assert all(name.startswith("trunk.") for name in found[0])
    assert any(name.startswith("momentum.") for name in found[1])


def test_only_trained_depths_are_scored(train_run):
    result = train_run("run", **SETTINGS).result
    scores = result.scores
    assert scores.first_depth == FROZEN + 1
    assert len(scores.per_depth) == len(scores.test_per_depth) == 3 - FROZEN
    assert scores.chosen_depth > FROZEN
    # An image counts when every module that is trained has seen it.
    assert result.work.images == EPOCHS * 64


def _by_hand(run):
    """The published loop on what the frozen module gives for two augmented copies of the images."""
    opened = open_run(run)
    feed, seed = opened.feed("train"), opened.config.train.seed
    modules = [opened.factory.initialise(k) for k in range(len(opened))]
    copies = []
    for copy in range(VIEWS):
        span, outputs, order = Span("train", copy, 0, 4, shuffled=False, augmented=True), [], []
        for batch in range(4):
            order.append(feed.samples(span, batch))
            modules[0].infer(feed.images(span, batch, order[-1]), None, outputs.append)
        copies.append(torch.cat(outputs)[np.argsort(np.concatenate(order))])
    for epoch in range(EPOCHS):
        span = Span("train", epoch, 0, 4, shuffled=True, augmented=True)
        for batch in range(4):
            samples = feed.samples(span, batch)
            x, y = copies[epoch % VIEWS][torch.from_numpy(samples)], feed.labels(samples)
            lr = 0.02 * 0.5 * (1 + np.cos(np.pi * (epoch * 4 + batch) / (EPOCHS * 4)))
            for local in modules[FROZEN:]:
                outputs = []
                x = x.contiguous(memory_format=torch.channels_last)
                local.train_step(x, y, lr=lr, seed=key(seed, "step", epoch, batch), emit=outputs.append)
                (x,) = outputs
    feed.close()
    return [local.tensors() for local in modules]


def test_parallel_training_behind_frozen_modules_is_the_loop_written_out(plan_run, finish):
    run = plan_run("run", **SETTINGS)
    expected = _by_hand(run)
    finish(run)
    assert all(_same(a, b) for a, b in zip(expected, _modules(run), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("cached", [{}, UNCACHED])
def test_every_layout_gives_the_same_weights(plan_run, finish, cached):
    hashes = set()
    for number, (chunk, resident, placement) in enumerate(
        (("1", "3", "memory"), ("1", "1", "disk"), ("3", "2", "memory"), ("epoch", "1", "disk"))
    ):
        settings = {**SETTINGS, **cached, "budget__chunk": chunk, "budget__resident": resident}
        run = plan_run(f"layout{number}", **settings)
        facts = run.facts()
        lay_out(facts, placement=placement)
        facts.close()
        hashes.add(finish(run).sha256)
    assert len(hashes) == 1


def test_without_augmentation_a_cache_changes_nothing(train_run):
    settings = {"train__freeze": 2, "data__augment": False}
    for regime in ("parallel", "sequential"):
        cached, streamed = (
            train_run(
                f"{regime}{cache}", **settings, train__regime=regime, train__cache="boundary" if cache else "none"
            )
            for cache in (True, False)
        )
        assert cached.sha256 == streamed.sha256


def test_one_module_at_least_is_trained(plan_run):
    with pytest.raises(UsageError, match="--freeze 3: the net has 3 modules") as caught:
        plan_run("run", train__freeze=3)
    assert caught.value.hint == "At least one must be left to train."


@pytest.mark.parametrize(("freeze", "problem"), [(-1, "at least 0"), (1, "module by module")])
def test_what_cannot_be(plan_run, freeze, problem):
    with pytest.raises(UsageError, match=f"train.freeze .*{problem}"):
        plan_run("run", train__freeze=freeze, train__regime="end-to-end")


def test_a_frozen_module_is_planned_without_momentum_and_steps(plan_run):
    plans = {freeze: plan_run(f"freeze{freeze}", train__freeze=freeze).facts() for freeze in (0, 1)}
    trained, frozen = (plans[freeze].counted.demand.forms[0].rows[0] for freeze in (0, 1))
    assert trained.momentum > frozen.momentum == 0
    assert frozen.gradients == 0
    assert set(frozen.works.values()) == {frozen.works["forward"]}


def test_the_halves_of_tau_are_those_of_the_trained_modules(plan_run):
    tau = 0.5
    settings = {"model__name": "km-4-1-encoder", "model__width": 4, "transport__tau": tau}
    opened = open_run(plan_run("run", train__freeze=1, **settings))
    weights = [opened.factory.initialise(module).transport.weight() for module in range(1, 5)]
    assert weights == [1 / (2 * tau)] * 2 + [1 / (4 * tau)] * 2


def test_by_default_every_epoch_of_parallel_training_sees_new_crops(train_run):
    hashes = [
        train_run(f"run{number}", train__freeze=1, train__epochs="2", **settings).sha256
        for number, settings in enumerate(({}, {"train__cache": "none"}, {"train__cache": "boundary"}))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
