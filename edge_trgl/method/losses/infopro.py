"""InfoPro: keep what the image holds, learn what the label says (Wang et al., 2021, equations 4 to 6)."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.method.losses.contrast import Contrast
from edge_trgl.method.losses.mix import Auxiliary, Mix
from edge_trgl.method.losses.reconstruction import Reconstruction

Ends = tuple[float, ...]
"""Weights of the first module and of the last but one; the weights between them change linearly."""


@dataclass(frozen=True, kw_only=True)
class InfoPro:
    """λ₁ · reconstruction + λ₂ · (CE or, with `contrast`, supervised contrast); CE alone for the last module.

    With contrast the head is trained on the module's output without influencing the module. The defaults are
    published ones (ResNet-110 in 16 modules on SVHN).
    """

    contrast: bool = False
    lambda1: Ends = (5.0, 0.5)
    lambda2: Ends = (0.2, 1.0)

    def of(self, module: int, num_modules: int) -> Mix:
        """The loss of a module by its depth; a part with weight 0 is left out."""
        if module == num_modules - 1:
            return Mix()
        share = module / (num_modules - 2) if num_modules > 2 else 0.0
        image, label = _between(self.lambda1, share), _between(self.lambda2, share)
        wanted: list[tuple[float, type[Auxiliary]]] = [(image, Reconstruction)]
        if self.contrast:
            wanted.append((label, Contrast))
        parts = tuple((weight, kind) for weight, kind in wanted if weight)
        return Mix(cross_entropy=0.0 if self.contrast else label, parts=parts)


def _between(ends: Ends, share: float) -> float:
    return ends[0] * (1 - share) + ends[1] * share
