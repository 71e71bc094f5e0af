"""Format a prediction as a line of text, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class, its index from 0, and its probability, 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The prediction for one sample, or the reason why there is none.

    Args:
        file: the file that it comes from.
        sample: its index in the file, from 0; None if the file is a single image or cannot be read.
        top: the most likely classes, the best first; empty if there is an error.
        exit_number: the exit at which it left, from 1; None without early exit.
        compute_share: FLOPs spent on it as a share of the whole network's, 0 to 1; None without early exit.
        error: why there is no prediction; None if there is one.
    """

    file: str
    sample: int | None = None
    top: tuple[Guess, ...] = ()
    exit_number: int | None = None
    compute_share: float | None = None
    error: str | None = None


def as_text(answer: Answer) -> str:
    """Format as text, `photos/1.jpg  cat 97.3%  dog 1.9%`, or the error if there is one."""
    if answer.error is not None:
        return printable(answer.error)
    name = answer.file if answer.sample is None else f"{answer.file}[{answer.sample}]"
    guesses = [f"{guess.label} {guess.probability:.1%}" for guess in answer.top]
    early = [] if answer.exit_number is None else [f"exit {answer.exit_number}"]
    return printable("  ".join([name, *guesses, *early]))


def as_json(answer: Answer) -> str:
    """Format as a JSON object on one line, without the fields that do not apply."""
    document = {
        "file": answer.file,
        "sample": answer.sample,
        "top": [vars(guess) for guess in answer.top] or None,
        "exit": answer.exit_number,
        "compute_share": answer.compute_share,
        "error": answer.error,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None})


def as_csv(answer: Answer) -> str:
    """Format as a CSV row with the columns of `csv_header`."""
    guesses = [value for guess in answer.top for value in (guess.label, f"{guess.probability:.6f}")]
    share = None if answer.compute_share is None else f"{answer.compute_share:.6f}"
    row = [answer.file, answer.sample, answer.error, answer.exit_number, share, *guesses]
    return _row(["" if value is None else printable(str(value)) for value in row])


def csv_header(num_guesses: int) -> str:
    """The row of column names, with a label and a probability for each guess."""
    guesses = [f"{name}_{number}" for number in range(1, num_guesses + 1) for name in ("label", "probability")]
    return _row(["file", "sample", "error", "exit", "compute_share", *guesses])


def printable(text: str) -> str:
    """Escape unprintable characters, such as line breaks in file names, so that the text is one line."""
    return "".join(_printable(text))


def _printable(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isprintable() else character.encode("unicode_escape").decode()


def _row(values: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(values)
    return stream.getvalue()
