"""Errors of the user's own code: told as theirs, with the lines of their source and no others."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import edge_trgl
from edge_trgl.runtime.errors import EdgeTrglError, InputError, UsageError
from edge_trgl.runtime.memory import guard

LIBRARIES = ("torchvision", "timm")
"""Packages whose models are named `PACKAGE:NAME`."""

_NOT_THE_USERS = (
    str(Path(edge_trgl.__file__).parent),
    str(Path(torch.__file__).parent),
    str(Path(importlib.__file__).parent),
    "<frozen ",
)
"""How the names of source files begin that the user did not write."""


class ForwardError(Exception):
    """The forward pass of a model raised the error that is the cause of this one, at the line `where`."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


@contextmanager
def users_code(name: str) -> Iterator[None]:
    """Tell an error of the model `name`, raised inside, as one of the user's code or of the library.

    Raises:
        UsageError: the user's code failed; its traceback is the hint.
        InputError: a library's model failed.
    """
    try:
        yield
    except EdgeTrglError:
        raise
    except ForwardError as error:
        assert error.__cause__ is not None
        raise as_told(name, error.__cause__, error.where) from error.__cause__
    except (Exception, SystemExit) as error:
        if guard.refused(error):
            raise
        raise as_told(name, error) from error


_CALL = "A factory begins with: def NAME(input_shape, num_classes)."
"""What to tell of an error without a line of the user's: the call itself failed."""


def as_told(name: str, error: BaseException, where: str = "") -> EdgeTrglError:
    """Return what to tell the user of an `error` of the model `name`; `where`: the part of it that failed."""
    what = type(error).__name__ + (f" in its forward, at {where}" if where else "")
    what += f": {first_line(error)}" if str(error) else ""
    if name.partition(":")[0] in LIBRARIES:
        return InputError(f"--model {name} fails: {what}", hint="Choose another size or model.")
    lines = _users_lines(error)
    return UsageError(
        f"--model {name}: your own code raised {what}",
        hint="\n  ".join(["Its traceback, without what is not yours:", *lines] if lines else [_CALL]),
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; it may be empty."""
    return next(iter(str(error).splitlines()), "")


def _users_lines(error: BaseException) -> list[str]:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THE_USERS)
    ]
    lines = "".join(traceback.format_list(frames)).splitlines()
    if isinstance(error, SyntaxError):
        lines += "".join(traceback.format_exception_only(type(error), error)).splitlines()
    return lines
