"""The choice of tau by validation images, for `--tau auto`: a short training with each value before the long one.

A candidate is a run in a folder inside the run's own, on the run's data and by its plan: what it costs in memory
is what the run itself costs, and it goes on from its own commits.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.config.sections import RunConfig
from edge_trgl.run.facts import RunFacts, Scores, TauScore
from edge_trgl.run.folder import Run
from edge_trgl.run.wording import validation_samples
from edge_trgl.runtime.storage import files

CANDIDATES: tuple[float | None, ...] = (0.5, 5.0, 0.05, None)
"""The values that are tried, as wide apart as the paper's; None is training without the term. Of equals the first
is chosen, so the usual one stands first."""

SHARE = 8
"""A candidate is trained for one epoch of so many."""

FOLDER = "scan"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A value of tau to try: its number in `CANDIDATES`, and the value."""

    number: int
    tau: float | None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return name_of(self.tau)


def name_of(tau: float | None) -> str:
    """Return what a value of tau is called in a sentence."""
    return "no transport term" if tau is None else f"tau {tau:g}"


def next_candidate(config: RunConfig, facts: RunFacts) -> Candidate | None:
    """Return the first candidate that has no score yet; None where tau is given or chosen."""
    number = len(facts.tau_scores)
    if not config.transport.scans or number == len(CANDIDATES):
        return None
    return Candidate(number=number, tau=CANDIDATES[number])


def run_of(run: Run, candidate: Candidate) -> Run:
    """Return the run that tries a candidate, which reads the data of `run`."""
    trial = Run(run.folder / FOLDER / str(candidate.number))
    trial.data = run.data
    trial.dataset_file = run.dataset_file
    return trial


def begin(run: Run, config: RunConfig, facts: RunFacts, candidate: Candidate) -> None:
    """Make the run of a candidate in a planned run, unless it is there and may go on."""
    trial = run_of(run, candidate)
    if trial.state_file.is_file():
        return
    discard(run)  # also the beginnings of one
    num_modules = len(facts.planned.layout.starts)
    Run.create(trial.folder, _shortened(_with(config, candidate.tau), num_modules))
    for file in facts.modules().values():  # of a model that its library built
        files.make_folder(trial.modules)
        files.write_durable(trial.modules / file.name, [(run.modules / file.name).read_bytes()])
    files.write_durable(trial.state_file, [run.state_file.read_bytes()])  # the last, as it makes the run complete


def discard(run: Run) -> None:
    """Remove the runs of candidates."""
    shutil.rmtree(run.folder / FOLDER, ignore_errors=True)


def score(candidate: Candidate, scores: Scores) -> TauScore:
    """Return the score of a candidate: on validation samples, at the depth where that is best."""
    return TauScore(tau=candidate.tau, accuracy=max(scores.per_depth))


def best(scores: Sequence[TauScore]) -> TauScore:
    """Return the candidate that is chosen."""
    return max(scores, key=lambda one: one.accuracy)


def with_choice(config: RunConfig, facts: RunFacts) -> RunConfig:
    """Return the configuration with the tau that was chosen, if the run chose one."""
    scores = facts.tau_scores
    return _with(config, best(scores).tau) if config.transport.scans and len(scores) == len(CANDIDATES) else config


def choice_text(config: RunConfig, facts: RunFacts) -> str:
    """Return a sentence that names the chosen tau and what the others gave."""
    scores = facts.tau_scores
    chosen = best(scores)
    given = "; ".join(f"{name_of(one.tau)}: {one.accuracy:.1%}" for one in scores)
    epochs = _shortened(config, len(facts.planned.layout.starts)).train.epochs
    samples = validation_samples(config.data.choose_on, facts.samples_word)
    return f"chosen by short trainings, epochs {epochs}: {name_of(chosen.tau)} ({given}, on {samples})"


def cost_text(config: RunConfig, facts: RunFacts) -> str:
    """Say how much longer a planned run takes because it chooses tau; nothing where it does not."""
    if not config.transport.scans:
        return ""
    num_modules = len(facts.planned.layout.starts)
    short, all_of_it = (
        sum(parse_epochs(one.train.epochs, num_modules)) for one in (_shortened(config, num_modules), config)
    )
    more = len(CANDIDATES) * short / all_of_it
    return f"before that, {len(CANDIDATES)} short trainings choose tau, which take {more:.0%} as long"


def _with(config: RunConfig, tau: float | None) -> RunConfig:
    transport = replace(config.transport, enabled=tau is not None, tau=0.5 if tau is None else tau)
    return replace(config, transport=transport)


def _shortened(config: RunConfig, num_modules: int) -> RunConfig:
    epochs = parse_epochs(config.train.epochs, num_modules)
    each = [max(math.ceil(number / SHARE), config.train.laps) for number in epochs]
    text = str(each[0]) if len(set(each)) == 1 else ",".join(map(str, each))
    return replace(config, train=replace(config.train, epochs=text, look_every=None))
