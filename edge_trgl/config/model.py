"""The section `model`: the network, its modules and its auxiliary classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.fields import AT_LEAST_ONE, POSITIVE_FINITE, Bounds, setting
from edge_trgl.config.head_choice import NAMES, HeadChoice, parse_heads
from edge_trgl.runtime.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network a run trains, how it is divided into modules, and which classifiers train these."""

    name: str = setting(
        "km-10-1",
        "network: a built-in name, or one to import",
        more="km-K-M, km-K-M-encoder, resnet50, resnet101, resnet110, resnet110-heavy, resnet152, swin-tiny, "
        "vgg19, torchvision:NAME, timm:NAME or module:factory",
    )
    width: int = setting(32, "filters of a K-M network", bounds=Bounds(at_least=2, multiple_of=2))
    modules: int | None = setting(
        None, "regroup the blocks into N modules", unset="the network's own", bounds=AT_LEAST_ONE
    )
    blocks: int | None = setting(
        None, "end the network after its first N blocks", unset="all", bounds=AT_LEAST_ONE
    )
    downsample: tuple[int, ...] | None = setting(
        None, "modules of a K-M network that halve the map", more="counted from 0", unset="the paper's"
    )
    head: str | None = setting(
        None,
        "small classifier of each module",
        more=f"{', '.join(NAMES)}; conv,conv,linear: one for each module; auto: the fastest that keeps the "
        "accuracy; auto:pooled,linear: the faster of these",
        unset="the network's own",
        parse=parse_heads,
    )
    shared_head: bool = setting(
        False, "one classifier for all modules", more="all modules then stay in memory, and the chunk is one batch"
    )
    shared_statistics: bool = setting(
        True,
        "share the running statistics of its norms, too",
        more="no: each module has its own, which outputs of other depths do not blur",
    )
    pretrained: str | None = setting(
        None,
        "initial weights: a file or a run's folder",
        more="a safetensors file, a PyTorch state dict, or the folder of a trained run",
        unset="random",
    )
    gain: float | None = setting(
        None, "gain of the orthogonal initialisation", unset="the network's own", bounds=POSITIVE_FINITE
    )
    partition: Literal["depth", "weight"] = setting(
        "depth",
        "what model.modules divides evenly",
        more="depth: the number of blocks; weight: the memory of their steps",
    )

    @property
    def imported(self) -> bool:
        """Whether the network comes from a library or from the user's own code."""
        return ":" in self.name

    def heads(self) -> HeadChoice | None:
        """The heads that are asked for; None for the network's own."""
        return None if self.head is None else parse_heads(self.head)

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        conflicts = []
        if self.partition == "weight" and self.modules is None:
            conflicts.append("model.partition weight needs model.modules")
        if self.shared_head and not self._asks_for_one_head():
            conflicts.append(f"model.shared_head needs one classifier, and model.head asks for {self.head}")
        if not self.shared_statistics and not self.shared_head:
            conflicts.append("model.shared_statistics false needs model.shared_head")
        return conflicts

    def _asks_for_one_head(self) -> bool:
        try:
            heads = self.heads()
        except UsageError:
            return True  # reported as a mistake of model.head
        return heads is None or (not heads.auto and len(set(heads.names)) == 1)
