"""The configuration of a run: one frozen section for each subject, and what must agree between sections."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from edge_trgl.config.board import BoardConfig
from edge_trgl.config.budget import BudgetConfig
from edge_trgl.config.data import DataConfig
from edge_trgl.config.fields import mistakes_of
from edge_trgl.config.loss import LossConfig
from edge_trgl.config.model import ModelConfig
from edge_trgl.config.train import TrainConfig
from edge_trgl.config.transport import TransportConfig

SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "transport": TransportConfig,
    "loss": LossConfig,
    "budget": BudgetConfig,
    "board": BoardConfig,
}
"""The sections of a configuration by name, in the order in which mistakes are told."""

Document = dict[str, dict[str, object]]
"""A configuration as plain values by section and key, as run.toml has them."""


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

    @property
    def caches(self) -> bool:
        """Whether what enters a module is cached; else batches pass the modules before it in every epoch.

        Unless it is said, not behind frozen modules in parallel training: all epochs would see one augmented copy.
        """
        train = self.train
        if train.cache != "auto":
            return train.cache == "boundary"
        fresh = train.regime == "parallel" and train.views == 1 and self.data.augment
        return not fresh and train.prefix == "frozen"

    def mistakes(self) -> list[str]:
        """A sentence for each value that its field does not take."""
        return [mistake for name in SECTIONS for mistake in mistakes_of(name, getattr(self, name))]

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        within = (self.data, self.model, self.train, self.transport, self.loss, self.budget, self.board)
        return [
            *(conflict for section in within for conflict in section.conflicts()),
            *self._chunk_conflicts(),
            *self._loss_conflicts(),
            *self._shared_head_conflicts(),
            *self._views_conflicts(),
            *self._growing_conflicts(),
            *self._scan_conflicts(),
        ]

    def _chunk_conflicts(self) -> list[str]:
        regime, chunk = self.train.regime, self.budget.chunk
        streams = regime == "parallel" or (regime != "end-to-end" and not self.caches)
        if streams or chunk == "auto":
            return []
        return [f"budget.chunk {chunk} needs parallel training or train.cache none; train.regime is {regime}"]

    def _loss_conflicts(self) -> list[str]:
        conflicts = []
        if self.train.regime == "end-to-end" and self.loss.name != "cross-entropy":
            conflicts.append(f"loss.name {self.loss.name} is a local loss; train.regime is end-to-end")
        if self.loss.compares_samples and "micro-batch" in self.budget.allow:
            conflicts.append(
                f"budget.allow micro-batch excludes loss.name {self.loss.name}, "
                "which compares the samples of a batch"
            )
        if self.train.freeze and not self.loss.reads_labels:
            conflicts.append("loss.name autoencoder trains all blocks as one module, and excludes train.freeze")
        if self.model.blocks is not None and self.model.modules is not None and self.loss.reads_labels:
            conflicts.append("model.blocks leaves the modules as they are, and excludes model.modules")
        return conflicts

    def _shared_head_conflicts(self) -> list[str]:
        """A shared head goes from module to module with every batch."""
        if not self.model.shared_head:
            return []
        regime, chunk, resident = self.train.regime, self.budget.chunk, self.budget.resident
        conflicts = []
        if regime != "parallel":
            conflicts.append(f"model.shared_head needs parallel training; train.regime is {regime}")
        if chunk not in ("auto", "1"):
            conflicts.append(f"model.shared_head needs budget.chunk 1, not {chunk}")
        if resident != "auto":
            conflicts.append(
                f"model.shared_head keeps all modules in memory; budget.resident must be auto, not {resident}"
            )
        return conflicts

    def _views_conflicts(self) -> list[str]:
        """Views are copies of what is cached."""
        train = self.train
        caches = self.caches and (train.regime in ("sequential", "multi-lap") or train.freeze > 0)
        if train.views <= 1 or (caches and self.data.augment):
            return []
        reason = "data.augment is false" if caches else f"train.regime {train.regime} caches nothing"
        reason += "" if caches or self.caches else " with train.cache none"
        return [f"train.views {train.views} asks for augmented copies of what is cached; {reason}"]

    def _growing_conflicts(self) -> list[str]:
        if not self.train.grow:
            return []
        conflicts = []
        if self.data.choose_on == "half-test":
            conflicts.append("train.grow looks at validation images in training, and data.choose_on is half-test")
        if self.model.shared_head:
            conflicts.append("train.grow drops modules, and model.shared_head goes through all of them")
        return conflicts

    def _scan_conflicts(self) -> list[str]:
        if not self.transport.scans:
            return []
        if self.train.regime == "end-to-end":
            return ["transport.tau auto: end-to-end training has no transport term"]
        if self.data.choose_on == "half-test":
            return ["transport.tau auto chooses by validation images, and data.choose_on is half-test"]
        return []

    def document(self) -> Document:
        """The configuration as nested plain values; None is left out, for TOML has no word for it."""
        return {
            section: {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
            for section, values in asdict(self).items()
        }
