"""From the name of a model to its chain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from edge_trgl.config.model_names import KM, unknown_model
from edge_trgl.networks.chain import Chain, Shape, split_by_depth
from edge_trgl.networks.zoo.km_resnet import km_resnet
from edge_trgl.networks.zoo.resnet import resnet
from edge_trgl.networks.zoo.resnet110 import resnet110
from edge_trgl.networks.zoo.swin import swin_tiny
from edge_trgl.networks.zoo.vgg import vgg19
from edge_trgl.runtime.errors import UsageError

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net

NETS: dict[str, Callable[..., Chain]] = {
    "resnet50": partial(resnet, 50),
    "resnet101": partial(resnet, 101),
    "resnet152": partial(resnet, 152),
    "resnet110": resnet110,
    "resnet110-heavy": partial(resnet110, heavy=True),
    "swin-tiny": swin_tiny,
    "vgg19": vgg19,
}
"""Networks whose depth is fixed; each knows how to split itself into a given number of modules."""


def build_chain(
    name: str,
    *,
    input_shape: Shape,
    num_classes: int,
    width: int = 32,
    num_modules: int | None = None,
    downsample: tuple[int, ...] | None = None,
    net: Net | None = None,
) -> Chain:
    """Build the chain of a model, with the model's own heads.

    Args:
        name: km-K-M, one of `NETS`, torchvision:NAME, timm:NAME, or module:factory. The factory of a user takes
            `input_shape` and `num_classes` and returns a `Chain`, or an `nn.Module` that `open_net` cuts.
        input_shape: one sample, (C, H, W) or (C, L).
        num_classes: number of logits.
        width: channels of the first module of a km-K-M.
        num_modules: number of modules to group the blocks into; None keeps the model's own.
        downsample: the modules of a km-K-M that halve the map; None is the paper's choice.
        net: what `open_net` returned for `name`; without it, a user's factory must return a `Chain`.

    Raises:
        UsageError: there is no such model, it reads samples of another shape, has fewer blocks than `num_modules`,
            or cannot halve the map where it should.
        InputError: the user's factory cannot be imported, or fails.
    """
    if km := KM.fullmatch(name):
        _check_downsample(name, downsample, int(km[1]))
        chain = km_resnet(
            int(km[1]),
            int(km[2]),
            input_shape=input_shape,
            num_classes=num_classes,
            width=width,
            downsample=downsample,
            separate_encoder=km[3] is not None,
        )
        return chain if num_modules is None else _regroup(chain, num_modules)
    if name in NETS or ":" in name:
        _check_downsample(name, downsample, 1)
    if name in NETS:
        make = partial(NETS[name], input_shape=_image_shape(name, input_shape), num_classes=num_classes)
        if num_modules is None:
            return make()
        _check_num_modules(name, num_modules, len(make().blocks))
        return make(num_modules=num_modules)
    if ":" in name:
        chain = net.chain() if net else _users_chain(name, input_shape, num_classes)
        return chain if num_modules is None else _regroup(chain, num_modules)
    raise unknown_model(name)


def _image_shape(name: str, input_shape: Shape) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise UsageError(
            f"--model {name} reads images [C, H, W]; a sample of this data set is {list(input_shape)}",
            hint="Choose km-K-M, such as km-10-1, or give a network of your own as module:factory.",
        )
    return input_shape


def _regroup(chain: Chain, num_modules: int) -> Chain:
    _check_num_modules(chain.name, num_modules, len(chain.blocks))
    return chain.regroup(split_by_depth(len(chain.blocks), num_modules))


def _check_downsample(name: str, downsample: tuple[int, ...] | None, num_modules: int) -> None:
    """Refuse modules that cannot halve the map: module 0 of a km-K-M, and every module of other models."""
    wrong = [module for module in downsample or () if not 0 < module < num_modules]
    if wrong:
        allowed = f"modules 1 to {num_modules - 1}" if num_modules > 1 else "no module"
        raise UsageError(
            f"model.downsample names module {wrong[0]}; {allowed} of {name} can halve the map",
            hint="Choose among these, or leave it out.",
        )


def _check_num_modules(name: str, num_modules: int, num_blocks: int) -> None:
    if not 1 <= num_modules <= num_blocks:
        raise UsageError(
            f"--modules {num_modules}: {name} has {num_blocks} blocks and so 1 to {num_blocks} modules",
            hint="Choose a number in that range.",
        )


def _users_chain(name: str, input_shape: Shape, num_classes: int) -> Chain:
    # Imported here: it is not needed for a network of the catalogue, and takes memory.
    from edge_trgl.networks.cutting.libraries import model_factory
    from edge_trgl.networks.cutting.users_code import users_code
    from edge_trgl.networks.cutting.without_weights import build_lightly

    factory = model_factory(name, input_shape, num_classes)
    with users_code(name):
        on_meta = torch.get_default_device().type == "meta"
        chain: object = build_lightly(factory) if on_meta else factory()
    assert isinstance(chain, Chain), f"{name} was a chain when it was opened, and is none now"
    return chain
