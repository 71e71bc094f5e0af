"""Words that the command line and the report share."""

from __future__ import annotations


def validation_images(chosen_on: str) -> str:
    """Name the images on which a depth was chosen, by `data.choose_on`."""
    return "half of the test images" if chosen_on == "half-test" else "validation images"
