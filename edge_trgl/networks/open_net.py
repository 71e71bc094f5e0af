"""Opens a model that is not of the catalogue: it is imported and cut into blocks."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edge_trgl.networks.chain import Chain, Shape
from edge_trgl.networks.cutting.cut import cut
from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.networks.cutting.net import Net
from edge_trgl.networks.cutting.users_code import users_code
from edge_trgl.networks.cutting.without_weights import build_lightly
from edge_trgl.runtime.errors import InputError


def open_net(
    name: str,
    *,
    input_shape: Shape,
    num_classes: int,
    any_classifier: bool = False,
    scratch: Path | None = None,
) -> Net | None:
    """Import a model and cut it into blocks; return None if it is a chain already.

    Args:
        name: as in `build_chain`.
        input_shape: one sample, (C, H, W) or (C, L).
        num_classes: number of logits.
        any_classifier, scratch: as in `cut`.

    Raises:
        UsageError: the library has no such model, or the user's code raises an error.
        InputError: the model cannot be imported, or cannot be cut; the message says where and why.
    """
    if ":" not in name:
        return None
    factory = model_factory(name, input_shape, num_classes)
    with users_code(name):
        model: object = build_lightly(factory, scratch)
    if isinstance(model, Chain):
        return None
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {name}: the factory returned {type(model).__name__}, neither a Chain nor a module",
            hint="Return an nn.Module that gives logits, or Chain.from_blocks(blocks, ...).",
        )
    return cut(
        factory,
        name=name,
        input_shape=input_shape,
        num_classes=num_classes,
        any_classifier=any_classifier,
        scratch=scratch,
    )
