"""Write model.onnx of a trained run and check it against the network on its validation images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_trgl.export import Deployed, compare, describe, publish, write
from edge_trgl.opening import OpenRun, open_run
from edge_trgl.run import Run
from edge_trgl.schedule import Span

CHECKED_IMAGES = 256


def run(run: Run) -> dict[str, Any]:
    """Export the chosen depth; returns the file, its depth and size, and how it compares."""
    opened = open_run(run)
    depth = opened.state.meta("result")["scores"]["chosen_depth"]
    model = _assemble(opened, depth)
    # Under another name until it has proved itself: a good file that is already there stays until then.
    new = run.onnx_file.with_name(run.onnx_file.name + ".new")
    metadata = {**describe(model, opened.info.class_names), "depth": str(depth)}
    write(model, new, input_shape=opened.info.input_shape, metadata=metadata)
    comparison = compare(new, _batches(opened, model))
    publish(new, run.onnx_file, comparison)
    return {
        "file": str(run.onnx_file),
        "depth": depth,
        "num_bytes": run.onnx_file.stat().st_size,
        "num_images": comparison.num_images,
        "max_abs_diff": comparison.max_abs_diff,
        "median_abs_diff": comparison.median_abs_diff,
        "top1_agreement": comparison.top1_agreement,
    }


def _assemble(opened: OpenRun, depth: int) -> Deployed:
    """Trunk up to `depth` and its head, on the CPU, with the normalisation before it."""
    modules = opened.modules()
    blocks: list[nn.Module] = []
    for index in range(depth):
        local = modules.open(index)
        blocks += list(local.trunk)
    info = opened.info
    trunk = nn.Sequential(*blocks)
    return Deployed(trunk, local.head, info.mean, info.std, info.scale, info.input_shape).cpu().eval()


def _batches(opened: OpenRun, model: Deployed) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Validation images as the file takes them, with the network's own logits."""
    feed = opened.feed("val")
    size = opened.config.train.batch_size
    for batch in range(-(-min(len(feed), CHECKED_IMAGES) // size)):
        samples = feed.samples(Span("val", 0, batch, batch + 1, shuffled=False, augmented=False), batch)
        images = feed.pixels(samples)
        with torch.no_grad():
            logits = model(images)
        yield images.contiguous().numpy(), logits.numpy()
