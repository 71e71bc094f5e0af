"""The section `data`: which images, and how they are augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.fields import AT_LEAST_ONE, NOT_NEGATIVE, Bounds, setting

Resize = Literal["crop", "squash", "pad"]
"""How an image gets other proportions: cut off what is too long, stretch it, or add black on both sides."""

AskedResize = Literal["crop", "squash", "pad", "none"]
"""What may be asked for: "none" keeps the one size that all images have."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images a run trains on, how they are split, and how they are augmented."""

    source: str = setting(
        "sample",
        "sample, a folder, or a .npz or .csv file",
        more="sample is bundled: 6,000 images of Fashion-MNIST",
    )
    image_size: int | None = setting(
        None,
        "resize photos to N x N pixels",
        more="where nothing is given, photos of one size keep it if it is small; others become squares of at most "
        "224 pixels",
        unset="chosen",
        bounds=AT_LEAST_ONE,
    )
    resize: AskedResize | None = setting(
        None,
        "how photos become squares",
        more="crop cuts off what is too long, squash stretches, pad adds black on both sides; none keeps a size "
        "that all have, however large",
        unset="squash, or pad for long ones",
    )
    strict: bool = setting(False, "refuse damaged photos instead of leaving them out")
    limit: int | None = setting(
        None, "number of training images to use, drawn per class", unset="all", bounds=AT_LEAST_ONE
    )
    validation: float = setting(0.1, "share of the training images held out", bounds=Bounds(above=0, below=1))
    choose_on: Literal["validation", "unused", "half-test"] = setting(
        "validation",
        "images that choose the best depth",
        more="the validation images; a share of those that data.limit leaves unused; or every other test image, "
        "as the paper's authors did",
    )
    augment: bool = setting(True, "vary the training images: random crops, and flip")
    crop_padding: int | None = setting(
        None, "pixels of padding before a random crop", unset="a sixteenth of the side", bounds=NOT_NEGATIVE
    )
    flip: bool = setting(
        False,
        "mirror half of the training images, left to right",
        more="helps with photos; harms what has a reading direction: digits, letters, signs",
    )
    normalize: str | None = setting(
        None,
        "mean and std of pixels: imagenet, data or FILE",
        more="data: those of the training images; FILE: .json or .toml with mean and std, such as "
        "preprocessor_config.json of Hugging Face",
        unset="that of a pretrained net, else data",
    )
    cache_mb: float | None = setting(
        None,
        "MiB of prepared data to keep for the next plan or run",
        more="in runs/.prepared, beyond what runs use; 0 keeps none; edge-trgl clean removes them",
        unset="a tenth of what is free, at most 4096",
        bounds=NOT_NEGATIVE,
    )

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        if self.resize == "none" and self.image_size is not None:
            return [f"data.resize none keeps the size of photos, and data.image_size asks for {self.image_size}"]
        return []
