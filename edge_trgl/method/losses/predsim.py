"""PredSim: prediction and similarity matching (Nøkland and Eidnes, 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.method.losses.mix import Mix
from edge_trgl.method.losses.similarity import Similarity


@dataclass(frozen=True, kw_only=True)
class PredSim:
    """(1 − β) · CE + β · similarity matching in every module; β from 0 to 1, 0.99 in the paper.

    The paper uses Adam, which is indifferent to the factor before the head's own gradient; here the head learns as
    if that factor were 1 (see `Mix`).
    """

    beta: float = 0.99

    def of(self, module: int, num_modules: int) -> Mix:
        """The same for every module."""
        return Mix(cross_entropy=1 - self.beta, parts=((self.beta, Similarity),))
