"""The paper's tables as data: flags of their runs, and the paper's figures in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Score = Literal["last", "best", "last_tenth"]

Figure = tuple[float, float]
"""A mean and half the width of its 95 % interval, as printed."""


class WrongChoiceError(Exception):
    """Something was asked for that there is not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to train: recipes over that of the table, and flags."""

    recipes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of a table: flags, or a number of training images (None: all), and the paper's figure by row."""

    flags: tuple[str, ...] = ()
    limit: int | None = None
    paper: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper, whose recipe has its name.

    Args:
        title: net, data and regime.
        data: the folder of the image set, under the cache of image sets.
        case_title: what its lines differ by.
        scored: the accuracy that the paper gives: on test images of the `last` block, or of the `best`, which is
            chosen on them; or `last_tenth`, of the last block on left-over images, a mean over epochs, where it
            differs from one epoch to another.
        cases: its lines by name.
        default: the lines that are run unless others are asked for.
        figure: the line whose accuracies by depth are drawn.
        rows: its columns, by name.
        flags: of all its runs.
        pretrains: whether they begin with an encoder that was trained without labels, one for each seed.
    """

    title: str
    data: str
    case_title: str
    scored: Score
    cases: Mapping[str, Case]
    default: tuple[str, ...]
    figure: str
    rows: Mapping[str, Row]
    flags: tuple[str, ...] = ()
    pretrains: bool = False


VANGL, TRGL, END_TO_END = "VanGL", "TRGL", "end-to-end"
MLS_VANGL, MLS_TRGL = "multi-lap-VanGL", "multi-lap-TRGL"
ROWS = {
    VANGL: Row(flags=("--no-transport",)),
    TRGL: Row(),
    END_TO_END: Row(recipes=("end-to-end",)),
}
_OWN = ("--set", "model.shared_statistics=false")
TABLE_14 = {
    VANGL: Row(flags=("--no-transport", "--recalibrate")),
    TRGL: Row(flags=("--recalibrate",)),
    "VanGL-own-statistics": Row(flags=("--no-transport", "--recalibrate", *_OWN)),
    "TRGL-own-statistics": Row(flags=("--recalibrate", *_OWN)),
    END_TO_END: Row(recipes=("end-to-end",)),
}
"""What is measured during training is without recalibration, which comes at the end: one run gives both."""
MULTI_LAP = {
    MLS_VANGL: Row(recipes=("multi-lap",), flags=("--no-transport",)),
    MLS_TRGL: Row(recipes=("multi-lap",)),
}


def _sizes(whole: int, columns: tuple[str, ...], lines: Mapping[int, tuple[Figure, ...]]) -> dict[str, Case]:
    """A line for each train size; that of all images has no limit."""
    return {
        str(size): Case(limit=None if size == whole else size, paper=dict(zip(columns, figures, strict=True)))
        for size, figures in lines.items()
    }


def _depths(lines: Mapping[int, tuple[Figure, Figure]], more: Mapping[int, tuple[str, ...]]) -> dict[str, Case]:
    """A line for each number of modules, the end-to-end figure being the same on all of them."""
    return {
        str(number): Case(
            flags=("--modules", str(number), *more.get(number, ())),
            paper={VANGL: vangl, TRGL: trgl, END_TO_END: (77.73, 1.61)},
        )
        for number, (vangl, trgl) in lines.items()
    }


TABLE_14_SIZES = _sizes(
    60000,
    (VANGL, TRGL, END_TO_END),
    {
        60000: ((99.07, 0.04), (99.08, 0.04), (99.30, 0.03)),
        30000: ((98.90, 0.05), (98.93, 0.06), (99.22, 0.03)),
        12000: ((98.52, 0.06), (98.59, 0.06), (98.96, 0.06)),
        6000: ((98.05, 0.09), (98.16, 0.07), (98.62, 0.06)),
        1500: ((96.34, 0.12), (96.91, 0.07), (97.19, 0.08)),
        1200: ((95.80, 0.12), (96.58, 0.09), (96.88, 0.09)),
        600: ((91.35, 0.99), (95.16, 0.15), (95.30, 0.17)),
        300: ((89.81, 0.73), (92.86, 0.24), (92.87, 0.28)),
        150: ((81.84, 1.22), (87.48, 0.42), (87.82, 0.59)),
    },
)

TABLES = {
    "table3": Table(
        title="STL-10, ResNet-110, parallel",
        data="stl10",
        case_title="modules",
        scored="last",
        cases=_depths(
            {
                2: ((79.85, 0.93), (80.04, 0.85)),
                4: ((77.11, 2.31), (79.72, 0.81)),
                8: ((75.71, 0.55), (77.82, 0.73)),
                16: ((73.57, 0.95), (77.22, 1.20)),
            },
            {2: ("--tau", "50")},
        ),
        default=("16",),
        figure="16",
        rows=ROWS,
    ),
    "table10": Table(
        title="CIFAR-10, 2-7 ResNet, parallel",
        data="cifar10",
        case_title="train size",
        scored="last",
        cases=_sizes(50000, (VANGL, TRGL), {50000: ((94.01, 0.17), (94.05, 0.18))}),
        default=("50000",),
        figure="50000",
        rows={name: ROWS[name] for name in (VANGL, TRGL)},
    ),
    "table11": Table(
        title="CIFAR-100, 10-1 ResNet, sequential and multi-lap",
        data="cifar100",
        case_title="train size",
        scored="best",
        cases=_sizes(
            50000,
            (VANGL, TRGL, MLS_VANGL, MLS_TRGL, END_TO_END),
            {
                50000: ((68.74, 0.45), (68.79, 0.56), (69.48, 0.53), (69.95, 0.50), (75.85, 0.70)),
                25000: ((60.48, 0.15), (60.59, 0.14), (61.33, 0.23), (61.71, 0.32), (65.36, 0.31)),
                12500: ((51.64, 0.33), (51.74, 0.26), (51.30, 0.22), (51.89, 0.30), (52.39, 0.97)),
                5000: ((36.37, 0.33), (36.40, 0.40), (33.68, 0.48), (34.61, 0.59), (36.38, 0.31)),
            },
        ),
        default=("5000",),
        figure="5000",
        rows={**ROWS, **MULTI_LAP},
    ),
    "table12": Table(
        title="CIFAR-100, 10-1 ResNet, parallel",
        data="cifar100",
        case_title="train size",
        scored="best",
        cases=_sizes(
            50000,
            (VANGL, TRGL, END_TO_END),
            {
                50000: ((72.59, 0.40), (72.63, 0.40), (75.85, 0.70)),
                25000: ((64.84, 0.19), (65.01, 0.27), (65.36, 0.31)),
                12500: ((55.13, 0.24), (55.40, 0.35), (52.39, 0.97)),
                5000: ((39.45, 0.23), (40.36, 0.23), (36.38, 0.31)),
            },
        ),
        default=("5000",),
        figure="5000",
        rows=ROWS,
    ),
    "table13": Table(
        title="CIFAR-10, 10-1 ResNet, sequential",
        data="cifar10",
        case_title="train size",
        scored="last",
        cases=_sizes(
            50000,
            (VANGL, TRGL, END_TO_END),
            {
                50000: ((88.02, 0.18), (88.20, 0.24), (91.88, 0.18)),
                25000: ((83.95, 0.13), (84.28, 0.22), (88.75, 0.27)),
                10000: ((76.00, 0.39), (77.18, 0.34), (82.61, 0.35)),
                5000: ((67.74, 0.49), (69.67, 0.44), (73.93, 0.67)),
                1000: ((45.67, 0.88), (51.34, 0.90), (50.63, 0.98)),
            },
        ),
        default=("1000",),
        figure="1000",
        rows=ROWS,
    ),
    "table14": Table(
        title="MNIST, 20-1 ResNet, parallel, one classifier",
        data="mnist",
        case_title="train size",
        scored="last_tenth",
        cases=TABLE_14_SIZES,
        default=("150", "300", "600"),
        figure="150",
        rows=TABLE_14,
        flags=("--set", "data.validation=0.05", "--set", "train.look_every=10"),
        pretrains=True,
    ),
    "table14-own-heads": Table(
        title="MNIST, 20-1 ResNet, parallel",
        data="mnist",
        case_title="train size",
        scored="last",
        cases=TABLE_14_SIZES,
        default=("150", "300", "600"),
        figure="150",
        rows=ROWS,
    ),
}
