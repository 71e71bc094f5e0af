"""Training that stops where depth no longer pays: it computes the same, and decides the same after every kill."""

from __future__ import annotations

import contextlib
import itertools
from itertools import islice
from types import SimpleNamespace

import pytest
from plans import PLENTY

from edge_trgl.config.train import TrainConfig
from edge_trgl.engine import from_config, looks, training
from edge_trgl.engine.evaluation import Scorer
from edge_trgl.engine.open_run import open_run
from edge_trgl.run import depth_gain
from edge_trgl.run.summary import summarise
from edge_trgl.runtime.errors import StoppedError
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.storage import safetensors_file

SEQUENTIAL = {"train__regime": "sequential", "model__name": "km-6-1"}
WAYS = {
    "cached": {},
    "views": {"train__views": 2},
    "recomputed": {"train__cache": "none", "budget__chunk": "2"},
    "as the authors": {"train__cache": "none", "train__prefix": "train-mode"},
    "frozen": {"train__freeze": 1},
}


@pytest.fixture
def gains(monkeypatch):
    """Has validation images say that each depth has a certain number of images right, with a loss to match."""
    score = Scorer.score

    def set_gains(*correct):
        def made_up(self, split, *, depth, chunk):
            totals = score(self, split, depth=depth, chunk=chunk)
            return [
                total._replace(correct=right, loss=-float(right)) if total.num_images else total
                for total, right in zip(totals, correct, strict=False)
            ]

        monkeypatch.setattr(Scorer, "score", made_up)

    return set_gains


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(messages, "send", lambda kind, **values: found.append((kind, values)))
    return found


def tensors(run, module):
    return {
        name: tensor.clone() for name, tensor in open_run(run).deployed(module, head=True).final_tensors().items()
    }


@pytest.mark.parametrize("way", WAYS)
def test_it_stops_where_depth_no_longer_pays(train_run, gains, sent, way):
    gains(3, 5, 5, 4, 9, 9)
    grown = train_run("grown", **SEQUENTIAL, **WAYS[way], train__grow=True)
    facts = grown.run.facts()
    assert list(facts.modules()) == [0, 1, 2, 3]
    assert open_run(grown.run).depth == 4
    assert facts.boundaries() == []
    assert not list(grown.run.boundaries.iterdir())
    scores = grown.result.scores
    assert scores.chosen_depth == 2
    assert scores.first_depth + len(scores.per_depth) - 1 == 4
    text = "modules 3 and 4 gained nothing on validation images (depth 2 is the best: "
    assert [event.text for event in facts.events() if event.kind == "depth" and event.text.startswith(text)]
    assert any(kind == "note" and values["text"].startswith(text) for kind, values in sent)
    facts.limits = PLENTY
    accuracy = summarise(grown.run.config(), facts, 0.0)["accuracy"]
    assert accuracy["depth"] == 4
    assert accuracy["gain"].endswith("modules 3 and 4 added nothing and modules 5 and 6 were left out")
    facts.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cached", "recomputed", "frozen"])
def test_the_modules_that_are_trained_are_those_of_a_run_that_goes_on(train_run, gains, way):
    gains(3, 5, 5, 4, 9, 9)
    grown = train_run("grown", **SEQUENTIAL, **WAYS[way], train__grow=True)
    whole = train_run("whole", **SEQUENTIAL, **WAYS[way])
    for module in range(4):
        ours, theirs = tensors(grown.run, module), tensors(whole.run, module)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours), module


@pytest.mark.slow
def test_a_gain_within_the_patience_goes_on_to_the_end(train_run, gains):
    gains(3, 2, 4, 3, 5, 1)
    grown = train_run("grown", **SEQUENTIAL, train__grow=True)
    whole = train_run("whole", **SEQUENTIAL)
    assert grown.sha256 == whole.sha256
    assert open_run(grown.run).depth == 6


def test_patience_is_a_setting(train_run, gains):
    gains(3, 2, 4, 3, 5, 1)
    grown = train_run("grown", **SEQUENTIAL, train__grow=True, train__grow_patience=1)
    assert open_run(grown.run).depth == 2
    assert grown.result.scores.chosen_depth == 1


def test_validation_images_alone_decide(train_run, monkeypatch):
    splits, score = [], Scorer.score

    def noted(self, split, *, depth, chunk):
        splits.append((split, depth))
        return score(self, split, depth=depth, chunk=chunk)

    monkeypatch.setattr(Scorer, "score", noted)
    grown = train_run("grown", **SEQUENTIAL, train__grow=True, train__grow_patience=6)
    assert splits == [*(("val", depth) for depth in range(1, 6)), ("val", 6), ("test", 6)]
    measured = depth_gain.measured(grown.run.facts().metrics(depth_gain.VALIDATION))
    # What decided is what the evaluation of the finished run finds, bit by bit.
    assert tuple(score.accuracy for score in measured.values()) == grown.result.scores.per_depth[:5]


