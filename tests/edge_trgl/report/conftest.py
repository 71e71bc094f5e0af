from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edge_trgl.report.document import (
    Balance,
    DepthAccuracy,
    EarlyExit,
    Event,
    ExportedFile,
    IoSample,
    LookPoint,
    LossPoint,
    MemorySample,
    ModuleMemory,
    OtherRun,
    Report,
)


def summary(num_modules, chosen_depth):
    return {
        "schema": 1,
        "regime": "parallel",
        "modules": num_modules,
        "params": 30_460_000,
        "accuracy": {
            "last": 0.916,
            "chosen": 0.9198,
            "chosen_depth": chosen_depth,
            "chosen_on": "validation",
            "per_depth": [],
            "depth": num_modules,
            "gain": f"depth {chosen_depth} of {num_modules} was chosen: 91.0% on validation images",
        },
        "memory": {
            "budget_mb": 340,
            "peak_mb": 331.2,
            "planned_peak_mb": 329.8,
            "fixed_mb": 233.0,
            "method": "RSS of the process tree",
        },
        "storage": {
            "read_mb": 9000.0,
            "written_mb": 30.0,
            "planned_written_mb": 28.0,
            "major_faults": 3,
            "wear": 0.00012,
            "planned_disk_mb": 12.0,
        },
        "time_s": 2700.0,
        "images_per_s": 812.3,
        "restarts": 1,
        "lossy": [],
        "weights_sha256": "3f" * 32,
    }


def memory(num_samples):
    phases = ("prepare", "train", "evaluate", "train", "export")
    return tuple(
        MemorySample(
            time_s=60.0 * i,
            phase=phases[i * len(phases) // num_samples],
            rss_mb=300 + 10 * math.sin(i),
            peak_mb=310.0,
        )
        for i in range(num_samples)
    )


def balance(accuracy, compute_share):
    return Balance(accuracy=accuracy, compute_share=compute_share, exits=(3, 1))


@pytest.fixture
def make_report():
    """A report of a finished run of any size."""

    def make(*, num_modules=10, num_samples=200, num_epochs=5):
        modules = range(num_modules)
        return Report(
            name="sample, parallel",
            summary=summary(num_modules, max(1, num_modules - 1)),
            config={"data": {"spec": "sample"}, "train": {"epochs": num_epochs, "augment": True}},
            memory=memory(num_samples),
            modules=tuple(
                ModuleMemory(
                    module=k,
                    name=f"block {k}",
                    head="conv" if k else None,
                    params=1_180_672,
                    planned_mb=300,
                    measured_mb=290,
                )
                for k in modules
            ),
            losses=tuple(
                LossPoint(module=k, epoch=e, loss=2 / e + 0.1 * k, accuracy=0.8, transport=0.01)
                for k in modules
                for e in range(1, num_epochs + 1)
            ),
            looks=tuple(
                LookPoint(module=k, epoch=e, accuracy=0.9 - 0.5 / (e + 1) - 0.01 * k)
                for k in modules
                for e in range(1, num_epochs + 1, 2)
            ),
            influences={k: 0.0123 for k in modules if k},
            accuracy=tuple(
                DepthAccuracy(depth=k + 1, validation=0.9 - 0.1 / (k + 1), test=0.9 if k == 0 else None)
                for k in modules
            ),
            against=(
                OtherRun(
                    name="runs/0002",
                    config={"data": {"spec": "sample"}, "train": {"epochs": num_epochs, "augment": False}},
                    accuracy=tuple(DepthAccuracy(depth=k + 1, validation=0.8, test=0.7) for k in modules),
                ),
            ),
            early_exit=EarlyExit(
                num_images=600,
                common=tuple(balance(0.7 + 0.02 * k, 0.1 * k) for k in range(1, 11)),
                searched=(balance(0.89, 0.41), balance(0.87, 0.3)),
                chosen=balance(0.89, 0.41),
                test=balance(0.885, 0.42),
            ),
            exported=(
                ExportedFile(
                    name="model.int8.onnx",
                    num_bytes=3 << 20,
                    accuracy=0.9125,
                    top1_agreement=0.9931,
                    latency_ms=1.234,
                    note="percentile",
                ),
                ExportedFile(
                    name="model.fp16.onnx",
                    num_bytes=None,
                    accuracy=None,
                    top1_agreement=None,
                    latency_ms=None,
                    note="it differs",
                ),
            ),
            io=tuple(IoSample(time_s=60.0 * i, read_mb=10.0 * i, written_mb=2.0 * i) for i in range(num_samples)),
            events=(Event(time_s=1400.0, kind="restart", text="the kernel killed the worker"),),
        )

    return make


@pytest.fixture
def unfinished(make_report):
    """A report of a run that has only been planned."""
    report = make_report()
    numbers = {
        **report.summary,
        "accuracy": {
            **dict.fromkeys(("last", "chosen", "chosen_depth", "depth", "gain")),
            "chosen_on": "validation",
            "per_depth": [],
        },
        "memory": {**report.summary["memory"], "peak_mb": None},
        "images_per_s": None,
        "weights_sha256": None,
    }
    empty = dict.fromkeys(
        ("memory", "modules", "losses", "looks", "accuracy", "against", "io", "events", "exported"), ()
    )
    return replace(report, summary=numbers, config={}, influences={}, early_exit=None, **empty)
