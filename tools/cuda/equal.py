"""Compare training on CUDA and on the CPU, paged and resident, in bfloat16 and float32."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from edge_trgl.data import open_dataset
from edge_trgl.run.folder import Run
from tools.cuda.checks import Result, Setting
from tools.cuda.runs import REGIMES, Sections, Trained, planned, sections, trained

UNIT = 2.0**-24
"""The relative error of one rounding of float32."""

COUNTED = ("running_mean", "running_var", "num_batches_tracked")
"""The buffers of a batch norm."""

PAIRS: dict[str, tuple[Sections, Sections]] = {
    "parallel": (
        {"budget": {"chunk": "1"}},
        {"budget": {"chunk": "2", "resident": "1"}},
    ),
    "sequential": (
        {"train": {"regime": "sequential"}},
        {"train": {"regime": "sequential"}, "budget": {"resident": "1"}},
    ),
    "end-to-end": (
        {"train": {"regime": "end-to-end"}, "model": {"modules": 1}},
        {"train": {"regime": "end-to-end"}, "budget": {"resident": "1"}},
    ),
}
"""By regime: everything in memory, and one module there with its boundaries on the disk."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two runs are apart, of the module where it is most.

    `loss` and `transport`: relative, of an epoch. `weights`: relative to how far training moved them.
    """

    loss: float
    transport: float
    weights: float

    def within(self, tolerance: Difference) -> bool:
        """Whether none is larger; what is no number is."""
        return all(mine <= asdict(tolerance)[name] for name, mine in asdict(self).items())


# ---- the CPU's numbers


def agreement(setting: Setting) -> Result:
    """Every regime on both devices, without TF32.

    A sum of n products that is added up in another order differs by about √n roundings (at worst by n: Higham,
    Accuracy and Stability, section 4.2); a convolution's are of n = 9C, and the longer ones of its gradients are
    added up in parts, whose errors do not grow with their number. The CPU tells what becomes of such a difference:
    each regime is trained there once more with every first weight off by √n · 2⁻²⁴, relative. CUDA is off so in
    each of its T steps, which adds up like √T; so it may be 2√T times as far from the CPU's numbers. Multiplied in
    TF32, which keeps 2⁻¹¹, they would be farther.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    details = {regime: _compared(setting, regime) for regime in REGIMES}
    return Result(name="agreement", ok=all(found["ok"] for found in details.values()), details=details)


def _compared(setting: Setting, regime: str) -> dict[str, Any]:
    def made(name: str, device: str) -> Run:
        folder = setting.scratch / f"agreement-{regime}-{name}"
        return planned(folder, sections(setting, device), REGIMES[regime])

    own = made("here", "cpu")
    twin = Run(own.folder.with_name(f"{own.folder.name}-shaken"))
    shutil.copytree(own.folder, twin.folder)
    noise, steps = rounding(own), steps_of(own)
    here, there = trained(own), trained(made("there", setting.device))
    shaken = trained(twin, disturbance=noise)
    return judge_agreement(difference(here, there), difference(here, shaken), noise, steps)


def rounding(run: Run) -> float:
    """What the order of a convolution's sum may change of it, relative."""
    return math.sqrt(9 * run.config().model.width) * UNIT