PARALLEL = {"model__name": "km-6-1", "train__epochs": "3", "train__grow": True}


@pytest.mark.slow
@pytest.mark.parametrize("way", [{}, {"budget__chunk": "2", "budget__resident": "1"}, {"train__freeze": 1}])
def test_parallel_training_drops_what_is_far_behind_the_last_gain(train_run, gains, sent, way):
    gains(3, 5, 5, 4, 4, 5)
    grown = train_run("grown", **PARALLEL, **way)
    whole = train_run("whole", **{**PARALLEL, "train__grow": False}, **way)
    assert open_run(grown.run).depth == 4
    scores = grown.result.scores
    assert scores.first_depth + len(scores.per_depth) - 1 == 4
    for module in range(4):
        ours, theirs = tensors(grown.run, module), tensors(whole.run, module)
        assert all(ours[name].equal(theirs[name]) for name in ours), module
    facts = grown.run.facts()
    trained = {metric.module: metric.epoch for metric in facts.metrics("train")}
    assert (trained[3], trained[4], trained[5]) == (2, 1, 1)
    (event,) = [event.text for event in facts.events() if event.kind == "depth"]
    facts.close()
    assert event.startswith("after 2 epochs depth 2 is the best: ")
    assert event.endswith("modules 5 and 6 are dropped")
    assert any(kind == "note" and values["text"] == event for kind, values in sent)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0.0, 1e9])
@pytest.mark.parametrize("way", [{}, {"budget__chunk": "2", "budget__resident": "1"}])
def test_parallel_training_that_is_stopped_anywhere_drops_the_same(plan_run, train_run, gains, way, minutes):
    gains(3, 5, 5, 4, 4, 5)
    settings = {**PARALLEL, **way}
    whole, run = train_run("whole", **settings), plan_run("broken", **settings, train__checkpoint_minutes=minutes)
    starts = 0
    while not run.facts().is_trained and starts < 100:
        starts += 1
        asked = itertools.count()
        with contextlib.suppress(StoppedError):
            training.train(
                open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda asked=asked: next(asked) > 25
            )
        # A plan with chunks of another length could go on here: what is passed over is passed over in full.
        facts = run.facts()
        schedule = from_config.training_schedule(run.config(), 6, facts.planned.plan.layout.chunk)
        job = from_config.job_size(run.config(), 6, open_run(run).info.splits["train"].num_images)
        following = next(islice(schedule.visits(job), facts.position(), None), None)
        assert following is None or following.module < open_run(run).depth
        facts.close()
    assert starts > 3
    assert run.facts().result.weights_sha256 == whole.sha256
    assert open_run(run).depth == open_run(whole.run).depth == 4


def test_looks_come_less_and_less_often():
    def looks_of(epochs=40, num_modules=4, **train):
        return sorted(looks.epochs_looked_after(TrainConfig(**train), epochs=epochs, num_modules=num_modules))

    assert looks_of(grow=True) == [2, 4, 8, 16, 32]
    assert looks_of(grow=True, epochs=1) == []
    assert looks_of(grow=True, epochs=9, look_every=3) == looks_of(epochs=9, look_every=3) == [3, 6, 9]
    assert looks_of() == [2]
    assert looks_of(epochs=2) == looks_of(num_modules=1) == looks_of(freeze=1) == []
    assert looks_of(regime="end-to-end") == looks_of(regime="sequential", grow=True) == []


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cached", "recomputed"])
@pytest.mark.parametrize("minutes", [0.0, 1e9])
def test_killed_at_any_look_it_decides_the_same(plan_run, finish, gains, monkeypatch, way, minutes):
    gains(3, 5, 5, 4, 9, 9)
    settings = {**SEQUENTIAL, **WAYS[way], "train__grow": True}
    whole = finish(plan_run("whole", **settings))
    run = plan_run("broken", **settings, train__checkpoint_minutes=minutes)
    take, stops, left = looks._Looker.take, looks._Looker.stops, []

    def kill_before(self, look):
        if ("before", look.position) not in left:
            left.append(("before", look.position))
            raise Killed
        take(self, look)

    def kill_after(self):
        position = self.ledger.scores()
        if ("after", len(position)) not in left and position:
            left.append(("after", len(position)))
            raise Killed
        return stops(self)

    monkeypatch.setattr(looks._Looker, "take", kill_before)
    monkeypatch.setattr(looks._Looker, "stops", kill_after)
    for _ in range(40):
        try:
            broken = finish(run)
            break
        except Killed:
            continue
    assert len(left) == 8
    assert broken.sha256 == whole.sha256
    assert broken.result.scores == whole.result.scores
    known, resumed = (one.run.facts() for one in (whole, broken))
    assert depth_gain.measured(known.metrics("validation")) == depth_gain.measured(resumed.metrics("validation"))
    assert sum(m.num_images for m in known.metrics("train")) == sum(m.num_images for m in resumed.metrics("train"))


