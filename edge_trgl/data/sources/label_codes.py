"""Numbers for texts, such as the labels and the groups of samples, in the order in which they are first met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAX_LABELS = 1000
MAX_FRACTIONS = 20
"""More labels than this that are numbers with a fraction are no names of classes."""
_SEPARATORS = (";", "|")
ONE_LABEL = "edge-trgl learns one class for each sample: predicting {} is not supported."


class Codes(dict[str, int]):
    """The number of each text; a text that is new gets the next number."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


class LabelCodes(Codes):
    """The number of each label.

    Args:
        where: the file and its column or array, for messages.

    Raises:
        InputError: on a new label, if what it holds is not one class out of several.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._fractions = 0

    def __missing__(self, text: str) -> int:
        if any(separator in text for separator in _SEPARATORS):
            raise InputError(
                f"{self._where} holds {text!r}, which reads as several labels at once",
                hint=ONE_LABEL.format("several labels") + " If it is the name of one class, rename it.",
            )
        self._fractions += _has_fraction(text)
        if self._fractions > MAX_FRACTIONS or len(self) >= MAX_LABELS:
            raise InputError(
                f"{self._where} holds too many different values for names of classes, such as {text}",
                hint=ONE_LABEL.format("a number (regression)") + " Write the name of a class in its place.",
            )
        return super().__missing__(text)

    def classes(
        self, where: Path, codes: Mapping[str, NDArray[np.int64]]
    ) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
        """Number the classes that training has samples of.

        Args:
            where: the set, for messages.
            codes: the code of each label by split, int64 [N].

        Returns:
            The class names, in the order of numbers if all are numbers, else of the alphabet; and the labels of
            each split by position among them.

        Raises:
            InputError: a split has samples of a class that training has none of.
        """
        present = {split: set(np.unique(those).tolist()) for split, those in codes.items()}
        for split, those in present.items():
            unknown = [name for name, code in self.items() if code in those - present["train"]]
            if unknown:
                raise InputError(
                    f"{where}: the {split} split has samples of {unknown[0]}, of which training has none",
                    hint="Leave them out, or give training samples of every class.",
                )
        names = _sorted(name for name, code in self.items() if code in present["train"])
        positions = np.zeros(len(self), np.int64)
        positions[[self[name] for name in names]] = np.arange(len(names))
        return tuple(names), {split: positions[those] for split, those in codes.items()}


def _has_fraction(text: str) -> bool:
    try:
        return not float(text.replace(",", ".")).is_integer()
    except (ValueError, OverflowError):  # infinity
        return False


def _sorted(names: Iterable[str]) -> list[str]:
    names = list(names)
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
