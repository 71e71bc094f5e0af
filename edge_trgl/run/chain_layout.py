"""What planning found out about a chain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChainLayout:
    """A chain as planning settled on it, kept with the run so that training need not work it out again.

    `starts`: the first block of each module; `heads`: the name of each module's head, None where it has none;
    `shapes` and `dtypes`: of one sample at the output of each module; `names`: what each module is made of;
    `num_params`: trunk parameters of each module; `built`: the first weights come with the blocks, and so are
    written to module files before training.
    """

    starts: tuple[int, ...]
    heads: tuple[str | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    names: tuple[str, ...]
    num_params: tuple[int, ...]
    built: bool
