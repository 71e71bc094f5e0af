"""A dialogue about a run: it decides which job is next, and what its result means for the run.

Each decision is made in a process of its own (`turns`): a dialogue asks for a job by `do`, names the method that
goes on with the result, and keeps in `state` what that method must know beside the run's database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from edge_trgl.jobs.requests import JOBS, PREPARE, Job, PrepareRequest, PrepareResult
from edge_trgl.pipeline.turns import Answer, Call, Ended, Turn
from edge_trgl.run.data_summary import DataSummary, augmentation_of
from edge_trgl.run.facts import Result, RunFacts
from edge_trgl.run.folder import Run, prepared_cache
from edge_trgl.run.wording import samples_word
from edge_trgl.runtime.errors import (
    RESUME,
    DamagedDataError,
    EdgeTrglError,
    InputError,
    UsageError,
    error_document,
    read_error,
)
from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.processes.supervisor import Message
from edge_trgl.runtime.records import Document, document_of, from_json, read_record, to_json
from edge_trgl.runtime.storage import files

Q = TypeVar("Q")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end of a dialogue, with its result as JSON."""

    result: Any = None


Next = Turn | Done
"""What a decision leads to: a job, or the end."""


class Dialogue(Generic[S]):
    """Takes one decision about a run; the base of all dialogues.

    Args:
        run: the run.
        facts: its database.
        turn: where the dialogue stands.
    """

    state_type: ClassVar[type[Any]]
    """The class of `state`, a record."""

    def __init__(self, run: Run, facts: RunFacts, turn: Turn) -> None:
        self.run = run
        self.config = run.config()
        self.facts = facts
        self.state: S = read_record(self.state_type, turn.state)
        self._turn = turn
        self._messages: list[Message] = []

    def begin(self) -> Next:
        """Take the first decision."""
        raise NotImplementedError

    def answer(self) -> Answer:
        """Decide, and say what is next."""
        try:
            decided = self._decide()
        except EdgeTrglError as error:
            return Answer(messages=self._messages, error=error_document(error))
        if isinstance(decided, Done):
            return Answer(messages=self._messages, result=decided.result)
        return Answer(messages=self._messages, turn=decided)

    @property
    def ended(self) -> Ended:
        """How the last job ended."""
        assert self._turn.ended is not None
        return self._turn.ended

    @property
    def request(self) -> Document:
        """The request of the last job, as JSON."""
        assert self._turn.call is not None
        return self._turn.call.request

    def do(
        self,
        job: Job[Q, R],
        request: Q,
        *,
        then: Callable[[R], Next],
        failed: Callable[[EdgeTrglError], Next] | None = None,
        cgroup: str = "",
        cgroup_mb: float = 0.0,
    ) -> Turn:
        """Ask for `job`; if it finds the data damaged, they are prepared again and it is run once more.

        Args:
            job: the job.
            request: its request.
            then: the method of this class that goes on with its result.
            failed: the method that goes on with its error; None to end with it.
            cgroup, cgroup_mb: see `Call`.
        """
        call = Call(
            job=job.name,
            request=document_of(request),
            folder=str(self.run.folder),
            threads=self.config.train.threads,
            allocator=self._allocator(),
            without=self._without(),
            light=job.torch == "light" and "diet" not in self._without(),
            cgroup=cgroup,
            cgroup_mb=cgroup_mb,
        )
        return Turn(
            dialogue=type(self).__name__,
            folder=str(self.run.folder),
            state=document_of(self.state),
            call=call,
            then=then.__name__,
            failed="" if failed is None else failed.__name__,
        )

    @property
    def parent_mb(self) -> float:
        """The peak of the parent process, in MiB."""
        return self._turn.parent_mb

    def require_trained(self) -> None:
        """Refuse a run whose training has not ended.

        Raises:
            UsageError: it has not.
        """
        if not self.facts.is_trained:
            raise UsageError(f"{self.run.folder} is not fully trained", hint=f"First: {RESUME}")

    def warn(self, kind: str, text: str) -> None:
        """Warn the user, and store the warning as an event of that kind for the report."""
        self.facts.add_event(kind, text)
        self.tell(text)

    def note(self, text: str) -> None:
        """Tell the user what is going on."""
        self._messages.append({"kind": "note", "text": text})

    def tell(self, text: str) -> None:
        """Warn the user, without an event."""
        self._messages.append({"kind": "warning", "text": text})

    def _decide(self) -> Next:
        turn = self._turn
        if turn.call is None:
            return self.begin()
        self._keep_events()
        if self.ended.error is not None:
            return self._after_error(turn, read_error(self.ended.error))
        result = from_json(JOBS[turn.call.job].result, self.ended.result)
        self._record(turn.call.job, result)
        if turn.repeats is not None:
            self.note_prepared(result)
            return replace(turn.repeats, repeated=True, ended=None)
        decided: Next = getattr(self, turn.then)(result)
        return decided

    def _after_error(self, turn: Turn, error: EdgeTrglError) -> Next:
        if isinstance(error, DamagedDataError) and not turn.repeated and turn.repeats is None:
            self.warn("data", f"{error.message}; the data are prepared again")
            repairing = self.do(PREPARE, self.prepare_request(anew=True), then=self.note_prepared)
            return replace(repairing, repeats=turn)
        if not turn.failed:
            raise error
        decided: Next = getattr(self, turn.failed)(error)
        return decided

    def _keep_events(self) -> None:
        """Store what the last job told of its torch, for the report and for later jobs."""
        for text in self.ended.events:
            self.facts.add_event("diet", text)
        if self.ended.whole_torch:
            self.facts.whole_torch = True

    def _record(self, name: str, result: object) -> None:
        """Record the time and memory of a job, and compare them with the budget."""
        ended, facts = self.ended, self.facts
        child_mb = ended.peak_mb
        if isinstance(result, Result):
            # The training process resets its high-water mark between visits, and reports the maximum itself.
            child_mb = max(child_mb, result.peak_mb)
        peak_mb = child_mb + self.parent_mb
        facts.highest_child_mb = max(child_mb, facts.highest_child_mb)
        facts.record_phase(name, peak_mb, ended.seconds)
        budget_mb = facts.limits.budget_mb
        if budget_mb is not None and peak_mb > budget_mb:
            self.warn(
                "budget", f"the job {name} took {peak_mb:.0f} MiB, more than the budget of {budget_mb:.0f} MiB"
            )

    # ---- prepared data

    def prepare_request(self, *, survey_large: bool = False, anew: bool = False) -> PrepareRequest:
        """Return the request of `prepare`, with the prepared data that other runs left.

        Args:
            survey_large: whether large images that keep their size are surveyed, not decoded.
            anew: whether to decode again, because what was prepared is damaged.
        """
        cache = prepared_cache()
        return PrepareRequest(survey_large=survey_large, cache=None if cache is None else str(cache), anew=anew)

    def note_prepared(self, prepared: PrepareResult) -> Done:
        """Show and keep what the job `prepare` found in the data.

        Raises:
            InputError: the data are not those with which the run began.
        """
        if prepared.damage:
            self.warn("data", f"{prepared.damage}; the data were prepared again")
        if prepared.reused:
            samples = samples_word(prepared.summary.shape)
            self.note(f"using the {samples} that were prepared before")
        self._show_data(prepared.summary)
        if prepared.decoded:
            self._keep_fingerprint(prepared.fingerprint)
        return Done()

    def _keep_fingerprint(self, fingerprint: str) -> None:
        if self.facts.fingerprint not in ("", fingerprint):
            files.remove(self.run.dataset_file)
            raise InputError(
                f"{self.config.data.source} has changed since {self.run.folder} was begun",
                hint="Put the old files back, or begin a new run.",
            )
        self.facts.fingerprint = fingerprint

    def _show_data(self, summary: DataSummary) -> None:
        """Show what was found in the data, unless it was shown before decoding; keep it for the report."""
        shown = self.facts.data_summary
        self.facts.data_summary = summary
        if shown is not None and replace(shown, decoded=summary.decoded) == summary:
            return
        augmentation = augmentation_of(self.config.data, summary.shape)
        self._messages.append({"kind": "data", "summary": to_json(summary), "augmentation": to_json(augmentation)})

    def _without(self) -> tuple[str, ...]:
        """The savings that child processes do without."""
        return (*self.config.budget.without, *(("diet",) if self.facts.whole_torch else ()))

    def _allocator(self) -> Allocator:
        if self.facts.is_counted:
            return self.facts.counted.allocator
        # Before counting, the sizes of tensors are not known.
        return "default" if "allocator" in self.config.budget.without else "heap"
