"""The parent's side of a dialogue about a run: it runs the jobs that are asked for, until there is a result.

What decides about the jobs knows the run's database, its configuration and all their records, 9 MiB in all. The
parent lives beside every job, so each decision is made in a process apart (`dialogue`), and what the next one must
know of it travels with the job.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_trgl.runtime.errors import EdgeTrglError, error_document, read_error
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.processes.supervisor import ChildCrashedError, Message, run_child
from edge_trgl.runtime.records import Document, document_of, read_record

Listener = Callable[[Message], None]
"""Called with every message of a job; kinds are `phase`, `progress`, `warning` and others."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A job to run.

    Attributes:
        job: its name.
        request: its request, as JSON.
        folder: the run's.
        threads, allocator, without: of its process, see `run_child`.
        light: whether it loads torch without what no step calls.
        cgroup: the name of a memory cgroup for its process; empty for none.
        cgroup_mb: the limit of that cgroup in MiB.
    """

    job: str
    request: Document
    folder: str
    threads: int | None
    allocator: Allocator
    without: tuple[str, ...] = ()
    light: bool = False
    cgroup: str = ""
    cgroup_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended; sizes in MiB.

    Attributes:
        result: the job's, as JSON; None if it failed.
        error: of `error_document`; None unless it failed.
        peak_mb: of its process.
        seconds: that it took.
        events: what is to be noted of its torch.
        whole_torch: whether it failed, and was run once more, because parts of torch were left out.
        cgroup_peak_mb: what the kernel charged to its cgroup at most; None if that is not known.
        cgroup_refused: why there is no cgroup, although it was asked for; else empty.
    """

    result: Any = None
    error: Document | None = None
    peak_mb: float = 0.0
    seconds: float = 0.0
    events: tuple[str, ...] = ()
    whole_torch: bool = False
    cgroup_peak_mb: float | None = None
    cgroup_refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Where a dialogue stands.

    Attributes:
        dialogue: the name of its class.
        folder: the run's.
        state: what it has to remember, as JSON.
        call: the job that it waits for; None at the beginning.
        then: the name of the method that goes on with the job's result.
        failed: the name of the method that goes on with the job's error; empty if the error ends the dialogue.
        repeats: the turn to come back to, because `call` only repairs the data for it.
        repeated: whether the data have been repaired for this turn.
        ended: how the job ended.
        parent_mb: the peak of the parent process, in MiB.
    """

    dialogue: str
    folder: str
    state: Document
    call: Call | None = None
    then: str = "begin"
    failed: str = ""
    repeats: Turn | None = None
    repeated: bool = False
    ended: Ended | None = None
    parent_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a dialogue decided: the next turn, or its result, or its error; and what to tell the user first."""

    messages: list[Message]
    turn: Turn | None = None
    result: Any = None
    error: Document | None = None


def converse(turn: Turn, listener: Listener) -> Any:
    """Run a dialogue to its end; return its result, as JSON.

    Raises:
        EdgeTrglError: with the exit code of its kind.
    """
    while True:
        turn = replace(turn, parent_mb=high_water.peak_mb())
        answer = read_record(Answer, apart(partial(_decided, turn)))
        for message in answer.messages:
            listener(message)
        if answer.error is not None:
            raise read_error(answer.error)
        if answer.turn is None or answer.turn.call is None:
            return answer.result
        turn = replace(answer.turn, ended=run_job(answer.turn.call, listener))


def _decided(turn: Turn) -> Document:
    from edge_trgl.pipeline.dialogues import decide

    return document_of(decide(turn))


def run_job(call: Call, listener: Listener) -> Ended:
    """Run a job to its end, in a memory cgroup if one is asked for and the system has one."""
    listener({"kind": "phase", "name": call.job})
    if not call.cgroup:
        return _run(call, None, listener)
    from edge_trgl.runtime.memory import cgroup  # here, for its memory: few runs ask for one

    try:
        with cgroup.memory_cgroup(call.cgroup_mb, call.cgroup) as group:
            ended = _run(call, group.path, listener)
            return replace(ended, cgroup_peak_mb=group.peak_mb())
    except cgroup.CgroupUnavailableError as error:
        text = f"no memory cgroup: {error}; the budget is kept by the process's own limit"
        listener({"kind": "warning", "text": text})
        return replace(_run(call, None, listener), cgroup_refused=text)


def _run(call: Call, group: Path | None, listener: Listener) -> Ended:
    """Run a job; if it crashes with a light torch, tell the user and run it once more with the whole."""
    events: list[str] = []

    def hear(message: Message) -> None:
        if message["kind"] == "event":
            events.append(message["text"])
        else:
            listener(message)

    def ended(without: tuple[str, ...]) -> Ended:
        try:
            outcome = run_child(
                ["-m", "edge_trgl.jobs", call.job, call.folder, json.dumps(call.request)],
                on_message=hear,
                threads=call.threads,
                allocator=call.allocator,
                without=without,
                cgroup=group,
            )
        except EdgeTrglError as error:
            return Ended(error=error_document(error), events=tuple(events))
        return Ended(result=outcome.result, peak_mb=outcome.peak_mb, seconds=outcome.seconds, events=tuple(events))

    try:
        return ended(call.without)
    except ChildCrashedError:
        if not call.light:
            raise
    text = f"the job {call.job} failed with a part of torch; trying the whole of it"
    events.append(text)
    listener({"kind": "warning", "text": text})
    return replace(ended((*call.without, "diet")), whole_torch=True)
