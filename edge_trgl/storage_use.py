"""What a run moves to and from its storage, beside what was planned."""

from __future__ import annotations

from typing import Any

from edge_trgl.config import RunConfig
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.state import RunState


def storage_use(config: RunConfig, state: RunState) -> dict[str, Any]:
    """The section `storage` of summary.json, of a planned run; MiB of training so far."""
    work, traffic = state.meta("work") or {"read_mb": 0.0, "written_mb": 0.0}, state.meta("traffic")
    endurance_tb = config.board.endurance_tb
    wear = None if endurance_tb is None else work["written_mb"] * MIB / (endurance_tb * 1e12)
    return {
        "read_mb": round(work["read_mb"], 1),
        "written_mb": round(work["written_mb"], 1),
        "planned_written_mb": round(traffic["written_mb"], 1),
        "wear": wear,
        "planned_disk_mb": round(state.meta("plan")["disk_mb"], 1),
    }
