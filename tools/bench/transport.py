"""Measure peak memory and time of local steps with and without the transport term.

    python -m tools.bench.transport [--nets NAME ...] [--rounds N] [--threads N] [--json FILE|-] [--quick]

Three arms on the same weights and images: `without` (VanGL), `with` (TRGL as the product computes it: no residue
is kept) and `kept` (the term as a formula over kept residues). Memory: bytes of tensors alive at the high-water
moment of a module's step, counted at every allocation; ratios are of the module where they are largest. Time:
one step of every distinct module, as often as the net has it, the arms taking turns; ratios within a round. It is
CPU time, which on one thread is the time that steps take where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from edge_trgl.engine import process_setup
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Residue, Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.zoo import km_resnet, resnet110
from edge_trgl.planning.count import ModuleCost, chain_costs
from edge_trgl.runtime.units import MIB
from tools.common.intervals import T_975, median_ratio
from tools.common.machine import origin
from tools.common.options import command_line

MEMORY_LIMIT, TIME_LIMIT = 1.001, 1.02
TAU = 0.5
ARMS = ("without", "with", "kept")


@dataclass(frozen=True, kw_only=True)
class Net:
    """A chain and the images of a step."""

    title: str
    chain: Callable[[], Chain]
    batch_size: int


NETS = {
    "resnet110": Net(
        title="ResNet-110, a block a module, 96x96, batch 64",
        chain=lambda: resnet110(input_shape=(3, 96, 96), num_classes=10, num_modules=54),
        batch_size=64,
    ),
    "km64": Net(
        title="K-M 10-1, width 64, 32x32, batch 128",
        chain=lambda: km_resnet(10, 1, input_shape=(3, 32, 32), num_classes=10, width=64),
        batch_size=128,
    ),
}
TINY = Net(
    title="K-M 3-1, width 8 (only to try the tool)",
    chain=lambda: km_resnet(3, 1, input_shape=(1, 8, 8), num_classes=10, width=8),
    batch_size=64,  # so that activations, not gradients, make the peak
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    process_setup.set_up(options.threads)
    nets = {"quick": TINY} if options.quick else {name: NETS[name] for name in options.nets}
    rows = [row for name, net in nets.items() for row in measure(name, net, options.rounds)]
    targets = [target for row in rows for target in judge(row)]
    document = {
        **origin(options.threads),
        "rows": rows,
        "targets": targets,
        "ok": all(target["ok"] for target in targets),
    }
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else table(document))
    return 0 if document["ok"] else 1


def measure(name: str, net: Net, num_rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each level of recomputation."""
    costs = {}
    for arm in ARMS:
        with _formed(arm):
            costs[arm] = chain_costs(net.chain(), _config(arm))
    for recompute in get_args(Recompute):
        peaks = {arm: [cost.steps[recompute].peak_tensors(net.batch_size) for cost in costs[arm]] for arm in ARMS}
        rounds = _rounds(net, costs["with"], recompute, num_rounds)
        ratios = {arm: median_ratio([(times[arm], times["without"]) for times in rounds]) for arm in ARMS[1:]}
        yield {
            "net": name,
            "recompute": recompute,
            "rounds": num_rounds,
            "peak_mb": {arm: max(found) / MIB for arm, found in peaks.items()},
            "memory": {arm: max(map(truediv, peaks[arm], peaks["without"])) for arm in ARMS[1:]},
            "time": {
                arm: dict(zip(("median", "low", "high"), ratio, strict=True)) for arm, ratio in ratios.items()
            },
        }


def _config(arm: str, recompute: Recompute = "none") -> StepConfig:
    return StepConfig(transport=Transport(tau=None if arm == "without" else TAU), recompute=recompute)


@contextmanager
def _formed(arm: str) -> Iterator[None]:
    """While it is on, the residue is kept in every form, if that is the arm."""
    add, norm = Residue.add, Residue.norm
    if arm == "kept":
        Residue.add, Residue.norm = _add_kept, _norm_kept  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Residue.add, Residue.norm = add, norm  # type: ignore[method-assign]


def _add_kept(mark: Residue, x: Tensor, branch: Tensor) -> Tensor:
    return x + mark.forward(branch)


def _norm_kept(mark: Residue, norm: Any, x: Tensor) -> Tensor:
    return mark.forward(norm(x))


def _rounds(
    net: Net, costs: Sequence[ModuleCost], recompute: Recompute, num_rounds: int
) -> list[dict[str, float]]:
    """CPU seconds of a step of the whole net by arm, round by round; the order of the arms turns round."""
    chain, found = net.chain(), [dict.fromkeys(ARMS, 0.0) for _ in range(num_rounds)]
    alike = Counter(_kind(cost) for cost in costs)
    for kind, count in alike.items():
        cost = next(cost for cost in costs if _kind(cost) == kind)
        steps = {arm: _step(chain, cost, net.batch_size, _config(arm, recompute)) for arm in ARMS}
        for number, times in enumerate([{}, *found]):  # the first is to warm up
            for arm in ARMS if number % 2 else reversed(ARMS):
                with _formed(arm):
                    began = time.process_time()
                    steps[arm]()
                    taken = time.process_time() - began
                if number:
                    times[arm] += count * taken
    return found


def _kind(cost: ModuleCost) -> tuple[Any, ...]:
    return cost.name, cost.input_shape, cost.output_shape


def _step(chain: Chain, cost: ModuleCost, batch_size: int, config: StepConfig) -> Callable[[], None]:
    local = LocalModule(chain, cost.module, cost.output_shape, config)
    chain.initialise(cost.module, local.trunk, local.head, 0)
    local.materialise("cpu")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch_size, *cost.input_shape), generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    y = torch.randint(10, (batch_size,), generator=generator)
    return lambda: local.train_step(x, y, lr=1e-3, seed=0)


def judge(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The targets of a row."""
    place = f"{row['net']}, recompute {row['recompute']}"
    pairs = [("peak tensors, with / without", row["memory"]["with"], MEMORY_LIMIT)]
    if row["net"] in NETS:  # of a tiny net, the loop around the kernels is most of the time
        pairs.append(("time, with / without, upper end of the interval", row["time"]["with"]["high"], TIME_LIMIT))
    return [
        {"name": f"{place}: {name}", "value": value, "limit": limit, "ok": value <= limit}
        for name, value, limit in pairs
    ]


def table(document: Mapping[str, Any]) -> str:
    """Format the results as text."""
    lines = [
        f"{'net':10} {'recompute':10}{'MiB without':>12}{'with':>9}{'kept':>9}   time with [95 %]          kept"
    ]
    for row in document["rows"]:
        sizes, times = row["peak_mb"], row["time"]
        spans = "   ".join(
            f"{times[arm]['median']:.3f} [{times[arm]['low']:.3f}, {times[arm]['high']:.3f}]" for arm in ARMS[1:]
        )
        lines.append(
            f"{row['net']:10} {row['recompute']:10}{sizes['without']:12.2f}{row['memory']['with'] - 1:+9.3%}"
            f"{row['memory']['kept'] - 1:+9.1%}   {spans}"
        )
    for target in document["targets"]:
        verdict = "met   " if target["ok"] else "MISSED"
        lines.append(f"{verdict} {target['name']}: {target['value']:.5g}, at most {target['limit']:.5g}")
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.transport", __doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="default: all")
    parser.add_argument("--rounds", type=int, default=len(T_975), help=f"pairs of steps [{len(T_975)}]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="a tiny net and few steps, only to try the tool")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 3
    return options


if __name__ == "__main__":
    sys.exit(main())
