"""What a command line asks of the process that runs a run's jobs; each verb of `app.ORDERING` gives one.

The process that reads the command line checks it and ends with the order, the one that stays carries it out. No
click here; how a result reads is imported where it is printed, in a process apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_trgl.cli.outcome import outcome_of
from edge_trgl.cli.progress import Terminal
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.lock import locked
from edge_trgl.runtime.errors import InputError, UsageError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.records import Document, document_of, read_record


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the user wants done, and how to print it."""

    as_json: bool

    def carry_out(self) -> int:
        """Do it and print the result; return the exit code.

        Raises:
            EdgeTrglError: with the exit code of its kind.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Train(Order):
    """Train a run to its end, export it if asked to, and print its summary.

    Attributes:
        run: the folder, in which the run was begun.
        limits: in place of those that the run was begun with.
        then_export: whether to export.
        discard: whether to remove the folder if a mistake ends the run before it has a plan.
    """

    run: str
    limits: Limits = Limits()  # noqa: RUF009 - it is frozen
    then_export: bool
    discard: bool = False

    def carry_out(self) -> int:
        """Train, and export."""
        folder, terminal, exported = Path(self.run), Terminal(), None
        terminal.line(f"run {folder}")
        try:
            with locked(folder):
                pipeline = Pipeline(folder, terminal)
                summary = pipeline.train(self.limits)
                exported = pipeline.export() if self.then_export else None
        except (UsageError, InputError):
            # What does not fit is kept: resume goes on with larger limits.
            if self.discard:
                apart(partial(_discard, folder))
            raise

        def text() -> str:
            from edge_trgl.cli import train

            return train.result_text(summary, folder, exported, as_json=self.as_json)

        return _print(text)


def _discard(folder: Path) -> None:
    from edge_trgl.run.folder import discard_unplanned

    discard_unplanned(folder)


@dataclass(frozen=True, kw_only=True)
class Plan(Order):
    """Plan a configuration, given as in run.toml, and print the plan."""

    config: Document

    def carry_out(self) -> int:
        """Plan."""
        from edge_trgl.pipeline.trial import plan_of  # here, for the memory of the other verbs

        planned = plan_of(self.config, Terminal())

        def text() -> str:
            from edge_trgl.cli import plan

            return plan.result_text(planned, as_json=self.as_json)

        return _print(text)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Order):
    """Score the trained run in the folder `run` again, and print the scores."""

    run: str

    def carry_out(self) -> int:
        """Evaluate."""
        folder = Path(self.run)
        with locked(folder):
            result = Pipeline(folder, Terminal()).evaluate()

        def text() -> str:
            from edge_trgl.cli import evaluate

            return evaluate.result_text(result, folder, as_json=self.as_json)

        return _print(text)


@dataclass(frozen=True, kw_only=True)
class Export(Order):
    """Export the trained run in the folder `run`; as `options` say."""

    run: str
    options: ExportOptions

    def carry_out(self) -> int:
        """Export."""
        folder = Path(self.run)
        with locked(folder):
            record = Pipeline(folder, Terminal()).export(self.options)

        def text() -> str:
            from edge_trgl.cli import export

            return export.result_text(record, folder, with_table=bool(self.options.forms), as_json=self.as_json)

        return _print(text)


@dataclass(frozen=True, kw_only=True)
class Report(Order):
    """Write the report of the run in the folder `run`, beside those of the folders `against`."""

    run: str
    against: tuple[str, ...]

    def carry_out(self) -> int:
        """Write the report."""
        folder = Path(self.run)
        Pipeline(folder, Terminal()).report(self.against)

        def text() -> str:
            from edge_trgl.cli import report

            return report.result_text(folder, as_json=self.as_json)

        return _print(text)


def _print(text: Callable[[], str]) -> int:
    """Lay a result out and print it, in a process apart; return the exit code."""
    return apart(partial(outcome_of, partial(_printed, text)))


def _printed(text: Callable[[], str]) -> int:
    sys.stdout.write(text() + "\n")
    sys.stdout.flush()
    return 0


ORDERS: dict[str, type[Order]] = {kind.__name__: kind for kind in (Train, Plan, Evaluate, Export, Report)}


def document_of_order(order: Order) -> Document:
    """Return an order as JSON; `order_of` is the inverse."""
    return {"order": type(order).__name__, **document_of(order)}


def order_of(document: Document) -> Order:
    """Return the order that `document_of_order` made a document of."""
    values: dict[str, Any] = {key: value for key, value in document.items() if key != "order"}
    return read_record(ORDERS[document["order"]], values)
