"""Words that the command line and the report share."""

from __future__ import annotations

from collections.abc import Sequence

from edge_trgl.runtime.records import Document


def samples_word(shape: Sequence[int]) -> str:
    """Name samples by their shape: "images" (H, W, C) or "windows" (L, C)."""
    return "windows" if len(shape) == 2 else "images"


def samples_in(summary: Document | None) -> str:
    """Name the samples of a run by its summary.json: "images" or "windows"; "images" where it does not say."""
    data = (summary or {}).get("data")
    return samples_word(data["shape"]) if isinstance(data, dict) else "images"


def validation_samples(chosen_on: str, samples: str = "images") -> str:
    """Name the samples on which a depth was chosen, by `data.choose_on`; `samples`: what they are called."""
    return f"half of the test {samples}" if chosen_on == "half-test" else f"validation {samples}"
