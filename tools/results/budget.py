"""The proof of the budget, and kills at random moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.prove.cases import LEVELS, NETS
from tools.results.markdown import rounded, table
from tools.results.source import document, origin, targets

Item = Mapping[str, Any]


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    proof = document("prove_budget")
    parts = proof["sections"]
    (state,), (balloon,) = parts["state"].values(), parts["balloon"].values()
    depth = ", ".join(f"{_measured_mb(item):.1f} MiB with {item['modules']}" for item in parts["depth"].values())
    yield f"""## The budget, proven

Every net runs in a memory cgroup of exactly its budget: the smallest that `plan` states, 15 % more, and a generous
one (ten times). One thread; MiB. RSS peak is the larger of the summary's peak and of what was seen from outside:
the largest sum of high-water marks of processes alive at one moment. cgroup is what the kernel charged at most,
which page cache fills up to the limit. The instant plan is that of `--no-probe`; ~ marks one that lays the run out
otherwise.

{_rows(list(parts["rows"].values()))}

{origin("prove_budget", "tools.prove --threads 1")}

The rows of MobileNetV2, and the sections below, are of commit b6646fd. Before it, the guard refused steps of
MobileNetV2 at the smallest budget although 8 MiB were left.

{_verdict(list(parts["rows"].values()))} Parallel and end-to-end training run for two epochs: ResNet-110 comes to
its peak in the second.

### How near the smallest budget is to the true one

One MiB below the smallest budget is refused; forced at 1/1.08 of it, the run passes its budget.

{_minimum(list(parts["minimum"].values()))}

### Larger than the budget, killed, and deep

* **Four times the budget**: a net of {state["state_mb"]:,.0f} MiB of weights and momentum trains within
  {state["budget_mb"]:.0f} MiB (peak {state["peaks_mb"]["resume"]:.0f}), its worker and then the whole tree killed
  in the middle, resumed to the same weights, evaluated at {state["peaks_mb"]["evaluate"]:.0f} (`--sections
  state`).
* **Killed by the kernel**: a balloon in the same cgroup grows until the kernel kills the worker; the run goes on
  by itself, restarts: {balloon["restarts"]}, weights equal to those of an undisturbed run (`--sections balloon`).
* **Depth**: K-M nets of width 64 with one module in memory peak at {depth} modules (`--sections depth`).

{targets(proof["targets"])}"""

    kills = document("kills")["regimes"]
    yield f"""## Kills

The worker or the whole tree is killed at random moments of every phase, and every run is resumed to the weights of
the unbroken one.

{_kills(kills)}

{origin("kills", "tools.prove.random_kills --json")}

Before that it found two moments that lost a run; both are mended. The test suite kills 40 more, in eight ways to
train."""


def _rows(rows: Sequence[Item]) -> str:
    grouped: dict[tuple[str, str], dict[str, Item]] = {}
    for row in rows:
        grouped.setdefault((row["net"], row["regime"]), {})[row["level"]] = row
    head = ("net", "regime", "budgets", "planned", "instant", "RSS peak", "cgroup", "kept")
    return table(
        head,
        (_case(net, regime, [levels[level] for level in LEVELS]) for (net, regime), levels in grouped.items()),
        left=2,
    )


def _case(net: str, regime: str, rows: Sequence[Item]) -> Sequence[str]:
    return (
        NETS[net].title,
        regime,
        _joined(row["budget_mb"] for row in rows),
        _joined(row["planned_mb"] for row in rows),
        " · ".join(f"{'' if _alike(row) else '~'}{row['instant_mb']:.0f}" for row in rows),
        _joined(_measured_mb(row) for row in rows),
        _joined(row["cgroup_mb"] for row in rows),
        f"{sum(row['kept'] for row in rows)} of {len(rows)}",
    )


def _verdict(rows: Sequence[Item]) -> str:
    kept = sum(row["kept"] for row in rows)
    harmed = sum(bool(row["kills"] or row["restarts"] or row["lossy"]) for row in rows)
    alike = list(filter(_alike, rows))
    planned, instant = 100 * _worst(rows, "planned_mb"), 100 * _worst(alike, "instant_mb")
    return (
        f"{kept} of {len(rows)} finish within their budget; {harmed or 'none'} killed, restarted or lossy. The "
        f"probed plan is never off by more than {planned:.1f} %; the instant one, where it lays the run out "
        f"alike, by {instant:.1f} %."
    )


def _worst(rows: Sequence[Item], name: str) -> float:
    return max(abs(float(row[name]) / _measured_mb(row) - 1) for row in rows)


def _minimum(items: Sequence[Item]) -> str:
    head = (
        "net",
        "regime",
        "smallest budget",
        "peak within it",
        "more than needed",
        "forced in",
        "peak",
        "exit code",
    )
    return table(
        head,
        (
            (
                NETS[item["net"]].title,
                item["regime"],
                rounded(item["minimum_mb"]),
                rounded(item["measured_mb"]),
                f"{100 * (item['minimum_mb'] / item['measured_mb'] - 1):.1f} %",
                rounded(item["forced_mb"]),
                rounded(item["forced_peak_mb"]),
                str(item["forced_code"]),
            )
            for item in items
        ),
        left=2,
    )


def _kills(items: Sequence[Item]) -> str:
    head = ("regime", "kills", "of the worker", "of the tree", "runs resumed to the same weights", "to others")
    names = ("kills", "worker", "tree", "equal", "different")
    total = ("all", *(str(sum(item[name] for item in items)) for name in names))
    return table(head, [*((item["regime"], *(str(item[name]) for name in names)) for item in items), total])


def _alike(row: Item) -> bool:
    return bool(row["instant_layout"] == row["layout"])


def _measured_mb(item: Item) -> float:
    return float(max(item["outside_mb"], item["summary_mb"]))


def _joined(values: Any) -> str:
    return " · ".join(f"{value:.0f}" for value in values)
