"""Train a network end to end as one would write it in plain PyTorch, and score it on the test split.

    python -m tools.bench.real_sets.plain JSON

JSON holds the keyword arguments of `train`. The network is the product's, with its last classifier and PyTorch's
own first weights; everything else is PyTorch's, Pillow's and NumPy's. The images are held decoded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.networks.catalogue import build_chain

GREY = ("1", "L", "LA")


@dataclass(frozen=True, kw_only=True)
class Split:
    """`x`: uint8 [N, C, H, W] of images, or float32 [N, C, L] of windows; `y`: int64 [N]."""

    x: Tensor
    y: Tensor


def train(
    *,
    data: str,
    model: str,
    width: int,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    threads: int,
    image_size: int | None,
    resize: str,
) -> dict[str, Any]:
    """Train with SGD along a cosine; returns the accuracy on the test split, and the numbers of samples.

    Args:
        data: a folder of train/CLASS and test/CLASS, or a `.npz` file of windows.
        image_size: side of the square that images become.
        resize: crop, squash or pad.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    splits = read_windows(data) if image_size is None else read_images(Path(data), image_size, resize)
    train_split, test_split = splits["train"], splits["test"]
    num_classes = int(train_split.y.max()) + 1
    net = whole_network(model, tuple(train_split.x.shape[1:]), num_classes, width)
    mean, std = statistics(train_split.x)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=2e-4)
    num_batches = max(1, len(train_split.y) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * num_batches)
    for _ in range(epochs):
        order = torch.randperm(len(train_split.y))[: num_batches * batch_size]
        for rows in torch.split(order, batch_size):
            x = train_split.x[rows] if image_size is None else shifted(train_split.x[rows], image_size // 16)
            logits = net((x.float() - mean) / std)
            loss = functional.cross_entropy(logits, train_split.y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return {
        "accuracy": accuracy(net.eval(), test_split, batch_size, mean, std),
        "num_classes": num_classes,
        "num_train": len(train_split.y),
        "num_test": len(test_split.y),
    }


def whole_network(model: str, input_shape: tuple[int, ...], num_classes: int, width: int) -> nn.Sequential:
    """The modules of a chain one after another, with the last one's classifier."""
    chain = build_chain(model, input_shape=input_shape, num_classes=num_classes, width=width)
    trunk = nn.Sequential(*(chain.trunk(module) for module in range(len(chain))))
    with torch.no_grad():
        shape = tuple(trunk.eval()(torch.zeros(1, *input_shape)).shape[1:])
    return nn.Sequential(trunk, chain.classifier(len(chain) - 1, shape)).train()


def read_images(folder: Path, side: int, resize: str) -> dict[str, Split]:
    """Decode the images of train/ and test/, grey if all of them are."""
    classes = sorted(child.name for child in (folder / "train").iterdir())
    files = {
        split: [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / split / name).iterdir())
        ]
        for split in ("train", "test")
    }
    grey = all(_mode(path) in GREY for listed in files.values() for path, _ in listed)
    mode = "L" if grey else "RGB"
    return {
        split: Split(
            x=torch.from_numpy(np.stack([_decoded(path, side, resize, mode) for path, _ in listed])),
            y=torch.tensor([label for _, label in listed]),
        )
        for split, listed in files.items()
    }


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.mode)


def _decoded(path: Path, side: int, resize: str, mode: str) -> Any:
    """uint8 [C, side, side]."""
    with Image.open(path) as opened:
        image = squared(opened.convert(mode), side, resize)
    return np.asarray(image).reshape(side, side, -1).transpose(2, 0, 1).copy()


def squared(image: Image.Image, side: int, resize: str) -> Image.Image:
    """Make an image a square: cut its middle out (crop), change its aspect (squash), or add black bars (pad)."""
    size, method = (side, side), Image.Resampling.BILINEAR
    if resize == "crop":
        return ImageOps.fit(image, size, method)
    return image.resize(size, method) if resize == "squash" else ImageOps.pad(image, size, method)


def read_windows(data: str) -> dict[str, Split]:
    """The windows of a `.npz` file, [N, C, L]."""
    arrays = np.load(data)
    return {
        split: Split(x=torch.from_numpy(arrays[f"x_{split}"]), y=torch.from_numpy(arrays[f"y_{split}"]))
        for split in ("train", "test")
    }


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, of a shape that applies to a batch."""
    channels = x.transpose(0, 1).flatten(1).float()
    shape = (1, -1, *[1] * (x.dim() - 2))
    return channels.mean(1).view(shape), channels.std(1).clamp_min(1e-6).view(shape)


def shifted(x: Tensor, padding: int) -> Tensor:
    """Cut every image [B, C, H, W] out of itself with a black border, at a place of its own."""
    padded = functional.pad(x, (padding,) * 4)
    side = x.shape[-1]
    places = torch.randint(2 * padding + 1, (len(x), 2)).tolist()
    return torch.stack(
        [image[:, top : top + side, left : left + side] for image, (top, left) in zip(padded, places, strict=True)]
    )


@torch.no_grad()
def accuracy(net: nn.Module, split: Split, batch_size: int, mean: Tensor, std: Tensor) -> float:
    """The share of samples whose class the network finds."""
    correct = 0
    for rows in torch.split(torch.arange(len(split.y)), batch_size):
        correct += int((net((split.x[rows].float() - mean) / std).argmax(1) == split.y[rows]).sum())
    return correct / len(split.y)


if __name__ == "__main__":
    print(json.dumps(train(**json.loads(sys.argv[1]))))
