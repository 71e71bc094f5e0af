"""Classify images or windows with a network in one file."""

from __future__ import annotations

import re
from pathlib import Path

from numpy.typing import ArrayLike

from edge_trgl.config.export_request import LOGITS
from edge_trgl.deploy.network import Network
from edge_trgl.deploy.prediction import Prediction, as_batch, check_classes, named_classes, resize_of, takes_pixels
from edge_trgl.runtime.errors import InputError, UsageError

_EXIT = re.compile(LOGITS + r"_(\d+)")


class Predictor:
    """Runs a `model.onnx` written by `edge-trgl export`, without torch.

    Args:
        path: the model file.
        provider: `auto` (the fastest that works), `tensorrt`, `cuda` or `cpu`.
        exit_number: the classifier to use in a file with several, counted from 1; None for the last.
        threads: CPU threads; None for one per processor that this process may use.
        optimize: somewhat faster on the CPU, but the weights are in memory several times while the file loads.

    Attributes:
        class_names: from the file; empty if it has none.
        input_shape: (C, H, W) for images, (C, L) for windows.
        takes_pixels: whether inputs are pixel values from 0 to 255; else they are in the training data's units.
        resize: how an image of another size becomes an input: crop, squash or pad.
        num_exits: number of classifiers in the file.
        provider: the provider in use, and why no faster one is.

    Raises:
        InputError: the file cannot be read, or is not such a network.
        UsageError: onnxruntime is missing, the provider does not work here, or there is no such exit.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str = "auto",
        *,
        exit_number: int | None = None,
        threads: int | None = None,
        optimize: bool = False,
    ) -> None:
        self._network = Network(Path(path), provider=provider, threads=threads, optimize=optimize)
        self._input, self.input_shape = _single_input(self._network)
        exits = _exits(self._network)
        self.num_exits = len(exits)
        if exit_number is not None and not 1 <= exit_number <= len(exits):
            raise UsageError(f"{path} has no exit {exit_number}", hint=f"It has the exits 1 to {len(exits)}.")
        self._output = exits[(exit_number or len(exits)) - 1]
        self.class_names = named_classes(self._network.path, self._network.metadata)
        self.takes_pixels = takes_pixels(self._network.metadata)
        self.resize = resize_of(self._network.path, self._network.metadata)
        self.provider = self._network.provider

    def predict(self, images: ArrayLike) -> Prediction:
        """Classify images or windows.

        Args:
            images: [N, *input_shape] with N >= 1, not normalised: pixel values from 0 to 255 if `takes_pixels`,
                else values in the units of the training data.

        Raises:
            ValueError: `images` has another shape.
            InputError: the file cannot be run.
        """
        batch = as_batch(images, self.input_shape)
        (logits,) = self._network.run({self._input: batch}, [self._output])
        check_classes(self._network.path, self.class_names, logits)
        return Prediction(logits=logits)


def _single_input(network: Network) -> tuple[str, tuple[int, ...]]:
    if len(network.inputs) != 1:
        raise InputError(
            f"{network.path} has {len(network.inputs)} inputs; a network for images or windows has one",
            hint="Give a file that the verb export wrote.",
        )
    ((name, shape),) = network.inputs.items()
    if len(shape) not in (2, 3):
        raise InputError(
            f"{network.path} takes [N, {', '.join(map(str, shape))}]; images are [N, C, H, W], windows [N, C, L]",
            hint="Give a file that the verb export wrote.",
        )
    return name, shape


def _exits(network: Network) -> list[str]:
    """The names of the outputs that are logits, the deepest last."""
    numbered = {int(match[1]): name for name in network.outputs if (match := _EXIT.fullmatch(name))}
    if numbered:
        return [numbered[number] for number in sorted(numbered)]
    if len(network.outputs) != 1:
        raise InputError(
            f"{network.path} gives {', '.join(network.outputs)}: it is not clear which of them are logits",
            hint="With several exits, the outputs must be named logits_1 to logits_K.",
        )
    return list(network.outputs)
