"""Summarise the runs of a paper table: means and intervals beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.common.intervals import mean_interval
from tools.reproduce.runs import Job
from tools.reproduce.tables import TRGL, VANGL, Table

COLUMNS = ("last", "best", "chosen", "validation", "last_tenth")
BLOCKS = {
    "last": "test accuracy of the last block",
    "best": "test accuracy of the best block, chosen on the test images as in the paper",
    "last_tenth": "accuracy of the last block on left-over images, a mean over the last tenth of the epochs",
}
"""By what the paper's figures are compared with."""
PROTOCOL = {
    "unused": "trained on images that are drawn anew for each seed, balanced over the classes; the depth is "
    "chosen and validation scored on training images that are left over",
    "half-test": "the depth is chosen and validation scored on half of the test images",
}
"""By what the depth is chosen on."""

FAITHFUL = "the authors' protocol: sequential training runs the modules before in training mode for every batch"


def notes(table: Table, runs: Sequence[Mapping[str, Any]], job: Job) -> list[str]:
    """How the runs were scored."""
    half = [job.faithful or table.cases[run["case"]].limit is None for run in runs]
    found = [FAITHFUL] if job.faithful else []
    return found + [PROTOCOL[name] for name, used in (("unused", not all(half)), ("half-test", any(half))) if used]


def summarise(table: Table, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One item a line and row, in the table's order: [mean, half its 95 % interval], fractions.

    `paper`: null where it has no figure, as for another τ. `per_depth`: on test images, or where runs are scored
    by the last tenth of their epochs, that mean. `last_tenth`: of such runs. `over_vangl`: what the row
    scores more than its like without the transport term (one that has none itself, than VanGL) on the same images
    and from the same first weights, over the seeds that both have; null without any.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: int(run["seed"])):
        found.setdefault((run["case"], run["row"]), []).append(run)
    cases, rows = list(table.cases), list(table.rows)

    def place(key: tuple[str, str]) -> tuple[int, int, float]:
        name, _, tau = key[1].partition("@")
        return cases.index(key[0]), rows.index(name), float(tau or 0)

    return [
        {
            **_item(table, case, row, found[case, row]),
            "over_vangl": _difference(table.scored, found[case, row], found.get((case, _plain(row)), [])),
        }
        for case, row in sorted(found, key=place)
    ]


def _plain(row: str) -> str:
    """The row that a row is compared with: its like without the transport term, or VanGL."""
    name, _, _ = row.partition("@")
    return name.replace(TRGL, VANGL) if TRGL in name else VANGL


def _difference(
    scored: str, runs: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]
) -> list[float | None] | None:
    base = {run["seed"]: run[scored] for run in plain}
    pairs = [run[scored] - base[run["seed"]] for run in runs if run["seed"] in base]
    return list(mean_interval(pairs)) if pairs and runs is not plain else None


def _item(table: Table, case: str, row: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    paper = table.cases[case].paper.get(row)
    averaged = table.scored == "last_tenth"
    depths = zip(*(run["last_tenth_per_depth" if averaged else "test_per_depth"] for run in runs), strict=True)
    return {
        "case": case,
        "row": row,
        "paper": None if paper is None else [round(value / 100, 6) for value in paper],
        "seeds": len(runs),
        **{column: list(mean_interval([run[column] for run in runs])) for column in COLUMNS if column in runs[0]},
        "per_depth": [list(mean_interval(accuracies)) for accuracies in depths],
    }


def text_of(document: Mapping[str, Any]) -> str:
    """Format the results as text."""
    scored = document["scored"]
    lines = [f"{document['table']}: {document['title']}; {BLOCKS[scored]}, %, mean ± 95 % interval"]
    lines += [f"  {note}" for note in (*document["changes"], *document["notes"])]
    heads = ("paper", "ours", "difference", "over VanGL", "chosen depth", "validation", "seeds")
    lines.append(f"{document['case_title']:>12}  {'':18}" + "".join(f"{head:>16}" for head in heads))
    for item in document["rows"]:
        difference = "" if item["paper"] is None else f"{(item[scored][0] - item['paper'][0]) * 100:+.2f}"
        cells = (
            "" if item["paper"] is None else percent(*item["paper"]),
            percent(*item[scored]),
            difference,
            "" if item["over_vangl"] is None else percent(*item["over_vangl"]),
            percent(*item["chosen"]),
            percent(*item["validation"]),
            str(item["seeds"]),
        )
        lines.append(f"{item['case']:>12}  {item['row']:18}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def percent(mean: float, half: float | None) -> str:
    """A fraction and half its interval, in percent."""
    return f"{mean * 100:.2f}" if half is None else f"{mean * 100:.2f} ± {half * 100:.2f}"
