"""What summary.json says of a run: its scores, its memory and its storage, beside what was planned."""

from __future__ import annotations

from typing import Any

from edge_trgl.config.sections import RunConfig
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.storage.state import RunState
from edge_trgl.runtime.units import MIB


def summarise(config: RunConfig, state: RunState) -> dict[str, Any]:
    """The content of summary.json (described in runtime/README.md)."""
    result, plan, layout = state.meta("result"), state.meta("plan"), state.meta("layout")
    cgroup_mb = state.meta("cgroup_peak_mb")
    scores, work = result["scores"], result["work"]
    # With the mark that this process, their parent, has by now: somewhat above that of an earlier phase.
    together_mb = state.meta("highest_child_mb") + high_water.peak_mb()
    peaks = [phase.peak_mb for phase in state.phases()] + list(state.meta("module_peaks", {}).values())
    return {
        "schema": 1,
        "regime": config.train.regime,
        "modules": len(layout["starts"]),
        "params": sum(layout["num_params"]),
        "accuracy": {
            **{name: scores[name] for name in ("last", "chosen", "chosen_depth", "per_depth")},
            "chosen_on": config.data.choose_on,
        },
        "memory": {
            "budget_mb": round(state.meta("budget_mb"), 1),
            "peak_mb": round(max(together_mb, *peaks), 1),
            "planned_peak_mb": round(plan["peak_mb"], 1),
            "fixed_mb": round(plan["fixed_mb"], 1),
            "method": result["method"],
            "cgroup_peak_mb": None if cgroup_mb is None else round(cgroup_mb, 1),
        },
        "storage": storage_use(config, state),
        "time_s": round(work["seconds"], 1),
        "images_per_s": round(work["images"] / max(work["seconds"], 1e-9), 1),
        "restarts": state.meta("starts", 1) - 1,
        "lossy": plan["lossy"],
        "weights_sha256": result["weights_sha256"],
    }


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
