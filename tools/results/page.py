"""The page of results, put together."""

from __future__ import annotations

import re

from tools.common.programs import RESULTS
from tools.results import accuracy, boards, budget, by_hand, exported, heads, models, real_sets, regimes, storage

FILE = RESULTS / "README.md"
PARTS = (budget, regimes, heads, accuracy, real_sets, storage, exported, models, boards, by_hand)
HEAD = """<!-- Written by `python -m tools.results` from the files in this folder. -->

# Results

Every table is of one version and one machine; the line below it has the command that measures it, the date, the
machine and the file with all figures. Where that line names no machine, it was the same one: 2 virtual x86 CPUs
(AMD EPYC), Python 3.11, torch 2.13.0 for CPUs. Memory is in MiB. Intervals are 95 %. Where it names no commit,
none was recorded: the date is that of the commit that brought the file, and its version that day's.

None of this was run on a board yet, and nothing here was measured with CUDA."""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [part for module in PARTS for part in module.sections()]
    titles = re.findall(r"^## (.*)$", "\n".join(parts), re.M)
    contents = "\n".join(f"* [{title}](#{_anchor(title)})" for title in titles)
    return "\n\n".join([HEAD, contents, *(part.strip() for part in parts)]) + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
