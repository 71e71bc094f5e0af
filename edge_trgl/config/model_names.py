"""The names of the networks of the catalogue, as plain data: the command line knows them without torch."""

from __future__ import annotations

import re

from edge_trgl.config.nearest import nearest
from edge_trgl.runtime.errors import UsageError

KM = re.compile(r"km-([1-9]\d*)-([1-9]\d*)(-encoder)?")
"""Names of K-M networks: K, M, and whether the encoder is a module of its own."""

FIXED = ("resnet50", "resnet101", "resnet152", "resnet110", "resnet110-heavy", "swin-tiny", "vgg19")
"""Names of networks whose depth is fixed."""

_SUGGESTED = ("km-10-1", "km-2-7", "km-20-1", "km-20-1-encoder", *FIXED)


def unknown_model(name: str) -> UsageError:
    """Return what to say of a name that is neither in the catalogue nor imported."""
    near = nearest(name, _SUGGESTED)
    return UsageError(
        f"there is no model {name!r}",
        hint=(f"did you mean {near[0]}? " if near else "")
        + f"Known: km-K-M (any K and M, as km-10-1), {', '.join(FIXED)}, "
        "torchvision:NAME, timm:NAME, or module:factory.",
    )
