"""From what the user calls a model to its chain."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_trgl.chain import Chain, by_depth
from edge_trgl.models.km_resnet import km_resnet
from edge_trgl.models.resnet110 import resnet110
from edge_trgl.runtime.errors import InputError, UsageError

NAMES = ("km-10-1", "km-2-7", "km-20-1", "resnet110", "resnet110-heavy")
"""Examples that stand for all: any km-K-M is understood."""


def build_chain(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: int = 32,
    num_modules: int | None = None,
    downsample: tuple[int, ...] | None = None,
    head: str = "conv",
) -> Chain:
    """The chain that `name` stands for: km-K-M, resnet110, resnet110-heavy, or module:factory.

    `num_modules` regroups its blocks. A factory is called with `input_shape` and `num_classes` and returns a
    `Chain`.

    Raises:
        UsageError: no such model, or it has fewer blocks than modules were asked for.
        InputError: the user's factory cannot be imported or fails.
    """
    km = re.fullmatch(r"km-(\d+)-(\d+)", name)
    if km and int(km[1]) and int(km[2]):
        chain = km_resnet(
            int(km[1]),
            int(km[2]),
            input_shape=input_shape,
            num_classes=num_classes,
            width=width,
            downsample=downsample,
            head=head,
        )
        return chain if num_modules is None else _regroup(chain, num_modules)
    if name in ("resnet110", "resnet110-heavy"):
        _check_count(name, num_modules or 16, 54)
        return resnet110(
            input_shape=input_shape,
            num_classes=num_classes,
            num_modules=num_modules or 16,
            heavy=name.endswith("heavy"),
            head=head,
        )
    if ":" in name:
        chain = _from_factory(name, input_shape, num_classes)
        return chain if num_modules is None else _regroup(chain, num_modules)
    near = difflib.get_close_matches(name, NAMES, n=1)
    raise UsageError(
        f"there is no model {name!r}",
        hint=(f"did you mean {near[0]}? " if near else "")
        + "Known: km-K-M (any K and M, as km-10-1), resnet110, resnet110-heavy, or module:factory.",
    )


def _regroup(chain: Chain, num_modules: int) -> Chain:
    _check_count(chain.name, num_modules, len(chain.blocks))
    return chain.regroup(by_depth(len(chain.blocks), num_modules))


def _check_count(name: str, num_modules: int, num_blocks: int) -> None:
    if not 1 <= num_modules <= num_blocks:
        raise UsageError(
            f"--modules {num_modules}: {name} has {num_blocks} blocks and so 1 to {num_blocks} modules",
            hint="Choose a number in that range.",
        )


def _from_factory(name: str, input_shape: tuple[int, int, int], num_classes: int) -> Chain:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"--model {name}: {error}",
            hint="Give importable.module:function; the current folder is searched too.",
        ) from error
    chain = factory(input_shape=input_shape, num_classes=num_classes)
    if not isinstance(chain, Chain):
        raise InputError(
            f"--model {name}: the factory returned {type(chain).__name__}, not a Chain",
            hint="Wrap its blocks: return Chain.from_blocks(blocks, input_shape=..., num_classes=...).",
        )
    return chain
