"""Runs exported and checked in this process, and the logits of a run and of an ONNX file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from edge_trgl.engine.open_run import open_run
from edge_trgl.export import write_models as writing
from edge_trgl.export.check_models import check_models
from edge_trgl.export.write_models import write_models
from edge_trgl.runtime.memory.limits import Limits


def deploy(run, depth="chosen", target=None, batch="dynamic", budget_mb=1e5):
    """What `Pipeline.export` does, in this process."""
    limits = Limits(budget_mb=budget_mb)
    written = write_models(run, depth=depth, target=target, batch=batch, limits=limits)
    return check_models(run, written=written, export_mb=300.0, others_mb=0.0, limits=limits)


def logits_of(run, num_images):
    """The network's logits at every depth, one resident net, by the run's own feed."""
    opened = open_run(run)
    feed = opened.feed("val")
    samples = np.arange(num_images)
    pixels = feed.pixels(samples)
    span = writing.Span("val", 0, 0, 1, shuffled=False, augmented=False)
    x, found = feed.images(span, 0, samples), []
    with torch.no_grad():
        for module in range(len(opened)):
            local = opened.deployed(module, head=True)
            x = local.trunk(x)
            found.append(local.head(x))
    feed.close()
    opened.facts.close()
    # Logits that are alike for all images would equal those of other images too.
    assert min(float(logits.std(0).mean()) for logits in found) > 1e-3
    return pixels.contiguous().numpy(), found


def run_file(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": pixels}), strict=True))
