"""Draw real images from a data set, resize them if asked, and save them as an .npz file.

    python -m tools.common.images JSON

JSON holds the keyword arguments of `save`. A process of its own keeps the images out of the caller's memory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edge_trgl.data.sources import load
from edge_trgl.data.splits import draw_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_trgl.data.splits import Selection

CACHE = Path(os.environ.get("EDGE_TRGL_DATA", "~/.cache/edge-trgl-data")).expanduser()
"""Where full image sets are looked for, each in a folder of its name."""


def save(file: str, *, source: str, side: int | None, train: int, val: int, test: int) -> None:
    """Write `train`, `val` and `test` images of a data set, balanced over the classes in training.

    Args:
        file: the .npz file.
        source: what `edge-trgl train --data` takes.
        side: pixels of the resized, square images; None leaves them as they are.
        train, val: images drawn from the training set.
        test: as many of the test set's images, the first ones.
    """
    drawn = draw_splits(load(source), seed=0, validation=val / (train + val), limit=train + val)
    arrays: dict[str, NDArray[Any]] = {}
    for name, draw in drawn.items():
        count = test if name == "test" else len(draw.samples)
        arrays[f"x_{name}"] = _images(draw, count, side)
        arrays[f"y_{name}"] = draw.labels[:count]
    np.savez(file, **arrays)  # type: ignore[arg-type]


def _images(draw: Selection, count: int, side: int | None) -> NDArray[Any]:
    """uint8 [count, H, W, C]."""
    images = np.concatenate(list(draw.split.batches(draw.samples[:count])))
    return images if side is None else np.stack([_resized(image, side) for image in images])


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, C] → [side, side, C]."""
    flat = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(flat.resize((side, side), Image.Resampling.BILINEAR))
    return resized.reshape(side, side, image.shape[2])


if __name__ == "__main__":
    save(**json.loads(sys.argv[1]))
