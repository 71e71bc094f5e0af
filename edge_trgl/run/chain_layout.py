"""The chain's layout, as planning chose it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChainLayout:
    """The layout that planning chose for a chain, kept with the run so that training need not compute it again.

    Attributes:
        starts: the first block of each module, from 0.
        heads: the name of each module's head; None where it has none.
        shapes: of one sample at the output of each module.
        dtypes: of these outputs, by name.
        names: what each module is made of, in words.
        num_params: parameters in the trunk of each module.
        built: whether the blocks come with their first weights, which are then written to files before training.
    """

    starts: tuple[int, ...]
    heads: tuple[str | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    names: tuple[str, ...]
    num_params: tuple[int, ...]
    built: bool
