"""What depth gave a run, by the scores of each depth on validation images: when to stop, and how to say it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_trgl.config.sections import RunConfig
from edge_trgl.run.facts import RunFacts, Scores
from edge_trgl.run.wording import validation_samples
from edge_trgl.runtime.storage.state import Metric

VALIDATION = "validation"
"""The kind of the metrics that hold what a depth gives on validation images, measured during training."""


@dataclass(frozen=True, kw_only=True)
class DepthScore:
    """What the classifier at one depth gives on validation samples: accuracy (fraction), mean cross-entropy."""

    accuracy: float
    cross_entropy: float


def measured(metrics: Iterable[Metric]) -> dict[int, DepthScore]:
    """Return the score of each depth, from 1, by metrics of kind `VALIDATION`."""
    return {
        metric.module + 1: DepthScore(
            accuracy=metric.num_correct / metric.num_images, cross_entropy=metric.loss_sum / metric.num_images
        )
        for metric in metrics
    }


def accuracies_of(scores: Mapping[int, DepthScore]) -> dict[int, float]:
    """Return the accuracy of each depth."""
    return {depth: score.accuracy for depth, score in scores.items()}


def best(accuracies: Mapping[int, float]) -> int:
    """Return the depth with the best accuracy; of equals the first, as it is the smaller network."""
    return max(sorted(accuracies), key=lambda depth: accuracies[depth])


def last_gain(scores: Mapping[int, DepthScore]) -> int:
    """Return the last depth that is better than all before it, in accuracy or in cross-entropy.

    A few hundred samples cannot tell a point of accuracy from chance; the cross-entropy falls more steadily.
    """
    accuracy, cross_entropy, gained = -1.0, math.inf, 0
    for depth, score in sorted(scores.items()):
        if score.accuracy > accuracy or score.cross_entropy < cross_entropy:
            gained = depth
        accuracy, cross_entropy = max(accuracy, score.accuracy), min(cross_entropy, score.cross_entropy)
    return gained


def no_longer_pays(scores: Mapping[int, DepthScore], patience: int) -> bool:
    """Return whether the last `patience` depths gained nothing over those before them."""
    return bool(scores) and max(scores) - last_gain(scores) >= patience


def trained_depth(config: RunConfig, facts: RunFacts) -> int:
    """Return the number of modules that a planned run trains to its end: all, unless `--grow` leaves some out."""
    metrics = facts.metrics(VALIDATION) if config.train.grow else []
    return grown_depth(config, metrics, num_modules=len(facts.planned.layout.starts))


def grown_depth(config: RunConfig, metrics: Iterable[Metric], *, num_modules: int) -> int:
    """Return how deep `--grow` leaves a network, by metrics of kind `VALIDATION`: all modules without any.

    Sequential training has a look at each module, and stops; parallel training looks at all that are left after
    some epochs, and drops those that are too far behind the last gain.
    """
    patience = config.train.grow_patience
    if config.train.regime != "parallel":
        scores = measured(metrics)
        return max(scores) if no_longer_pays(scores, patience) else num_modules
    looks: dict[int, list[Metric]] = {}
    for metric in metrics:
        looks.setdefault(metric.epoch, []).append(metric)
    return min([num_modules, *(last_gain(measured(look)) + patience for look in looks.values())])


def depth_text(scores: Scores, *, num_modules: int, depth: int, samples: str) -> str:
    """Say in one sentence what depth gave, on validation samples.

    Args:
        scores: of the trained run.
        num_modules: number of modules of the network.
        depth: number of those that were trained, or left as they are with `--freeze`.
        samples: what they are called: images or windows.
    """
    chosen, where = scores.chosen_depth, validation_samples(scores.chosen_on, samples)
    accuracies = dict(enumerate(scores.per_depth, scores.first_depth))
    if not accuracies:
        return f"depth {chosen} of {num_modules} is used: there are no {where} to compare depths on"
    accuracy = f"{accuracies[chosen]:.1%} on {where}"
    if num_modules == 1:
        return f"the network has one module: {accuracy}"
    if len(accuracies) == 1 and depth == num_modules:
        return f"depth {chosen} of {num_modules} is the only one with a classifier: {accuracy}"
    behind = []
    if chosen < depth:
        behind.append(f"{_modules(chosen + 1, depth)} added nothing")
    if depth < num_modules:
        verb = "was" if depth + 1 == num_modules else "were"
        behind.append(f"{_modules(depth + 1, num_modules)} {verb} left out")
    text = f"depth {chosen} of {num_modules} was chosen: {accuracy}{_gain(accuracies, chosen)}"
    return "; ".join([text, " and ".join(behind)]) if behind else text


def so_far_text(accuracies: Mapping[int, float], *, epochs: int, samples: str, chosen_on: str) -> str:
    """Say which modules add nothing after the first epochs of training, or that the last depth is the best.

    `accuracies`: of each depth on the samples that the depth is chosen on; `chosen_on`: which those are.
    """
    chosen, last = best(accuracies), max(accuracies)
    accuracy = f"{accuracies[chosen]:.1%} on {validation_samples(chosen_on, samples)}{_gain(accuracies, chosen)}"
    text = f"after {epochs} epochs depth {chosen} of {last} is the best: {accuracy}"
    if chosen == last:
        return text
    verb = "adds" if chosen + 1 == last else "add"
    return f"{text}; {_modules(chosen + 1, last)} {verb} nothing so far (--modules or --grow leaves them out)"


def dropped_text(
    accuracies: Mapping[int, float], *, depth: int, num_modules: int, epochs: int, samples: str
) -> str:
    """Say which modules of `num_modules` are dropped after so many epochs, and what the first `depth` give."""
    chosen, verb = best(accuracies), "is" if depth + 1 == num_modules else "are"
    where = validation_samples("validation", samples)
    return (
        f"after {epochs} epochs depth {chosen} is the best: {accuracies[chosen]:.1%} on {where}; "
        f"{_modules(depth + 1, num_modules)} {verb} dropped"
    )


def stopped_text(scores: Mapping[int, DepthScore], *, num_modules: int, samples: str) -> str:
    """Say why training stops before the last modules."""
    accuracies, depth = accuracies_of(scores), max(scores)
    chosen, verb = best(accuracies), "is" if depth + 1 == num_modules else "are"
    where = validation_samples("validation", samples)
    return (
        f"{_modules(last_gain(scores) + 1, depth)} gained nothing on {where} (depth {chosen} is the best: "
        f"{accuracies[chosen]:.1%}): {_modules(depth + 1, num_modules)} {verb} not trained"
    )


def _gain(accuracies: Mapping[int, float], chosen: int) -> str:
    """How much the chosen depth has over the first; empty if it is the first."""
    first = min(accuracies)
    if chosen == first:
        return ""
    return f", {_points(accuracies[chosen] - accuracies[first])} above depth {first}"


def _points(share: float) -> str:
    points = 100 * share
    number = f"{points:.1f}" if points >= 0.05 else f"{points:.1g}"
    return f"{number} point{'' if number in ('1.0', '1') else 's'}"


def _modules(first: int, last: int) -> str:
    return f"module {first}" if first == last else f"modules {first} {'and' if last == first + 1 else 'to'} {last}"
