"""The section `board`: what a profile states about the machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from edge_trgl.config.export_request import TargetName
from edge_trgl.config.fields import POSITIVE_FINITE, setting

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class BoardConfig:
    """What a profile states about the machine; None and () where it states nothing."""

    name: str | None = setting(None, "name of the board", unset=UNKNOWN)
    usable_mb: float | None = setting(
        None, "memory as the kernel shows it, in MiB", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    memory_gbs: float | None = setting(None, "memory bandwidth in GB/s", unset=UNKNOWN, bounds=POSITIVE_FINITE)
    gpu: str | None = setting(None, "name of the GPU, or none", unset=UNKNOWN)
    dtypes: tuple[Literal["fp32", "fp16", "bf16"], ...] = setting(
        (), "number types that are worth using", unset=UNKNOWN
    )
    storage: str | None = setting(None, "kind of the storage", unset=UNKNOWN)
    storage_read_mbs: float | None = setting(
        None, "sequential read speed in MB/s", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    storage_write_mbs: float | None = setting(
        None, "sequential write speed in MB/s", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    storage_random_iops: float | None = setting(
        None, "random reads of 4 KiB per second", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    endurance_tb: float | None = setting(
        None, "TB that may be written over the storage's life", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    images_per_s: float | None = setting(
        None, "speed of the probe's reference module, in images/s", unset=UNKNOWN, bounds=POSITIVE_FINITE
    )
    counters: tuple[str, ...] = setting((), "memory counters that work", unset=UNKNOWN)
    providers: tuple[str, ...] = setting((), "providers of ONNX Runtime", unset=UNKNOWN)
    target: TargetName | None = setting(None, "default target of an export", unset="generic")
    estimates: tuple[str, ...] = setting((), "names of values that nobody measured", unset="none")

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        stated = {item.name for item in fields(self) if getattr(self, item.name) not in (None, ())}
        return [
            f"board.estimates names {name}, which the board does not state"
            for name in self.estimates
            if name not in stated
        ]