def test_a_decision_stands_even_if_other_images_would_say_otherwise(plan_run, finish, gains, monkeypatch):
    """Killed after the commit that ends training: what it decided is a fact of the run."""
    gains(3, 2, 1, 9, 9, 9)
    run = plan_run("broken", **SEQUENTIAL, train__grow=True)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_warn_if_inert", lambda facts: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            finish(run)
    gains(1, 2, 3, 4, 5, 6)
    assert open_run(run).depth == 3
    resumed = finish(run)
    assert list(resumed.run.facts().modules()) == [0, 1, 2]
    texts = [event.text for event in resumed.run.facts().events() if event.kind == "depth"]
    assert len(texts) == 1


@pytest.mark.slow
def test_a_stop_during_a_look_commits_what_is_trained(plan_run, finish):
    run = plan_run("stopped", **SEQUENTIAL, train__grow=True, train__grow_patience=9)
    whole = finish(plan_run("whole", **SEQUENTIAL))
    asked = SimpleNamespace(now=False)

    def stop_when_looking():
        return asked.now

    score = Scorer.score
    with pytest.MonkeyPatch.context() as patch:

        def stopped(self, split, *, depth, chunk):
            asked.now = depth == 3
            return score(self, split, depth=depth, chunk=chunk)

        patch.setattr(Scorer, "score", stopped)
        with pytest.raises(StoppedError):
            training.train(open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=stop_when_looking)
    facts = run.facts()
    position = facts.position()
    opened = open_run(run)
    assert position == training._training(opened).ends(training._job(opened))[2]
    facts.close()
    assert finish(run).sha256 == whole.sha256


def test_parallel_training_says_early_what_adds_nothing(train_run, gains, sent):
    gains(3, 5, 5)
    looked = train_run("looked", train__epochs="3")
    facts = looked.run.facts()
    assert [metric.epoch for metric in facts.metrics("validation")] == [1, 1, 1]
    (text,) = [values["text"] for kind, values in sent if kind == "note"]
    assert text.startswith("after 2 epochs depth 2 of 3 is the best")
    assert "module 3 adds nothing so far" in text
    assert text in [event.text for event in facts.events()]
    assert open_run(looked.run).depth == 3
    facts.close()


def test_short_and_frozen_parallel_training_is_not_looked_at(train_run, sent):
    for settings in ({"train__epochs": "2"}, {"train__epochs": "3", "train__freeze": 1}):
        trained = train_run(f"run{len(settings)}", **settings)
        assert trained.run.facts().metrics("validation") == []
    assert not [kind for kind, _ in sent if kind == "note"]


LOOKED_AT = {
    "parallel": {},
    "chunks": {"budget__chunk": "2", "budget__resident": "1"},
    "shared head": {"model__shared_head": True, "model__downsample": ()},
    "frozen": {"train__freeze": 1},
    "end to end": {"train__regime": "end-to-end", "budget__resident": "1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", LOOKED_AT)
def test_looks_every_few_epochs_change_nothing(train_run, way):
    settings = {**LOOKED_AT[way], "train__epochs": "4"}
    looked, plain = train_run("looked", **settings, train__look_every=2), train_run("plain", **settings)
    assert looked.sha256 == plain.sha256
    scores, metrics = looked.result.scores, looked.run.facts().metrics("validation")
    assert sorted({metric.epoch for metric in metrics}) == [1, 3]
    last = depth_gain.accuracies_of(depth_gain.measured(metric for metric in metrics if metric.epoch == 3))
    assert last == dict(enumerate(scores.per_depth, scores.first_depth))


@pytest.mark.slow
def test_looks_are_taken_once_whenever_training_is_stopped(plan_run, train_run, finish):
    settings = {"train__epochs": "2", "train__look_every": 1, **LOOKED_AT["shared head"]}
    whole, run = train_run("whole", **settings), plan_run("broken", **settings)
    for _ in range(100):
        asked = itertools.count()
        with contextlib.suppress(StoppedError):
            training.train(
                open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda asked=asked: next(asked) > 7
            )
            break
    looked, expected = (
        [
            (metric.module, metric.epoch, metric.num_correct, metric.loss_sum)
            for metric in each.facts().metrics("validation")
        ]
        for each in (run, whole.run)
    )
    assert looked == expected
    assert finish(run).sha256 == whole.sha256


def test_only_the_trained_modules_have_files_that_export_reads(train_run, gains):
    gains(3, 2, 1, 9, 9, 9)
    grown = train_run("grown", **SEQUENTIAL, train__grow=True)
    opened = open_run(grown.run)
    for module in range(opened.depth):
        assert safetensors_file.read_header(opened.file_of(module))
    with pytest.raises(KeyError):
        opened.file_of(opened.depth)
