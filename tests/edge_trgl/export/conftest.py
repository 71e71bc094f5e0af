"""A small network of two modules whose batch norms have been trained."""

from __future__ import annotations

from types import SimpleNamespace

import onnxruntime
import pytest
import torch
from torch import nn

from edge_trgl.export.graph.stage import Normalisation

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """A block with the operations of a padded, strided shortcut."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        )

    def forward(self, x):
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)) + self.branch(x)


def _modules():
    def head(channels, side):
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.AvgPool2d(side // 2),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            nn.Linear(24, 5),
        )

    first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return [(first, head(4, 8)), (nn.Sequential(Residual()), head(6, 4))]


def network(scale=255.0):
    """The modules, the normalisation, and `infer(images)`: the logits of both exits."""
    torch.manual_seed(3)
    modules = _modules()
    normalisation = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), scale=scale, input_shape=SHAPE)

    def infer(images):
        logits, x = [], normalisation(images)
        for trunk, head in modules:
            x = trunk(x)
            logits.append(head(x))
        return logits

    parts = [part for module in modules for part in module]
    with torch.no_grad():
        for part in parts:
            for parameter in part.train().parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for _ in range(3):
            infer(torch.rand(16, *SHAPE) * scale)
    for part in parts:
        part.eval()
    return SimpleNamespace(modules=modules, normalisation=normalisation, infer=torch.no_grad()(infer))


def images(num_images, scale=255.0, seed=0):
    return torch.rand(num_images, *SHAPE, generator=torch.Generator().manual_seed(seed)) * scale


def run_file(path, x):
    """The outputs of the whole file for images, by name."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as edge_trgl/export/README.md says
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"input": x.numpy()})
    return {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}


@pytest.fixture
def net():
    return network()


@pytest.fixture(scope="session")
def small():
    """The helpers above, as one object."""
    return SimpleNamespace(SHAPE=SHAPE, images=images, network=network, run_file=run_file)