def steps_of(run: Run) -> int:
    """Of the module that comes last."""
    train, images = run.config().train, open_dataset(run.data).splits["train"].num_images
    return int(train.epochs) * (images // train.batch_size)


def judge_agreement(found: Difference, shaken: Difference, noise: float, steps: int) -> dict[str, Any]:
    """`found` between the devices, given what a disturbance of `noise` did on the CPU."""
    margin = 2 * math.sqrt(steps)
    tolerance = Difference(**{name: margin * max(one, noise) for name, one in asdict(shaken).items()})
    return {
        "ok": found.within(tolerance),
        "found": asdict(found),
        "tolerance": asdict(tolerance),
        "disturbed": asdict(shaken),
        "disturbance": noise,
        "steps": steps,
    }


def difference(one: Trained, other: Trained) -> Difference:
    """Of `other` from `one`."""
    transports = {place: value for place, value in one.transports.items() if value}
    return Difference(
        loss=_farthest(one.losses, other.losses),
        transport=_farthest(transports, other.transports) if transports else 0.0,
        weights=max(map(_moved_apart, one.weights, other.weights, one.first)),
    )


def _farthest(one: Mapping[tuple[int, int], float], other: Mapping[tuple[int, int], float]) -> float:
    apart = [abs(value - other[place]) / abs(value) for place, value in one.items()]
    return math.inf if any(map(math.isnan, apart)) else max(apart)


def _moved_apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> float:
    apart = moved = 0.0
    for name, tensor in one.items():
        if tensor.is_floating_point():
            apart += float((other[name].double() - tensor.double()).square().sum())
            moved += float((tensor.double() - first[name].double()).square().sum())
    return math.inf if math.isnan(apart) else math.sqrt(apart / moved)


# ---- the same bits


def paging(setting: Setting) -> Result:
    """With deterministic algorithms, which cuBLAS wants CUBLAS_WORKSPACE_CONFIG for."""
    torch.use_deterministic_algorithms(mode=True)
    details = {}
    for regime, pair in PAIRS.items():
        whole, paged = (
            planned(setting.scratch / f"paging-{regime}-{name}", sections(setting, setting.device), layer)
            for name, layer in zip(("resident", "paged"), pair, strict=True)
        )
        _lay_on_disk(paged)
        details[regime] = judge_bits(trained(whole), trained(paged))
    return Result(name="paging", ok=all(found["ok"] for found in details.values()), details=details)


def _lay_on_disk(run: Run) -> None:
    facts = run.facts()
    planned = facts.planned
    layout = replace(planned.plan.layout, placement="disk")
    facts.planned = replace(planned, plan=replace(planned.plan, layout=layout))
    facts.close()


def judge_bits(one: Trained, other: Trained) -> dict[str, Any]:
    """Whether the tensors of both, in order, are the same; how many are not, and by how much at most."""
    pairs = zip(_in_order(one), _in_order(other), strict=True)
    apart = [float((a.double() - b.double()).abs().max()) for a, b in pairs if not torch.equal(a, b)]
    largest = max(apart, default=0.0)
    return {"ok": not apart, "tensors": len(list(_in_order(one))), "different": len(apart), "largest": largest}


def _in_order(run: Trained) -> Iterator[Tensor]:
    """Of all modules, part by part: end-to-end, one module has what several have."""
    for part in ("trunk.", "head."):
        for counted in (False, True):
            for module in run.weights:
                yield from (
                    tensor
                    for name, tensor in module.items()
                    if name.startswith(part) and name.endswith(COUNTED) is counted
                )


# ---- half the digits


def bf16(setting: Setting) -> Result:
    """Parallel training under autocast."""
    layers = (sections(setting, setting.device), REGIMES["parallel"], {"train": {"precision": "bf16"}})
    return judge_bf16(trained(planned(setting.scratch / "bf16", *layers)))


def judge_bf16(run: Trained) -> Result:
    """Whether boundaries are bfloat16, every loss is a number, and each module's last is below its first."""
    epochs = max(epoch for _, epoch in run.losses)
    falls = [run.losses[module, epochs] < run.losses[module, 0] for module in range(len(run.weights))]
    finite = all(map(math.isfinite, run.losses.values()))
    narrow = all(dtype == "bfloat16" for dtype in run.dtypes[:-1])
    losses = {f"module {module}, epoch {epoch + 1}": loss for (module, epoch), loss in run.losses.items()}
    details = {"losses": losses, "boundaries": run.dtypes, "finite": finite, "falls": falls}
    return Result(name="bf16", ok=finite and narrow and all(falls), details=details)
