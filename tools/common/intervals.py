"""95 % confidence intervals of means and of ratios."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045),
)
"""97.5 % points of Student's distribution with 1, 2, ... degrees of freedom."""

DRAWS = 5_000


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of at most thirty values and half the width of its 95 % interval, None for a single value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    return mean, T_975[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))


def median_ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The median of a/b over `pairs`, and the ends of its 95 % bootstrap interval."""
    ratios = [above / below for above, below in pairs]
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return statistics.median(ratios), medians[DRAWS * 25 // 1000], medians[DRAWS * 975 // 1000]
