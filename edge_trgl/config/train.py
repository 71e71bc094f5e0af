"""The section `train`: the order of training, its length, and the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.epochs import parse_epochs
from edge_trgl.config.fields import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE_FINITE, Bounds, setting
from edge_trgl.runtime.errors import UsageError

BELOW_ONE = Bounds(at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a run trains: its regime, its epochs, its optimizer, and the device that computes."""

    regime: Literal["parallel", "multi-lap", "sequential", "end-to-end"] = setting(
        "parallel",
        "parallel, sequential, multi-lap or end-to-end",
        more="the order of training. parallel: all modules, batch by batch; sequential: one module after another; "
        "multi-lap: sequential, several times; end-to-end: one loss for all, as a baseline",
    )
    epochs: str = setting(
        "10",
        "epochs per module: 30, 5,6,7 or 50+10k for module k",
        more="passes over the data; 50+10k: module k, counted from 0, trains for 50 + 10 k epochs",
        parse=lambda text: parse_epochs(text, 1),
    )
    laps: int = setting(1, "laps of multi-lap training", bounds=AT_LEAST_ONE)
    batch_size: int = setting(32, "images per step", bounds=AT_LEAST_ONE)
    short_batch: Literal["drop", "keep"] = setting("drop", "what to do with a short last batch")
    lr: float = setting(0.02, "learning rate", bounds=POSITIVE_FINITE)
    lr_schedule: Literal["cosine", "constant", "steps"] = setting(
        "cosine", "how the learning rate changes", more="steps: multiplied by lr_factor at each of lr_milestones"
    )
    lr_milestones: tuple[int, ...] = setting(
        (), "epochs at which the learning rate steps", unset="none", bounds=AT_LEAST_ONE
    )
    lr_factor: float = setting(0.2, "factor of each step of the learning rate", bounds=POSITIVE_FINITE)
    warmup_epochs: int = setting(
        0,
        "epochs in which the learning rate grows to lr",
        more="in equal steps, in every module; a cosine begins after them",
        bounds=NOT_NEGATIVE,
    )
    optimizer: Literal["sgd", "adamw"] = setting("sgd", "optimizer")
    momentum: float = setting(0.9, "momentum of sgd", bounds=BELOW_ONE)
    betas: tuple[float, ...] = setting((0.9, 0.999), "betas of adamw", bounds=BELOW_ONE, length=2)
    weight_decay: float = setting(2e-4, "weight decay", bounds=NOT_NEGATIVE)
    label_smoothing: float = setting(0.1, "label smoothing", bounds=BELOW_ONE)
    views: int = setting(1, "augmented copies in a cached boundary", bounds=AT_LEAST_ONE)
    cache: Literal["auto", "boundary", "none"] = setting(
        "auto",
        "cache boundaries or recompute them",
        more="in sequential and multi-lap training, and after frozen modules. auto: cached, but not behind frozen "
        "modules of parallel training where every epoch would then see the same crops",
    )
    prefix: Literal["frozen", "train-mode"] = setting(
        "frozen",
        "how earlier modules run in sequential training",
        more="train-mode, without a cache: with the statistics of the batch, as the paper's authors did",
    )
    freeze: int = setting(0, "number of leading modules to freeze", bounds=NOT_NEGATIVE)
    grow: bool = setting(
        False,
        "train no deeper than validation images reward",
        more="sequential training stops when train.grow_patience modules gained nothing; parallel training drops "
        "all modules behind them after 2, 4, 8 ... epochs, or every train.look_every",
    )
    grow_patience: int = setting(2, "modules without a gain that --grow still trains", bounds=AT_LEAST_ONE)
    look_every: int | None = setting(
        None,
        "epochs from one look at validation images to the next",
        more="at every depth, in parallel and end-to-end training",
        unset="none, but for one after the second epoch of parallel training",
        bounds=AT_LEAST_ONE,
    )
    recalibrate: bool = setting(
        False,
        "measure the running statistics of norms again",
        more="at the end, in one more pass over the training images as they are",
    )
    seed: int = setting(0, "random seed")
    device: Literal["cpu", "cuda"] = setting("cpu", "where to compute")
    precision: Literal["fp32", "bf16"] = setting("fp32", "arithmetic of the forward pass")
    threads: int | None = setting(None, "CPU threads", unset="PyTorch's default", bounds=AT_LEAST_ONE)
    checkpoint_minutes: float = setting(5.0, "longest time between commits, in minutes", bounds=NOT_NEGATIVE)

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        conflicts = []
        if self.lr_schedule == "steps" and not self.lr_milestones:
            conflicts.append("train.lr_schedule steps needs train.lr_milestones")
        if self.prefix == "train-mode" and self.cache == "boundary":
            conflicts.append("train.prefix train-mode caches nothing; train.cache asks for boundary")
        if self.freeze and self.regime == "end-to-end":
            conflicts.append(
                f"train.freeze {self.freeze} needs a regime that trains module by module, not end-to-end"
            )
        if self.laps > 1 and self.regime != "multi-lap":
            conflicts.append(f"train.laps {self.laps} needs train.regime multi-lap, not {self.regime}")
        if self.look_every is not None and self.regime not in ("parallel", "end-to-end"):
            conflicts.append(f"train.look_every looks at all depths; {self.regime} training trains one at a time")
        return conflicts + self._conflicts_of_growing() + self._conflicts_of_epochs()

    def _conflicts_of_growing(self) -> list[str]:
        if not self.grow:
            return []
        if self.regime == "end-to-end":
            return ["train.grow needs a regime that trains module by module, not end-to-end"]
        if self.laps > 1:
            return [f"train.grow needs one lap: with train.laps {self.laps} every module is trained in the first"]
        if self.recalibrate and self.regime != "parallel":
            return ["train.grow stops before the passes over all modules that train.recalibrate asks for"]
        return []

    def _conflicts_of_epochs(self) -> list[str]:
        try:
            # Of a form like 50+10k, the first two modules stand for all.
            each = parse_epochs(self.epochs, 2 if self.epochs.strip().endswith("k") else 1)
        except UsageError:
            return []  # reported as a mistake of train.epochs
        conflicts = []
        if self.regime in ("parallel", "end-to-end") and not self.epochs.strip().isdigit():
            conflicts.append(
                f"train.epochs must be one number, not {self.epochs!r}: "
                f"train.regime {self.regime} trains every module for as long"
            )
        if min(each) < self.laps:
            conflicts.append(f"train.epochs must be at least one per lap, and train.laps is {self.laps}")
        elif self.laps > 1 and any(count % self.laps for count in each):
            conflicts.append(f"train.epochs {self.epochs} cannot be spread evenly over train.laps {self.laps}")
        if min(each) <= self.warmup_epochs:
            conflicts.append(f"train.warmup_epochs must be fewer than train.epochs, not {self.warmup_epochs}")
        return conflicts
