"""The section `budget`: the limits of a run, and what may be done to keep them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.fields import POSITIVE, setting
from edge_trgl.runtime.errors import UsageError

Saving = Literal["paging", "disk", "recompute", "early-update", "reuse", "trim", "allocator", "diet", "file-pages"]

CHUNK = "auto, epoch or a number of batches"
RESIDENT = "auto or a number of modules"


def _count_or(words: tuple[str, ...], name: str, form: str) -> Callable[[str], None]:
    """A reader of a whole number of at least 1, or one of `words`."""

    def read(text: str) -> None:
        # isdecimal, for int() takes digits of any script.
        if not (text in words or (text.isdecimal() and int(text) >= 1)):
            raise UsageError(f"{name} must be {form}, not {text!r}")

    return read


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How much memory and disk a run may take, and which savings the plan may use."""

    mb: Literal["auto", "min"] | float = setting(
        2000.0,
        "memory for the whole run in MiB, auto or min",
        more="auto: 80 % of what is available; min: the smallest that works",
        bounds=POSITIVE,
    )
    disk_mb: float | None = setting(
        None,
        "disk space for the run's folder in MiB",
        more="what is free: less a reserve of 5 % of it, at most 256 MiB",
        unset="what is free",
        bounds=POSITIVE,
    )
    chunk: str = setting(
        "auto",
        "batches that a module trains on per visit",
        form=CHUNK,
        parse=_count_or(("auto", "epoch"), "budget.chunk", CHUNK),
    )
    resident: str = setting(
        "auto",
        "modules kept in memory between visits",
        form=RESIDENT,
        parse=_count_or(("auto",), "budget.resident", RESIDENT),
    )
    prefetch: bool = setting(True, "read the next module ahead where the budget has room")
    allow: tuple[Literal["micro-batch", "fp16-boundaries", "int8-boundaries"], ...] = setting(
        (), "savings that may change the results", unset="none"
    )
    without: tuple[Saving, ...] = setting(
        (),
        "savings to switch off, to measure them",
        more="paging: keep all modules in memory; disk: keep boundaries in memory; recompute: keep every "
        "activation; early-update: update weights after the backward pass; reuse: use a new buffer for every "
        "read; trim: keep freed memory between visits; allocator: leave the C library's settings alone; diet: "
        "load the whole of torch; file-pages: keep the pages of libraries in memory",
        unset="none",
    )
    probe: bool = setting(True, "measure steps for the plan")
    cgroup: bool = setting(False, "train in a memory cgroup of the budget")
    force: bool = setting(False, "train even if the plan does not fit")

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        if "paging" not in self.without or self.resident == "auto":
            return []
        return [f"budget.resident {self.resident} has no effect with budget.without paging"]
