"""What a run is told: one frozen dataclass a section. `settings` reads it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edge_trgl.config.export_request import TargetName
from edge_trgl.config.head_choice import HeadChoice, parse_heads
from edge_trgl.runtime.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """`source`: `sample`, a folder or a .npz file. `crop_padding`: pixels; None is a sixteenth of the side.

    `choose_on`: what the depth is chosen on: images held out of training or the set's own (`validation`), a share
    of those that `limit` leaves out of training (`unused`), or half of the test images, as the paper's authors did
    (`half-test`: every other one). `validation`: the share.
    """

    source: str = "sample"
    image_size: int | None = None
    limit: int | None = None
    validation: float = 0.1
    choose_on: Literal["validation", "unused", "half-test"] = "validation"
    augment: bool = True
    crop_padding: int | None = None
    flip: bool = True

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return _unless(0 < self.validation < 1, "data.validation must lie between 0 and 1") + _unless(
            self.crop_padding is None or self.crop_padding >= 0, "data.crop_padding must not be negative"
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`name`: as `build_chain` knows it. `modules` regroups its blocks.

    `head`: the auxiliary classifiers, as `parse_heads` reads them; None are the model's own. `shared_head`: one
    classifier for all modules. `pretrained`: a file or a run's folder with the weights to begin with. `gain`: of
    the orthogonal initialisation; None is the model's own.
    """

    name: str = "km-10-1"
    width: int = 32
    modules: int | None = None
    downsample: tuple[int, ...] | None = None
    head: str | None = None
    shared_head: bool = False
    pretrained: str | None = None
    gain: float | None = None
    partition: Literal["depth", "weight"] = "depth"

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(self.width >= 2 and self.width % 2 == 0, "model.width must be even and at least 2")
            + _unless(self.modules is None or self.modules >= 1, "model.modules must be at least 1")
            + _unless(self.gain is None or 0 < self.gain < math.inf, "model.gain must be above 0 and finite")
            + _unless(
                self.partition == "depth" or self.modules is not None,
                "model.partition weight needs model.modules",
            )
            + self._head_problems()
        )

    def _head_problems(self) -> list[str]:
        try:
            heads = self.heads()
        except ValueError as error:
            return [f"model.head {error}"]
        one = heads is None or (not heads.auto and len(set(heads.names)) == 1)
        return _unless(
            one or not self.shared_head, f"model.shared_head is one classifier; model.head is {self.head}"
        )

    @property
    def imported(self) -> bool:
        """Whether it comes from a library or from the user."""
        return ":" in self.name

    def heads(self) -> HeadChoice | None:
        """The heads that are asked for."""
        return None if self.head is None else parse_heads(self.head)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`epochs`: passes over the data of each module in all: a number, `50+10k`, or a comma-separated list.
    `short_batch`: what is done with the last batch of an epoch that is short.

    `lr_schedule` steps: the rate is multiplied by `lr_factor` at every epoch of `lr_milestones`. In the first
    `warmup_epochs` of a module the rate grows to `lr` in equal steps; a cosine begins after them. `momentum` is
    that of sgd, `betas` are those of adamw. `prefix`: of sequential training without a cache: frozen, or run in
    training mode (batch statistics, and the running ones move on), as the paper's authors did. `freeze`: so many
    modules, the first ones, are not trained.
    """

    regime: Literal["parallel", "multi-lap", "sequential", "end-to-end"] = "parallel"
    epochs: str = "10"
    laps: int = 1
    batch_size: int = 32
    short_batch: Literal["drop", "keep"] = "drop"
    lr: float = 0.02
    lr_schedule: Literal["cosine", "constant", "steps"] = "cosine"
    lr_milestones: tuple[int, ...] = ()
    lr_factor: float = 0.2
    warmup_epochs: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 2e-4
    label_smoothing: float = 0.1
    views: int = 1
    cache: bool = True
    prefix: Literal["frozen", "train-mode"] = "frozen"
    freeze: int = 0
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int | None = None
    checkpoint_minutes: float = 5.0

    def problems(self) -> list[str]:
        """What is out of bounds."""
        found = []
        for name in ("laps", "batch_size", "views"):
            found += _unless(getattr(self, name) >= 1, f"train.{name} must be at least 1")
        for name in (
            "warmup_epochs",
            "momentum",
            "weight_decay",
            "label_smoothing",
            "checkpoint_minutes",
            "freeze",
        ):
            found += _unless(getattr(self, name) >= 0, f"train.{name} must not be negative")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        found += _unless(good, "train.betas must be two numbers from 0 to below 1")
        found += _unless(0 < self.lr < math.inf, "train.lr must be above 0 and finite")
        found += _unless(0 < self.lr_factor < math.inf, "train.lr_factor must be above 0 and finite")
        found += _unless(min(self.lr_milestones, default=1) >= 1, "train.lr_milestones must be at least 1")
        found += _unless(
            self.lr_schedule != "steps" or bool(self.lr_milestones),
            "train.lr_schedule steps needs train.lr_milestones",
        )
        found += _unless(
            self.prefix == "frozen" or not self.cache, "train.prefix train-mode needs train.cache = false"
        )
        found += _unless(
            not self.freeze or self.regime != "end-to-end",
            f"train.freeze {self.freeze} is for local training; train.regime is end-to-end",
        )
        found += _unless(self.momentum < 1, "train.momentum must be below 1")
        found += _unless(self.label_smoothing < 1, "train.label_smoothing must be below 1")
        found += _unless(self.threads is None or self.threads >= 1, "train.threads must be at least 1")
        found += _unless(
            self.laps <= 1 or self.regime == "multi-lap", "train.laps above 1 is for train.regime multi-lap"
        )
        try:
            epochs = parse_epochs(self.epochs, 1)
        except UsageError as error:
            return [*found, error.message]
        if self.regime in ("parallel", "end-to-end") and not self.epochs.strip().isdigit():
            found.append(f"train.epochs {self.epochs!r}: {self.regime} trains every module for the same number")
        found += _unless(min(epochs) >= self.laps, "train.epochs must be at least one a lap")
        # Of 50+10k, the first two stand for all.
        each = parse_epochs(self.epochs, 2) if self.epochs.strip().endswith("k") else epochs
        found += _unless(
            not 1 < self.laps <= min(epochs) or not any(count % self.laps for count in each),
            f"train.epochs {self.epochs} cannot be spread evenly over train.laps {self.laps}",
        )
        found += _unless(min(epochs) > self.warmup_epochs, "train.warmup_epochs must be fewer than train.epochs")
        return found


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """`enabled` False is VanGL. `tau`: of the first half of the modules, in units of `reduction`; then doubled.
    `p`: of the norm, whose p-th power is the cost.

    `multipliers` uses λ of appendix D (`lambda_first`, `growth`, `every`) in place of τ. `lambda_start`: every
    module's λ starts at `lambda_first` (`same`, the paper), or module k's at k · `lambda_first` (`by-depth`, the
    authors' scripts).
    """

    enabled: bool = True
    tau: float = 0.5
    reduction: Literal["mean", "sum"] = "mean"
    p: float = 2.0
    multipliers: bool = False
    lambda_first: float = 1.0
    lambda_start: Literal["same", "by-depth"] = "same"
    growth: float = 1.0
    every: int = 50

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(self.tau > 0, "transport.tau must be above 0 (use --no-transport for none)")
            + _unless(1 <= self.p < math.inf, "transport.p must be at least 1 and finite")
            + _unless(self.lambda_first > 0, "transport.lambda_first must be above 0")
            + _unless(self.growth >= 0, "transport.growth must not be negative")
            + _unless(self.every >= 1, "transport.every must be at least 1")
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The local loss, to which the transport term is added. `beta`: of predsim, the share of similarity matching.

    `lambda1` and `lambda2`: of infopro, the weights of the reconstruction and of what the label asks for, each in
    the first module and in the last but one; between them they change linearly.
    """

    name: Literal["cross-entropy", "predsim", "infopro", "infopro-contrast"] = "cross-entropy"
    beta: float = 0.99
    lambda1: tuple[float, ...] = (5.0, 0.5)
    lambda2: tuple[float, ...] = (0.2, 1.0)

    @property
    def compares_samples(self) -> bool:
        """Whether micro-batches would give another loss."""
        return self.name in ("predsim", "infopro-contrast")

    def problems(self) -> list[str]:
        """What is out of bounds."""
        found = _unless(0 < self.beta <= 1, "loss.beta must be above 0 and at most 1")
        for name in ("lambda1", "lambda2"):
            weights = getattr(self, name)
            good = len(weights) == 2 and all(0 <= weight < math.inf for weight in weights)
            found += _unless(good, f"loss.{name} must be two weights, of the first and of the last but one module")
        nothing = any(not image and not label for image, label in zip(self.lambda1, self.lambda2, strict=False))
        return found + _unless(not nothing, "loss.lambda1 and loss.lambda2 must not both be 0 for a module")


Saving = Literal["paging", "disk", "recompute", "early-update", "reuse", "trim", "allocator"]
"""paging: modules in memory all the time. disk: boundaries never on disk. recompute: every activation kept.
early-update: weights updated after the backward, not in it. reuse: a new buffer for every read of a boundary.
trim: freed heap stays with the process between visits. allocator: the C library's own settings."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """`mb`: MiB for everything the run has in memory; `auto` is 80 % of what is available, `min` the smallest that
    works. `disk_mb`: MiB that the run's folder may take on its disk; None is what is free, less a reserve. `chunk`
    and `resident`: `auto` leaves them to the plan. `allow`: what may change the result for the run to fit.
    `without`: savings that are switched off, to measure them. `probe`: plan by measured steps. `cgroup`: train in
    a memory cgroup of the budget. `force`: go on where the plan says that it does not fit.
    """

    mb: Literal["auto", "min"] | float = 2000.0
    disk_mb: float | None = None
    chunk: str = "auto"
    resident: str = "auto"
    prefetch: bool = True
    allow: tuple[Literal["micro-batch", "fp16-boundaries", "int8-boundaries"], ...] = ()
    without: tuple[Saving, ...] = ()
    probe: bool = True
    cgroup: bool = False
    force: bool = False

    def problems(self) -> list[str]:
        """What is out of bounds."""
        return (
            _unless(isinstance(self.mb, str) or self.mb > 0, "budget.mb must be above 0, auto or min")
            + _unless(self.disk_mb is None or self.disk_mb > 0, "budget.disk_mb must be above 0")
            + _unless(
                _is_count(self.chunk, ("auto", "epoch")),
                "budget.chunk must be auto, epoch or a number of batches",
            )
            + _unless(_is_count(self.resident, ("auto",)), "budget.resident must be auto or a number of modules")
            + _unless(
                "paging" not in self.without or self.resident == "auto",
                "budget.resident says nothing with budget.without paging",
            )
        )


@dataclass(frozen=True, kw_only=True)
class BoardConfig:
    """What a profile says of the machine; None and () where it says nothing. `estimates`: what nobody measured.

    `usable_mb`: MiB of memory as the kernel shows it. `memory_gbs`: GB/s. `storage_*_mbs`: MB/s, sequential.
    `storage_random_iops`: reads of 4 KiB a second. `endurance_tb`: TB that may be written. `images_per_s`: of
    probe's reference module. `dtypes`: fp32, fp16, bf16. `providers`: of ONNX Runtime. `target`: of an export.
    """

    name: str | None = None
    usable_mb: float | None = None
    memory_gbs: float | None = None
    gpu: str | None = None
    dtypes: tuple[Literal["fp32", "fp16", "bf16"], ...] = ()
    storage: str | None = None
    storage_read_mbs: float | None = None
    storage_write_mbs: float | None = None
    storage_random_iops: float | None = None
    endurance_tb: float | None = None
    images_per_s: float | None = None
    counters: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    target: TargetName | None = None
    estimates: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """What is out of bounds."""
        found, values = [], asdict(self)
        for name, value in values.items():
            good = not isinstance(value, float) or 0 < value < math.inf
            found += _unless(good, f"board.{name} must be above 0 and finite")
        for name in self.estimates:
            good = values.get(name) not in (None, ())
            found += _unless(good, f"board.estimates names {name}, which the board does not give")
        return found


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    board: BoardConfig = field(default_factory=BoardConfig)

    def problems(self) -> list[str]:
        """What is out of bounds or does not go together."""
        sections = (self.data, self.model, self.train, self.transport, self.loss, self.budget, self.board)
        found = [problem for section in sections for problem in section.problems()]
        streams = self.train.regime == "parallel" or (self.train.regime != "end-to-end" and not self.train.cache)
        if not streams and self.budget.chunk != "auto":
            found.append(
                f"budget.chunk is for parallel training, or without a cache; train.regime is {self.train.regime}"
            )
        found += _unless(
            self.train.regime != "end-to-end" or self.loss.name == "cross-entropy",
            f"loss.name {self.loss.name} is for local training; train.regime is end-to-end",
        )
        found += self._shared_head_problems() + self._views_problems()
        return found + _unless(
            not self.loss.compares_samples or "micro-batch" not in self.budget.allow,
            f"budget.allow micro-batch is not for loss.name {self.loss.name}, which compares a batch's samples",
        )

    def _shared_head_problems(self) -> list[str]:
        """It goes from module to module with every batch."""
        if not self.model.shared_head:
            return []
        regime, chunk, resident = self.train.regime, self.budget.chunk, self.budget.resident
        return (
            _unless(regime == "parallel", f"model.shared_head is for parallel training; train.regime is {regime}")
            + _unless(chunk in ("auto", "1"), f"model.shared_head needs budget.chunk 1, and it is {chunk}")
            + _unless(
                resident == "auto",
                f"model.shared_head keeps all modules in memory; budget.resident is {resident}, leave it at auto",
            )
        )

    def _views_problems(self) -> list[str]:
        """They are of what is cached."""
        train = self.train
        caches = train.cache and (train.regime in ("sequential", "multi-lap") or train.freeze > 0)
        if train.views <= 1 or (caches and self.data.augment):
            return []
        reason = "nothing is augmented" if caches else f"nothing is cached with train.regime {train.regime}"
        reason += "" if caches or train.cache else " and train.cache = false"
        return [f"train.views {train.views} are augmented copies of what is cached; {reason}"]

    def document(self) -> dict[str, Any]:
        """As nested plain values; None is left out, TOML having no word for it."""
        return {
            section: {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
            for section, values in asdict(self).items()
        }


def parse_epochs(text: str, num_modules: int) -> tuple[int, ...]:
    """Epochs of each module from `30`, `50+10k` (module k: 50 + 10 k) or `5,6,7`.

    Raises:
        UsageError: none of these, or a list of another length than the number of modules.
    """
    text = text.strip()
    try:
        if "," in text:
            listed = tuple(int(part) for part in text.split(","))
            if num_modules != 1 and len(listed) != num_modules:
                raise UsageError(f"train.epochs lists {len(listed)} numbers for {num_modules} modules")
        elif text.endswith("k"):
            base, step = text[:-1].split("+")
            listed = tuple(int(base) + int(step) * module for module in range(num_modules))
        else:
            listed = (int(text),) * num_modules
    except ValueError:
        raise UsageError(
            f"train.epochs {text!r} is not a number, a form like 50+10k, or a list like 5,6,7"
        ) from None
    if min(listed) < 1:
        raise UsageError("train.epochs must be at least 1")
    return listed


def _unless(good: bool, problem: str) -> list[str]:  # noqa: FBT001 - reads as a sentence
    return [] if good else [problem]


def _is_count(text: str, words: tuple[str, ...]) -> bool:
    return text in words or (text.isdecimal() and int(text) >= 1)
