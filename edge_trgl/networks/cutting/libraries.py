"""Factories of models: of torchvision, of timm, and of the user's own modules."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import library

from edge_trgl.networks.chain import Shape
from edge_trgl.networks.cutting.users_code import users_code
from edge_trgl.networks.cutting.without_weights import Factory
from edge_trgl.runtime.errors import InputError, UsageError

HOW_TO_NAME = "Give importable.module:function; the current folder is searched too."

_declared: list[library.Library] = []
"""Operators of torchvision that were declared here; a declaration ends when its library is collected."""


def model_factory(name: str, input_shape: Shape, num_classes: int) -> Factory:
    """Return what makes the model `torchvision:NAME`, `timm:NAME` or `importable.module:factory`.

    Its weights are random. A user's factory is called with `input_shape` and `num_classes`.

    Args:
        name: the model.
        input_shape: one sample, (C, H, W) or (C, L).
        num_classes: number of logits.

    Raises:
        UsageError: the library has no such model, or its models read other images.
        InputError: the library or the user's module cannot be imported.
    """
    package, _, model = name.partition(":")
    libraries = {"torchvision": _torchvision, "timm": _timm}
    if package in libraries:
        return libraries[package](model, input_shape, num_classes)
    factory = user_factory(name)
    return partial(factory, input_shape=input_shape, num_classes=num_classes)


def user_factory(name: str) -> Callable[..., Any]:
    """Import the user's function `importable.module:function`; the current folder is searched too.

    Raises:
        InputError: there is no such module or function.
        UsageError: the module raises an error while it is imported.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with users_code(name):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the user's module is there; what it imports is not
            raise InputError(f"--model {name}: {error}", hint=HOW_TO_NAME) from error
    if not hasattr(module, attribute):
        raise InputError(f"--model {name}: {module_name} has no attribute {attribute!r}", hint=HOW_TO_NAME)
    factory: Callable[..., Any] = getattr(module, attribute)
    return factory


def _torchvision(name: str, input_shape: Shape, num_classes: int) -> Factory:
    if input_shape[0] != 3:
        raise UsageError(
            f"the models of torchvision read 3 channels; the data has {input_shape[0]}",
            hint="Choose a model of timm, or write a factory of your own that replaces the first layer.",
        )
    models = _imported("torchvision.models", "torchvision")
    if name not in models.list_models(models):
        raise UsageError(
            f"torchvision has no model {name!r}", hint=f"It has {_shortened(models.list_models(models))}."
        )
    options: dict[str, object] = {"weights": None, "num_classes": num_classes}
    if name.startswith("vit_"):
        options["image_size"] = input_shape[-1]
    return partial(models.get_model, name, **options)


def _timm(name: str, input_shape: Shape, num_classes: int) -> Factory:
    timm = _imported("timm", "timm")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*") or timm.list_models()
        raise UsageError(f"timm has no model {name!r}", hint=f"It has {_shortened(near)}.")
    options: dict[str, object] = {"pretrained": False, "num_classes": num_classes, "in_chans": input_shape[0]}
    if "img_size" in inspect.getsource(inspect.getmodule(timm.model_entrypoint(name))):  # type: ignore[arg-type]
        sized = partial(timm.create_model, name, **options, img_size=tuple(input_shape[1:]))
        if _accepts_options(sized):
            return sized
    return partial(timm.create_model, name, **options)


def timm_mean_and_std(model: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and std, of pixels from 0 to 1, that a model of timm was trained with; None if unknown."""
    config = _imported("timm", "timm").get_pretrained_cfg(model)
    return None if config is None else (tuple(config.mean), tuple(config.std))


def _accepts_options(factory: Factory) -> bool:
    """Return whether the constructor knows all options that it is given."""
    try:
        with torch.device("meta"):
            factory()
    except TypeError:
        return False
    return True


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _imported(module: str, package: str) -> Any:
    try:
        return _import(module)
    except ImportError as error:
        raise InputError(f"{package} cannot be imported: {error}", hint=f"pip install {package}.") from error


def _import(module: str) -> Any:
    """Import a module of torchvision or timm, also where torchvision's compiled part does not fit torch."""
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if _declared or "torchvision::nms" not in str(error):
            raise
    # The compiled part of torchvision does not fit this build of torch, and the import lacks two operators.
    # They are declared only now: where the compiled part fits, it declares them itself, and a second declaration
    # aborts the process.
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
        del sys.modules[name]
    operators = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declared.append(operators)
    return importlib.import_module(module)
