"""Proof that a file gives what the network gives, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edge_trgl.export.onnx_file import INPUT, OUTPUT, rejected
from edge_trgl.runtime import files
from edge_trgl.runtime.errors import ExportRejectedError

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the file's logits are from the network's.

    `max_abs_diff` is over all logits; `median_abs_diff` is the median over images of an image's largest
    difference; `top1_agreement` is the fraction of images with the same predicted class. `ok` says that
    at least one image was compared and no difference, and no NaN, passes the tolerance.
    """

    num_images: int
    max_abs_diff: float
    median_abs_diff: float
    top1_agreement: float
    ok: bool


def compare(
    path: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]], *, tolerance: float = 1e-4
) -> Comparison:
    """Run the file on the CPU and hold its logits against the given ones.

    Args:
        path: an ONNX file as `write` makes it.
        batches: pairs of images float32 [N, C, ...] and the network's logits float32 [N, num_classes];
            one pair is held at a time.
        tolerance: the largest absolute difference of a logit that is accepted.
    """
    session = _session(path)
    differences = []  # one float32 [N] a batch: each image's largest difference
    num_same = 0
    for images, logits in batches:
        (found,) = session.run([OUTPUT], {INPUT: images})
        differences.append(np.abs(found - logits).max(axis=1))
        num_same += int((found.argmax(axis=1) == logits.argmax(axis=1)).sum())
    return _summary(np.concatenate(differences or [np.zeros(0, np.float32)]), num_same, tolerance)


def publish(temporary: Path, final: Path, comparison: Comparison) -> None:
    """Rename `temporary` to `final`, or, where the comparison failed, to `final` + `.rejected`.

    A file that is already at `final` is replaced by a good one and left alone by a refused one.

    Raises:
        ExportRejectedError: `comparison.ok` is false.
    """
    if comparison.ok:
        files.rename(temporary, final)
        return
    files.rename(temporary, rejected(final))
    raise ExportRejectedError(
        f"{final.name} does not give what the network gives: over {comparison.num_images} images the "
        f"largest difference of a logit is {comparison.max_abs_diff:.3g}, the median "
        f"{comparison.median_abs_diff:.3g}, and {comparison.top1_agreement:.2%} of the predictions agree",
        hint=f"the file is kept as {rejected(final)}; do not deploy it",
    )


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # An optimised session repacks every weight: three times the file in memory, against once without.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _summary(differences: np.ndarray, num_same: int, tolerance: float) -> Comparison:
    num_images = len(differences)
    largest = float(differences.max()) if num_images else 0.0
    return Comparison(
        num_images=num_images,
        max_abs_diff=largest,
        median_abs_diff=float(np.median(differences)) if num_images else 0.0,
        top1_agreement=num_same / num_images if num_images else 0.0,
        ok=num_images > 0 and largest <= tolerance,
    )
