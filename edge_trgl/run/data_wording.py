"""Phrases about a data set, the same on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping

from edge_trgl.run.data_summary import Augmentation, DataSummary
from edge_trgl.run.wording import samples_word

RESIZED = {"crop": "cut to a square", "squash": "squashed to a square", "pad": "padded to a square"}


def things_of(summary: DataSummary) -> str:
    """Return "windows" or "images"."""
    return samples_word(summary.shape)


def total(summary: DataSummary) -> str:
    """Format the number of images in all and in each split."""
    images = summary.images
    counts = ", ".join(f"{number:,} {split}" for split, number in images.items() if number)
    classes = f"of {len(summary.classes):,} classes" if summary.has_labels else "without labels"
    return f"{sum(images.values()):,} {things_of(summary)} {classes}: {counts}"


def sizes(summary: DataSummary) -> str:
    """Format the sizes of the images as they came, or that of the windows."""
    if len(summary.shape) == 2:
        steps, channels = summary.shape
        return f"{steps:,} steps of {channels:,} channel{'' if channels == 1 else 's'}"
    found, colours = summary.sizes, "grey" if summary.shape[-1] == 1 else "colour"
    if found.distinct == 1:
        return f"{_size(found.median)}, {colours}"
    span = f"{_size(found.smallest)} to {_size(found.largest)}"
    return f"{span}, {found.distinct:,} different, median {_size(found.median)}, {colours}"


def becomes(summary: DataSummary) -> str | None:
    """Say what images are resized to; None where they keep their size."""
    if summary.size_from == "files":
        return None
    chosen = " (chosen; see --image-size, --resize)" if summary.size_from == "choice" else ""
    return f"{_size(summary.shape[:2])}, {RESIZED[summary.resize]}{chosen}"


def augmented(augmentation: Augmentation) -> str:
    """Say what is done to training images at random."""
    padding = augmentation.crop_padding
    crops = [f"cropped at random after {padding} pixel{'' if padding == 1 else 's'} of padding"] * (padding > 0)
    if not crops and not augmentation.flip:
        return "not"
    return ", ".join([*crops, "mirrored at random" if augmentation.flip else "not mirrored"])


def by_ending(no_images: Mapping[str, int]) -> str:
    """Format the number of files by the ending of their names."""
    return ", ".join(f"{number:,} {ending or 'without ending'}" for ending, number in no_images.items())


def _size(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
