"""`--tau auto`: short trainings choose tau, whatever interrupts them; the long one is that of the chosen value."""

from __future__ import annotations

import pytest

from edge_trgl.config.sources import resolve
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run import tau_scan
from edge_trgl.run.facts import TauScore
from edge_trgl.run.folder import Run
from tests.conftest import TINY, flat

SCANNED = {
    "data": {"limit": 400},
    "train": {"epochs": "3", "checkpoint_minutes": 0.0},
    "model": {"name": "km-2-2", "width": 8},
    "budget": {"mb": "auto"},
    "transport": {"tau": "auto"},
}


class Listener:
    """Keeps what is told, and kills the latest job at its `kill`-th progress message, counted from 1."""

    def __init__(self, jobs, *, kill=0):
        self.jobs = jobs
        self.left = kill
        self.texts = []

    def __call__(self, message):
        if message["kind"] in ("note", "warning"):
            self.texts.append(message["text"])
        if message["kind"] == "progress" and self.left:
            self.left -= 1
            if not self.left:
                self.jobs[-1].kill()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [0, 2])
def test_the_run_is_that_of_the_value_which_was_best_on_validation_images(
    tmp_path, trained_copy, forked_jobs, kill
):
    listener = Listener(forked_jobs, kill=kill)
    run = Run.create(tmp_path / "run", resolve(TINY, SCANNED))
    summary = Pipeline(run.folder, listener).train()
    tried = summary["tau"]["tried"]
    assert [one["tau"] for one in tried] == list(tau_scan.CANDIDATES)
    assert summary["tau"]["chosen"] == max(tried, key=lambda one: one["accuracy"])["tau"]
    assert [text for text in listener.texts if text.startswith("trying")][:-3:-1] == [
        "trying no transport term, 4 of 4",
        "trying tau 0.05, 3 of 4",
    ]
    assert not (run.folder / tau_scan.FOLDER).exists()
    facts = run.facts()
    (event,) = [event.text for event in facts.events() if event.kind == "tau"]
    facts.close()
    assert event.startswith("chosen by short trainings, epochs 1: ")
    chosen = summary["tau"]["chosen"]
    term = {"transport__enabled": chosen is not None, "transport__tau": chosen or 0.5}
    given = {**flat(SCANNED), **term, "train__checkpoint_minutes": 1e9}
    assert summary["weights_sha256"] == trained_copy(f"given-{kill}", **given).sha256
    assert summary["restarts"] == 0  # of the long training


@pytest.mark.slow
def test_a_short_training_is_the_run_of_that_value_for_fewer_epochs(plan_run, tmp_path):
    run = plan_run("run", **{**flat(SCANNED), "train__epochs": "20", "train__look_every": 3})
    facts = run.facts()
    candidate = tau_scan.next_candidate(run.config(), facts)
    tau_scan.begin(run, run.config(), facts, candidate)
    facts.close()
    trial = tau_scan.run_of(run, candidate)
    config = trial.config()
    assert (config.transport.tau, config.train.epochs, config.train.look_every) == (0.5, "3", None)
    assert trial.data == run.data
    assert Run(trial.folder).facts().planned == run.facts().planned


def test_epochs_are_shortened_module_by_module_and_never_below_one_a_lap():
    def shortened(regime, epochs, num_modules, laps=1):
        train = {"train": {"regime": regime, "epochs": epochs, "laps": laps}}
        return tau_scan._shortened(resolve(train), num_modules).train.epochs

    assert shortened("parallel", "30", 10) == "4"
    assert shortened("parallel", "1", 10) == "1"
    assert shortened("sequential", "8+8k", 3) == "1,2,3"
    assert shortened("multi-lap", "10", 3, laps=5) == "5"


def test_the_plan_says_what_choosing_takes(plan_run):
    run = plan_run("run", **{**flat(SCANNED), "train__epochs": "20"})
    facts = run.facts()
    text = tau_scan.cost_text(run.config(), facts)
    assert text == "before that, 4 short trainings choose tau, which take 60% as long"
    assert tau_scan.cost_text(resolve(TINY), facts) == ""
    facts.close()


def test_of_equal_values_the_usual_one_is_chosen():
    scores = [TauScore(tau=tau, accuracy=0.5) for tau in tau_scan.CANDIDATES]
    assert tau_scan.best(scores).tau == 0.5
    assert tau_scan.best([*scores, TauScore(tau=None, accuracy=0.6)]).tau is None


def test_no_value_is_tried_where_one_is_given(tmp_path):
    run = Run.create(tmp_path / "run", resolve(TINY))
    facts = run.facts()
    assert tau_scan.next_candidate(run.config(), facts) is None
    assert tau_scan.with_choice(run.config(), facts) == run.config()
    facts.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": {"regime": "end-to-end"}}, "end-to-end training has no transport term"),
        ({"data": {"choose_on": "half-test"}}, "chooses by validation images"),
        ({"transport": {"multipliers": True}}, "no effect with transport.multipliers"),
        ({"transport": {"enabled": False}}, None),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, told):
    transport = {"tau": "auto", **settings.get("transport", {})}
    if told is None:
        assert not resolve({**settings, "transport": transport}).transport.scans
        return
    with pytest.raises(Exception, match=told):
        resolve({**settings, "transport": transport})
