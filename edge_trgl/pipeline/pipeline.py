"""Takes a run from its configuration to training and export, with one child process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.pipeline.turns import Listener, Turn, converse
from edge_trgl.runtime.errors import EdgeTrglError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.records import Document, to_json


class Pipeline:
    """What can be done with a run. Jobs in child processes do the work; this parent process stays small.

    Results are JSON: who wants to read one as a record imports the record, and its memory counts for every job.

    Args:
        folder: of the run.
        listener: called with every message; kinds are `phase`, `progress`, `warning` and others.
    """

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.folder = folder
        self.listener = listener

    def train(self, asked: Limits = Limits()) -> Document:  # noqa: B008 - it is frozen
        """Do what is left of planning and training, write summary and report, and return the summary.

        Args:
            asked: limits that replace the run's own when it is resumed; a limit that is None stays as it was.

        Raises:
            EdgeTrglError: with the exit code of its kind; what was committed is kept.
        """
        with self._named():
            summary: Document = self._converse("Train", {"asked": to_json(asked)})
            return summary

    def plan(self) -> Document:
        """Prepare the data and plan, without training; return a PlannedRun.

        Raises:
            DoesNotFitError: no allowed plan fits the limits.
        """
        with self._named(kept=False):
            planned: Document = self._converse("Plan", {})
            return planned

    def report(self, against: Sequence[str] = ()) -> None:
        """Write report.html from the results so far.

        Args:
            against: folders of other trained runs to compare with.

        Raises:
            UsageError: there is no plan yet, or another run is not fully trained.
        """
        with self._named():
            self._converse("Report", {"against": list(against)})

    def evaluate(self) -> Document:
        """Score the trained run again, at every depth; return an EvaluateResult.

        Raises:
            UsageError: the run is not fully trained.
        """
        with self._named():
            scored: Document = self._converse("Evaluate", {})
            return scored

    def export(self, options: ExportOptions = ExportOptions()) -> Document:  # noqa: B008 - it is frozen
        """Export the trained run; return an ExportRecord.

        Raises:
            UsageError: the run is not fully trained, or the options contradict one another.
        """
        with self._named():
            try:
                record: Document = self._converse("Export", {"options": to_json(options)})
                return record
            finally:
                apart(partial(_remove_unfinished, self.folder))

    def _converse(self, dialogue: str, state: Document) -> Any:
        return converse(Turn(dialogue=dialogue, folder=str(self.folder), state=state), self.listener)

    @contextmanager
    def _named(self, *, kept: bool = True) -> Iterator[None]:
        """Name the run in the hints of errors; `kept`: whether it will be there to be resumed after one."""
        try:
            yield
        except EdgeTrglError as error:
            error.name_run(self.folder if kept else None)
            raise


def _remove_unfinished(folder: Path) -> None:
    from edge_trgl.pipeline.exporting import remove_unfinished
    from edge_trgl.run.folder import Run

    remove_unfinished(Run(folder))
