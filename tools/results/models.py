"""Models of libraries, cut and fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import NONE, percent, rounded, table
from tools.results.source import document, origin

FINE_TUNED = {
    "scratch": "from first weights of its own",
    "all": "from the trained ones",
    "frozen": "the first two modules left as they are",
}
REGIMES = ("parallel", "sequential", "end-to-end")


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    yield f"""## Models that are cut into chains

Random weights, batches of 3 and 1: the largest difference of a logit between chain and model; one step was trained
in every regime; MiB that the plan adds to the process for four modules and batches of 4.

{_cut()}

{origin("cut_models", "tools.models.cut")}"""

    found = document("fine_tune")
    yield f"""## Fine-tuning with frozen modules

timm's resnet18, trained by plain PyTorch on 10,000 images of Fashion-MNIST (three epochs), adapted to 1,000 of
MNIST in four modules within {found["budget_mb"]:.0f} MiB; test accuracy on MNIST's 10,000 in %, three seeds, at
the last depth.

{_fine_tuned(found["rows"])}

{origin("fine_tune", "tools.models.fine_tune --threads 1")}"""


def _cut() -> str:
    head = ("model", "side", "parameters (M)", "blocks", "difference", *REGIMES)
    return table(head, map(_cut_row, document("cut_models")["rows"]))


def _cut_row(row: Mapping[str, Any]) -> Sequence[str]:
    if row["refused"]:
        reason = row["refused"].removeprefix(f"{row['model']}: ")
        return (f"{row['model']}: refused, {reason}", str(row["side"]), *[""] * (3 + len(REGIMES)))
    return (
        row["model"],
        str(row["side"]),
        f"{row['params'] / 1e6:.2f}",
        str(row["blocks"]),
        NONE if row["diff"] is None else f"{row['diff']:.0g}",
        *(str(row["regimes"][regime]["planned_mb"]) for regime in REGIMES),
    )


def _fine_tuned(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ("", "accuracy", "peak of all processes, MiB", "seconds"),
        (
            (
                FINE_TUNED[row["row"]],
                percent((row["accuracy"], row["interval"])),
                rounded(row["peak_mb"]),
                rounded(row["seconds"]),
            )
            for row in rows
        ),
    )
