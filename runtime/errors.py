"""Errors that are reported to the user: one sentence, a hint, an exit code."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_RUN = "<run>"
RESUME = f"edge-trgl resume {_RUN}"
"""The command that continues a run, in a hint of who does not know its folder; `name_run` puts that in."""


def command(*words: object) -> str:
    """Return an `edge-trgl` command that can be pasted into a shell, whatever its words hold."""
    return shlex.join(["edge-trgl", *map(str, words)])


class EdgeTrglError(Exception):
    """An error that the user can do something about, shown without a traceback.

    Args:
        message: one sentence that says where, what was found and what was expected; one per line for several
            mistakes.
        hint: what to do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def name_run(self, folder: Path | None) -> None:
        """Put the folder of the run into the command of the hint; None if there is no run to continue."""
        if folder is not None:
            self.hint = self.hint.replace(_RUN, shlex.quote(str(folder)))
        else:
            self.hint = self.hint.replace(f"{RESUME} --", "try again with --").replace(RESUME, "try again")


class UsageError(EdgeTrglError):
    """A flag, a configuration value or a combination of them is wrong."""

    exit_code = 2


class DoesNotFitError(EdgeTrglError):
    """The job does not fit in the budget, according to the plan."""

    exit_code = 3


class InputError(EdgeTrglError):
    """Data or a model cannot be read."""

    exit_code = 4


class StorageError(EdgeTrglError):
    """The disk is full, or a file of the run is damaged."""

    exit_code = 5


class DamagedBoundaryError(StorageError):
    """The records of the boundary named `boundary` are damaged or missing."""

    def __init__(self, message: str, *, hint: str = "", boundary: str) -> None:
        super().__init__(message, hint=hint)
        self.boundary = boundary


class DamagedDataError(StorageError):
    """A file of the prepared data is damaged or missing; the data can be prepared again."""


class DiskFullError(StorageError):
    """The disk is full; the run can go on with more space or with less to write."""


class OverBudgetError(EdgeTrglError):
    """The budget was exceeded at run time; the run stopped and can be resumed."""

    exit_code = 6


class ExportRejectedError(EdgeTrglError):
    """An exported file failed its check and was kept as `.rejected`."""

    exit_code = 7


class StoppedError(EdgeTrglError):
    """The run stopped at a safe point because of a signal, and can be resumed."""

    exit_code = 75


# By name, in which a child process reports its error to the parent.
ERRORS = {
    error.__name__: error
    for error in (
        UsageError,
        DoesNotFitError,
        InputError,
        StorageError,
        DamagedDataError,
        DiskFullError,
        OverBudgetError,
        ExportRejectedError,
        StoppedError,
    )
}


def error_document(error: EdgeTrglError) -> dict[str, Any]:
    """Return an error as JSON, for another process; a class not in ERRORS travels as the nearest that is."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
    return {"name": name, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def read_error(document: Mapping[str, Any]) -> EdgeTrglError:
    """Return the error that `error_document` made a document of."""
    error = ERRORS[document["name"]](document["message"], hint=document["hint"])
    error.exit_code = document["exit_code"]
    return error


PACKAGES = ("jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "PIL", "torch", "torchvision", "xxhash")
"""What edge-trgl imports when it is needed, by the names of the modules."""


def require_package(package: str, purpose: str) -> None:
    """Refuse `purpose` ("training") where `package` is not installed; nothing is imported.

    Raises:
        UsageError: with the command that installs it.
    """
    from importlib.util import find_spec  # here, for its memory: a run is begun once

    if find_spec(package) is None:
        raise _missing(package, purpose)


def missing_package(error: ModuleNotFoundError, purpose: str) -> UsageError | None:
    """What to tell the user of a failed import; None where the module is none of `PACKAGES`."""
    package = (error.name or "").partition(".")[0]
    return _missing(package, purpose) if package in PACKAGES else None


def _missing(package: str, purpose: str) -> UsageError:
    return UsageError(
        f"{purpose} needs {package}, which is not installed here",
        hint="pip install edge-trgl, or edge-trgl-run for predict and bench alone.",
    )
