"""Looks at validation images between visits of training: which modules add something, and whether to go deeper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from itertools import islice

from edge_trgl.config.train import TrainConfig
from edge_trgl.engine.commits import Ledger
from edge_trgl.engine.evaluation import Scorer
from edge_trgl.engine.open_run import OpenRun
from edge_trgl.engine.passes import up_to
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.trainer import AfterVisit, EngineContext, walk
from edge_trgl.engine.visits import JobSize, Visit
from edge_trgl.learning.step_kinds import trains
from edge_trgl.learning.totals import Totals
from edge_trgl.run import depth_gain
from edge_trgl.run.depth_gain import DepthScore
from edge_trgl.runtime.planner.demand import SCORED_BATCHES
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.storage.state import Metric

EARLY_EPOCHS = 2
"""Epochs of parallel training after which it is said which modules add nothing so far."""


def walk_and_look(
    opened: OpenRun,
    training: Schedule,
    job: JobSize,
    context: EngineContext,
    ledger: Ledger,
    after: AfterVisit,
) -> None:
    """Walk the schedule from the last commit to its end; with `--grow`, as deep as depth pays.

    What a look found is stored with the next commit, so that a resumed run decides the same.
    """
    looker, position = _Looker(opened=opened, context=context, ledger=ledger), ledger.start
    for look in _looks(opened, training, job):
        if position < look.position:
            looker.expect(training.visits(job), position)
            walk(islice(looker.left_of(training.visits(job)), look.position), context, after, start=position)
            position = look.position
        # Of a look that a resumed run is beyond, the last commit knows all that matters.
        if position == look.position:
            looker.take(look)
        if looker.stops():
            return
    looker.expect(training.visits(job), position)
    walk(looker.left_of(training.visits(job)), context, after, start=position)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look at validation images: where, and at the classifiers of which modules.

    Attributes:
        position: in the schedule.
        epoch: the last one that these modules were trained for, counted from 0.
        modules: their numbers, from 0.
    """

    position: int
    epoch: int
    modules: range


def _looks(opened: OpenRun, training: Schedule, job: JobSize) -> Iterator[Look]:
    """Yield the looks of a run in order; the last module is scored after training in any case."""
    train, last, chain = opened.config.train, len(opened) - 1, opened.factory.chain
    with_head = [module for module in range(last + 1) if chain.has_head(module)]
    if train.grow and train.regime != "parallel":
        for module, position in training.ends(job).items():
            if module != last:
                epoch = training.epochs_of(module) - 1
                yield Look(position=position, epoch=epoch, modules=range(module, module + 1))
        return
    wanted = epochs_looked_after(train, epochs=training.epochs[0], num_modules=len(opened))
    for epoch, position in training.ends_of_epochs(job).items() if wanted else ():
        if epoch + 1 in wanted:
            yield Look(position=position, epoch=epoch, modules=range(with_head[0], last + 1))


def epochs_looked_after(train: TrainConfig, *, epochs: int, num_modules: int) -> Set[int]:
    """Return the epochs, counted from 1, after which validation images go through all modules.

    With `--grow` they are 2, 4, 8 and so on, unless `train.look_every` gives others. Sequential training has none.
    """
    if train.regime not in ("parallel", "end-to-end"):
        return frozenset()
    if train.look_every:
        return frozenset(range(train.look_every, epochs + 1, train.look_every))
    if train.grow:
        return frozenset(2**power for power in range(1, epochs.bit_length()))
    looks = train.regime == "parallel" and not train.freeze and num_modules > 1 and epochs > EARLY_EPOCHS
    return frozenset({EARLY_EPOCHS}) if looks else frozenset()


