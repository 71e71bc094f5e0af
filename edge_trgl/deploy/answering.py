"""Turn samples into answers, one at a time, so that memory does not grow with the number of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_trgl.deploy.answers import Answer, Guess
from edge_trgl.deploy.prediction import Classifier, EarlyPrediction, Prediction
from edge_trgl.deploy.samples import Sample, Unreadable, read_samples


def answer_all(classifier: Classifier, paths: Iterable[Path], num_guesses: int) -> Iterator[Answer]:
    """Yield an answer for each sample in the files and folders, and for each file that cannot be read.

    Args:
        classifier: the network.
        paths: image files, `.npz` archives and folders of them.
        num_guesses: the number of classes in an answer.

    Raises:
        InputError: the network cannot be run.
    """
    samples = read_samples(paths, classifier.input_shape, pixels=classifier.takes_pixels, resize=classifier.resize)
    for sample in samples:
        if isinstance(sample, Unreadable):
            yield Answer(file=sample.file, error=sample.reason)
        else:
            yield _answer(classifier, sample, num_guesses)


def _answer(classifier: Classifier, sample: Sample, num_guesses: int) -> Answer:
    prediction = classifier.predict(sample.values[None])
    if not np.isfinite(prediction.logits).all():
        reason = f"the network's scores for {sample.file} are not finite"
        return Answer(file=sample.file, sample=sample.index, error=reason)
    top = _guesses(prediction, classifier.class_names, num_guesses)
    answer = Answer(file=sample.file, sample=sample.index, top=top)
    if not isinstance(prediction, EarlyPrediction):
        return answer
    share = float(prediction.compute_shares[0])
    return replace(answer, exit_number=int(prediction.exits[0]), compute_share=share)


def _guesses(prediction: Prediction, names: tuple[str, ...], num_guesses: int) -> tuple[Guess, ...]:
    probabilities = prediction.probabilities[0]
    # A stable sort ranks the first of equal classes highest, as argmax does in `Prediction.labels`.
    best = np.argsort(-probabilities, kind="stable")[:num_guesses].tolist()
    return tuple(
        Guess(label=names[index] if names else str(index), index=index, probability=float(probabilities[index]))
        for index in best
    )
