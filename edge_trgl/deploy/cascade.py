"""Early exit: a sample leaves the network at the first classifier that is confident enough."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_trgl.config.export_request import LOGITS
from edge_trgl.deploy.manifest import Manifest
from edge_trgl.deploy.network import Network
from edge_trgl.deploy.prediction import EarlyPrediction, as_batch, check_classes, resize_of, softmax, takes_pixels
from edge_trgl.runtime.errors import InputError, UsageError


class Cascade:
    """Runs a network exported in stages, a folder `model.exits` (see `edge_trgl.deploy.manifest`).

    A stage is loaded when a sample first reaches it, and stays loaded.

    Args:
        folder: the folder with manifest.json and the stages.
        provider: `auto` (the fastest that works), `tensorrt`, `cuda` or `cpu`.
        threshold: 0 to 1, replaces all thresholds of the manifest; None keeps them.
        threads: CPU threads; None for one per processor that this process may use.
        optimize: as for `Predictor`.

    Attributes:
        manifest: the stages, with the thresholds in use.
        class_names, input_shape, takes_pixels, resize, provider: as for `Predictor`.

    Raises:
        InputError: the manifest or the first stage cannot be read.
        UsageError: onnxruntime is missing, the provider does not work here, or `threshold` is not from 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        provider: str = "auto",
        *,
        threshold: float | None = None,
        threads: int | None = None,
        optimize: bool = False,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"the threshold {threshold} is not a probability", hint="Give a number from 0 to 1.")
        self.folder = Path(folder)
        manifest = Manifest.read(self.folder)
        self.manifest = manifest if threshold is None else manifest.with_threshold(threshold)
        self._open = partial(Network, provider=provider, threads=threads, optimize=optimize)
        self._networks: list[Network] = []
        first = self._stage(0)
        self.class_names = self.manifest.class_names
        self.input_shape = next(iter(first.inputs.values()))
        self.takes_pixels = takes_pixels(first.metadata)
        self.resize = resize_of(first.path, first.metadata)
        self.provider = first.provider

    def predict(self, images: ArrayLike) -> EarlyPrediction:
        """Classify images or windows [N, *input_shape]; each leaves at the first exit that is confident enough.

        Raises:
            ValueError: `images` has another shape.
            InputError: a stage cannot be read or run, or its inputs are not outputs of the stage before.
        """
        batch = as_batch(images, self.input_shape)
        (first_input,) = self._stage(0).inputs
        arrays: dict[str, NDArray[np.float32]] = {first_input: batch}
        waiting = np.arange(len(batch))
        exits = np.zeros(len(batch), np.int64)
        logits: dict[int, NDArray[np.float32]] = {}  # by sample: [classes]
        for index, stage in enumerate(self.manifest.stages):
            outputs = self._run(index, arrays)
            scores = outputs.pop(LOGITS)
            leaves = np.full(len(scores), fill_value=True)
            if stage.threshold is not None:
                leaves = softmax(scores).max(axis=1) >= stage.threshold
            exits[waiting[leaves]] = index + 1
            logits.update(zip(waiting[leaves].tolist(), scores[leaves], strict=True))
            waiting = waiting[~leaves]
            if not len(waiting):
                break
            arrays = {name: values[~leaves] for name, values in outputs.items()}
        return EarlyPrediction(
            logits=np.stack([logits[sample] for sample in range(len(batch))]),
            exits=exits,
            compute_shares=self._shares()[exits - 1],
        )

    def _shares(self) -> NDArray[np.float64]:
        """The FLOPs up to and including each stage, as a share of the total: float64 [stages]."""
        flops = np.cumsum([float(stage.flops) for stage in self.manifest.stages])
        shares: NDArray[np.float64] = flops / flops[-1]
        return shares

    def _run(self, index: int, arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        stage = self._stage(index)
        if set(stage.inputs) - set(arrays):
            raise InputError(
                f"{stage.path} takes {', '.join(stage.inputs)}, but the stage before gives {', '.join(arrays)}",
                hint="Export the exits again.",
            )
        fed = {name: arrays[name] for name in stage.inputs}
        outputs = dict(zip(stage.outputs, stage.run(fed, stage.outputs), strict=True))
        check_classes(stage.path, self.class_names, outputs[LOGITS])
        return outputs

    def _stage(self, index: int) -> Network:
        """Return stage `index`; loads it if it is the next one."""
        if index == len(self._networks):
            network = self._open(self.folder / self.manifest.stages[index].file)
            if LOGITS not in network.outputs or (index == 0 and len(network.inputs) != 1):
                raise InputError(
                    f"{network.path} is not a stage: it takes {', '.join(network.inputs)} and gives "
                    f"{', '.join(network.outputs)}",
                    hint="A stage must give logits, and the first one must take exactly one input.",
                )
            self._networks.append(network)
        return self._networks[index]