@dataclass(frozen=True, kw_only=True)
class _Looker:
    """Takes looks, tells the user what they found and has it stored."""

    opened: OpenRun
    context: EngineContext
    ledger: Ledger

    @property
    def goes_deeper(self) -> bool:
        """Whether looks are at one module after the other, and decide whether to go on."""
        train = self.opened.config.train
        return train.grow and train.regime != "parallel"

    @property
    def depth(self) -> int:
        """Number of modules that are still trained."""
        config = self.opened.config
        scores = self.ledger.scores() if config.train.grow else []
        return depth_gain.grown_depth(config, scores, num_modules=len(self.opened))

    def left_of(self, visits: Iterator[Visit]) -> Iterator[Visit | None]:
        """Return the visits of the modules that are still trained, None in place of the others.

        Sequential training stops instead.
        """
        return up_to(self.depth, visits) if self.opened.config.train.regime == "parallel" else visits

    def expect(self, visits: Iterator[Visit], start: int) -> None:
        """Have progress shown towards what is left of `visits` from `start` on, if modules were dropped."""
        if self.depth < len(self.opened):
            left = islice(self.left_of(visits), start, None)
            trained = (visit.span for visit in left if visit is not None and trains(visit.kind))
            self.ledger.expect(sum(span.stop - span.start for span in trained))

    def take(self, look: Look) -> None:
        """Score these depths, as far as they are still trained, unless that is done."""
        look = replace(look, modules=look.modules[: self.depth - look.modules.start])
        before = self.ledger.scores()
        if any((metric.module, metric.epoch) == (look.modules[-1], look.epoch) for metric in before):
            return
        found = self._score(look)
        if not found:  # no classifier there
            return
        self.ledger.add_scores(found)
        self._tell(look, depth_gain.measured(before), depth_gain.measured(found))

    def stops(self) -> bool:
        """Whether training stops here; then no boundary is needed any more."""
        if not self.goes_deeper:
            return False
        scores = depth_gain.measured(self.ledger.scores())
        if not depth_gain.no_longer_pays(scores, self.opened.config.train.grow_patience):
            return False
        activations = self.context.activations
        for name in activations.names:
            activations.drop(name)
        text = depth_gain.stopped_text(
            scores, num_modules=len(self.opened), samples=self.opened.facts.samples_word
        )
        messages.send("note", text=text)
        self._add_event(text)
        return True

    def _score(self, look: Look) -> list[Metric]:
        scorer = Scorer(
            opened=self.opened,
            modules=self.context.modules,
            meter=self.context.meter,
            headroom=self.context.headroom,
            check=self.ledger.after_scoring,
        )
        caches = self.goes_deeper and self.opened.config.caches
        chunk = SCORED_BATCHES if caches else self.opened.plan.layout.chunk
        totals = scorer.score("val", depth=look.modules[-1] + 1, chunk=chunk)
        scored = (module for module in look.modules if totals[module].num_images)
        return [_metric(module, look.epoch, totals[module]) for module in scored]

    def _tell(self, look: Look, known: Mapping[int, DepthScore], found: Mapping[int, DepthScore]) -> None:
        config, samples = self.opened.config, self.opened.facts.samples_word
        if self.goes_deeper:
            ((depth, score),) = found.items()
            gains = "" if depth_gain.last_gain({**known, **found}) == depth else ", no gain"
            messages.send("note", text=f"depth {depth}: {score.accuracy:.1%} on validation {samples}{gains}")
            return
        accuracies, depth, epochs = depth_gain.accuracies_of(found), max(found), look.epoch + 1
        drops = self.depth < depth
        text = (
            depth_gain.dropped_text(
                accuracies, depth=self.depth, num_modules=depth, epochs=epochs, samples=samples
            )
            if drops
            else depth_gain.so_far_text(
                accuracies, epochs=epochs, samples=samples, chosen_on=config.data.choose_on
            )
        )
        messages.send("note", text=text)
        if drops or not config.train.look_every:  # else they are many, and the report draws them
            self._add_event(text)

    def _add_event(self, text: str) -> None:
        """Store an event, unless a start before this one was here."""
        facts = self.opened.facts
        if all(event.text != text for event in facts.events()):
            facts.add_event("depth", text)


def _metric(module: int, epoch: int, totals: Totals) -> Metric:
    return Metric(
        kind=depth_gain.VALIDATION,
        module=module,
        epoch=epoch,
        position=0,  # the commit that stores it knows its own
        num_images=totals.num_images,
        loss_sum=totals.loss,
        num_correct=totals.correct,
        transport_sum=0.0,
        transport_gradient=0.0,
        other_gradient=0.0,
        lr=0.0,
    )
