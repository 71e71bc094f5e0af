"""`edge-trgl evaluate`: the accuracies of a trained run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from edge_trgl.cli.documents import part_of
from edge_trgl.cli.orders import Evaluate, Order
from edge_trgl.cli.verb import Verb, option
from edge_trgl.jobs.requests import EvaluateResult, evaluation_document
from edge_trgl.run.facts import Reconstruction, Scores
from edge_trgl.run.folder import Run
from edge_trgl.run.wording import samples_in, validation_samples
from edge_trgl.runtime.records import Document, document_of, read_record


@click.command(cls=Verb)
@click.argument("run", type=Path)
@option("--json", "as_json", is_flag=True, help="print the scores as one JSON document")
def evaluate(run: Path, as_json: bool) -> Order:  # noqa: FBT001
    """Score a trained run at every depth."""
    Run.open(run)
    return Evaluate(run=str(run), as_json=as_json)


def result_text(document: Document, folder: Path, *, as_json: bool) -> str:
    """Lay out the scores of a run."""
    result = read_record(EvaluateResult, document)
    if as_json:
        return json.dumps(evaluation_document(result))
    return _scores_text(result.scores, samples_in(Run(folder).summary()))


def _scores_text(scores: Scores, samples: str) -> str:
    chosen_on = validation_samples(scores.chosen_on, samples)
    if scores.reconstruction is not None:
        return rebuilt_text(scores.reconstruction, chosen_on, samples)
    lines = []
    for depth, accuracy in enumerate(scores.per_depth, scores.first_depth):
        mark = "  chosen" if depth == scores.chosen_depth else ""
        lines.append(f"depth {depth:3d}  {chosen_on} {accuracy:.2%}{mark}")
    return "\n".join([*lines, test_text(document_of(scores), samples)])


def rebuilt_text(errors: Reconstruction, chosen_on: str, samples: str) -> str:
    """Say how well an autoencoder rebuilds samples; `chosen_on` names those that were held out of training."""
    measured = {chosen_on: errors.validation, f"test {samples}": errors.test}
    found = [f"{error:.4f} on {which}" for which, error in measured.items() if error is not None]
    return f"reconstruction error {', '.join(found)} (1 is as good as the mean of all {samples})"


@dataclass(frozen=True, kw_only=True)
class TestScores:
    """Accuracies on the test set, as fractions, None without one; see `run.facts.Scores`."""

    chosen_depth: int
    chosen: float | None
    last: float | None
    chosen_on: str


def test_text(document: Document, samples: str) -> str:
    """Say how a trained run scores on the test set; the document has at least the keys of `TestScores`."""
    scores = part_of(document, TestScores)
    if scores.chosen is None or scores.last is None:
        return f"chosen depth {scores.chosen_depth}; there is no test set"
    chosen = f"test accuracy {scores.chosen:.2%} at the chosen depth {scores.chosen_depth}"
    text = f"{chosen}, {scores.last:.2%} at the last"
    if scores.chosen_on != "half-test":
        return text
    return f"{text}\nscored as the paper's authors did: the depth was chosen on half of the test {samples}"
