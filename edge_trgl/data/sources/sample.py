"""The sample that comes with the package: 5,000 + 1,000 images of Fashion-MNIST."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_trgl.data.sources import idx

if TYPE_CHECKING:
    from edge_trgl.data.sources.source import Source

FOLDER = Path(__file__).parent.parent / "sample"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load() -> Source:
    """Read the labels of the sample; its images are 28×28 pixels, grey."""
    return replace(idx.load(FOLDER), format="sample", class_names=CLASS_NAMES)
