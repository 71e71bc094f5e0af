"""PredSim: prediction and similarity matching (Nøkland and Eidnes, 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.method.losses.mix import Mix
from edge_trgl.method.losses.similarity import Similarity


@dataclass(frozen=True, kw_only=True)
class PredSim:
    """(1 − β) · CE + β · similarity matching, of every module; β from 0 to 1, the paper's is 0.99.

    The paper steps with Adam, to which the factor before the head's own gradient is nothing; here, too, the head
    learns as if it were 1 (see `Mix`).
    """

    beta: float = 0.99

    def of(self, module: int, num_modules: int) -> Mix:
        """Of every module the same."""
        return Mix(cross_entropy=1 - self.beta, parts=((self.beta, Similarity),))
