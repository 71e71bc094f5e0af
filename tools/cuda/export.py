"""Export a network that was trained on the device and run it with onnxruntime on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_trgl.deploy.network import Network
from edge_trgl.deploy.providers import ABSENT, NAMES, load_runtime
from edge_trgl.engine.open_run import open_run
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.exported_files import export_document
from edge_trgl.run.folder import Run
from edge_trgl.runtime.records import read_record
from tools.cuda.checks import Result, Setting
from tools.cuda.refusal import finished

APART = 1e-2
"""Of the largest logit: onnxruntime multiplies in TF32 on GPUs that can, which keeps 2⁻¹¹, layer after layer."""

SAME_CLASS = 0.99
NUM_IMAGES = 64


def export(setting: Setting) -> Result:
    """Export as the product does, which checks the file on the CPU; then the GPU's answers against the CPU's."""
    run = finished(setting)
    document = export_document(read_record(ExportRecord, Pipeline(run.folder, lambda message: None).export()))
    there = NAMES["cuda"] in load_runtime().get_available_providers()
    provider = "cuda" if there and setting.device == "cuda" else "cpu"
    images = _images(run)
    expected, found = (_logits(run, name, images) for name in ("cpu", provider))
    skipped = None if provider == "cuda" else f"not run on a GPU: cuda is {ABSENT}"
    return judge_export(expected, found, {"provider": provider, **document}, skipped)


def judge_export(
    expected: NDArray[Any], found: NDArray[Any], document: dict[str, Any], skipped: str | None
) -> Result:
    """Logits [N, classes] of the same images: near each other, and of one class."""
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    same = float((found.argmax(1) == expected.argmax(1)).mean())
    details = {**document, "apart": apart, "same_class": same}
    return Result(name="export", ok=apart <= APART and same >= SAME_CLASS, details=details, skipped=skipped)


def _images(run: Run) -> NDArray[np.float32]:
    opened = open_run(run, "cpu")
    feed = opened.feed("val")
    count = min(NUM_IMAGES, len(feed))
    pixels: NDArray[np.float32] = feed.pixels(np.arange(count)).contiguous().numpy()
    feed.close()
    opened.facts.close()
    return pixels


def _logits(run: Run, provider: str, images: NDArray[np.float32]) -> NDArray[Any]:
    network = Network(run.onnx_file, provider=provider)
    return network.run({next(iter(network.inputs)): images}, network.outputs[:1])[0]
