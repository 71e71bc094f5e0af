"""Real sets that nobody tuned for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import NONE, rounded, table
from tools.results.source import document, origin

Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""By set and row."""

RATES = ("plain-0.1", "plain-0.02")


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    found = document("real_sets")
    sets, rows = found["sets"], {(row["set"], row["row"]): row for row in found["rows"]}
    budget = f"{found['settings']['budget_mb']:.0f}"
    yield f"""## Real sets that nobody tuned for

Sets out of packages of PyPI, npm and Debian, chosen before anything was trained on them. `edge-trgl train` with
its defaults (pictures with `--resize squash`) within {budget} MiB, against the same network end to end in a plain
PyTorch loop: the same training images, batch of 32, epochs, crops, weight decay, label smoothing and cosine, with
the rate 0.1 that such nets are usually trained with, and with our 0.02. Test accuracy in %, the mean of
{_seeds(rows)} with the lowest and the highest (ours at the depth that validation images chose); the largest peak
of all processes together, seen from outside; the median of the processor's seconds, which for ours cover reading,
planning, the scores of all depths and the report. The machine did other work besides, which the seconds on the
clock would show.

{_against(sets, rows)}

Against plain PyTorch with the rate 0.02, ours is 3 to 5 points behind on the foods, the pictures to paint with and
the watch, and level on the other two; against the usual 0.1 it is level or ahead on all five.

{_legend(sets, rows)}

### Mirrored training images

Test accuracy in % without and with `--flip`, ours; one picture more is 0.7 points of the foods, 0.5 of the stamps:

{_varied(sets, rows, {"ours": "as they are (default)", "flip": "`--flip`"})}

### Pictures that are not square

Test accuracy in % of pictures made square by changing their aspect, by cutting their middle out, and by adding
black bars:

{_varied(sets, rows, {"ours": "`--resize squash`", "crop": "`--resize crop`", "pad": "`--resize pad`"})}

Mirroring helps on none of the three. Cutting the middle out has the highest mean on all three, though by less than
seeds differ but for black bars on the foods, which lose 7 points to it.

{origin("real_sets", "tools.bench.real_sets --seeds 2")}"""


def _seeds(rows: Rows) -> str:
    counts = [row["runs"] for row in rows.values()]
    few, many = min(counts), max(counts)
    return f"{many} seeds" if few == many else f"{few} to {many} seeds"


def _against(sets: Mapping[str, Any], rows: Rows) -> str:
    head = ("set", "ours", *(f"PyTorch, {rate.removeprefix('plain-')}" for rate in RATES))
    head = (*head, "peak, ours", "PyTorch", "processor seconds, ours", "PyTorch")
    return table(head, (_contest(sets[name]["title"], name, rows) for name in _sets_with(rows, RATES)))


def _contest(title: str, name: str, rows: Rows) -> Sequence[str]:
    ours, *plain = (rows[name, row] for row in ("ours", *RATES))
    return (
        title,
        *(_accuracy(row) for row in (ours, *plain)),
        rounded(ours["peak_mb"]),
        rounded(max(row["peak_mb"] for row in plain)),
        rounded(ours["cpu_s"]),
        rounded(max(row["cpu_s"] for row in plain)),
    )


def _legend(sets: Mapping[str, Any], rows: Rows) -> str:
    return "\n".join(
        f"* {told['title']}: {told['num_classes']} classes, {told['num_train']:,} samples to train on and "
        f"{told['num_test']:,} to test; {told['net']}, {told['epochs']} epochs{_side(told)}."
        for told in (sets[name] for name in _sets_with(rows, RATES))
    )


def _side(told: Mapping[str, Any]) -> str:
    return "" if told["side"] is None else f", at {told['side']} x {told['side']} pixels"


def _varied(sets: Mapping[str, Any], rows: Rows, titles: Mapping[str, str]) -> str:
    return table(
        ("set", *titles.values()),
        (
            (sets[name]["title"], *(_accuracy(rows.get((name, row))) for row in titles))
            for name in _sets_with(rows, [*titles][1:])
        ),
    )


def _sets_with(rows: Rows, wanted: Sequence[str]) -> Sequence[str]:
    return [name for name in dict.fromkeys(name for name, _ in rows) if all((name, row) in rows for row in wanted)]


def _accuracy(row: Mapping[str, Any] | None) -> str:
    """The mean; of several seeds also the lowest and the highest, for two make no interval worth the name."""
    if row is None:
        return NONE
    mean, lowest, highest = (f"{100 * row[key]:.1f}" for key in ("accuracy", "lowest", "highest"))
    return mean if row["runs"] == 1 else f"{mean} ({lowest} to {highest})"
