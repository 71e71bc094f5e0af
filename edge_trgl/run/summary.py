"""Builds summary.json: a run's scores, memory and storage, next to what was planned."""

from __future__ import annotations

from typing import Any

from edge_trgl.config.sections import RunConfig
from edge_trgl.run import tau_scan
from edge_trgl.run.data_summary import augmentation_of
from edge_trgl.run.depth_gain import depth_text, trained_depth
from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.records import Document, to_json
from edge_trgl.runtime.units import MIB


def summarise(config: RunConfig, facts: RunFacts, parent_mb: float) -> dict[str, Any]:
    """Return the content of summary.json, which runtime/README.md describes.

    `parent_mb`: the peak of the parent process, in MiB.
    """
    result, plan, layout = facts.result, facts.planned.plan, facts.planned.layout
    cgroup_mb, scores, work = facts.cgroup_peak_mb, to_json(result.scores), result.work
    depth, num_modules = trained_depth(config, facts), len(layout.starts)
    gain = depth_text(result.scores, num_modules=num_modules, depth=depth, samples=facts.samples_word)
    # The parent's mark of now, which is an upper bound of its mark while that child ran.
    together_mb = facts.highest_child_mb + parent_mb
    peaks = [phase.peak_mb for phase in facts.phases()] + list(facts.progress.module_peaks.values())
    rebuilt = {} if scores["reconstruction"] is None else {"reconstruction": scores["reconstruction"]}
    return {
        "schema": 1,
        "regime": config.train.regime,
        "modules": num_modules,
        "params": sum(layout.num_params),
        "accuracy": {
            **{name: scores[name] for name in ("last", "chosen", "chosen_depth", "per_depth")},
            "chosen_on": config.data.choose_on,
            "depth": depth,
            "gain": None if rebuilt else gain,
        },
        **rebuilt,
        **_chosen_tau(config, facts),
        "memory": {
            "budget_mb": round(facts.limits.memory_mb, 1),
            "peak_mb": round(max(together_mb, *peaks), 1),
            "planned_peak_mb": round(plan.peak_mb, 1),
            "fixed_mb": round(plan.fixed_mb, 1),
            "method": result.method,
            "cgroup_peak_mb": None if cgroup_mb is None else round(cgroup_mb, 1),
        },
        "storage": storage_use(config, facts),
        "data": data_document(config, facts),
        "time_s": round(work.seconds, 1),
        "images_per_s": round(work.images / max(work.seconds, 1e-9), 1),
        "restarts": facts.starts - 1,
        "lossy": list(plan.lossy),
        "weights_sha256": result.weights_sha256,
    }


def _chosen_tau(config: RunConfig, facts: RunFacts) -> dict[str, Any]:
    """The section `tau`: the chosen value, null for no transport term, and what each of those tried gave."""
    if not config.transport.scans:
        return {}
    return {"tau": {"chosen": tau_scan.best(facts.tau_scores).tau, "tried": to_json(facts.tau_scores)}}


def data_document(config: RunConfig, facts: RunFacts) -> Document | None:
    """Return what is known of the data and what training does to them; None before they were read."""
    summary = facts.data_summary
    return None if summary is None else summary.document(augmentation_of(config.data, summary.shape))


def storage_use(config: RunConfig, facts: RunFacts) -> dict[str, Any]:
    """Return the section `storage` of summary.json, for a planned run: MiB read and written in training so far."""
    work, planned = facts.progress.work, facts.planned
    endurance_tb = config.board.endurance_tb
    wear = None if endurance_tb is None else work.written_mb * MIB / (endurance_tb * 1e12)
    return {
        "read_mb": round(work.read_mb, 1),
        "written_mb": round(work.written_mb, 1),
        "major_faults": work.major_faults,
        "planned_written_mb": round(planned.traffic.written_mb, 1),
        "wear": wear,
        "planned_disk_mb": round(planned.plan.disk_mb, 1),
    }
