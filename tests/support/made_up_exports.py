"""Invented export records, for tests of what reads export.json."""

from __future__ import annotations

from edge_trgl.run.export_record import (
    ChosenThresholds,
    ExportRecord,
    Latencies,
    MethodScore,
    QuantisedFile,
    SmallerFile,
    ValidationScores,
    WrittenModels,
)

WRITTEN = WrittenModels(
    exits=(3,), target="generic", batch=None, data=None, num_images=256, at_a_time=64, stages=()
)
CHOSEN = ChosenThresholds(
    asked="0.9",
    chosen_on="validation",
    thresholds=(0.9,),
    flops=(10, 10),
    model_flops=20,
    validation=ValidationScores(
        accuracy=0.9,
        compute_share=0.8,
        num_images=256,
        per_exit=(0.8, 0.9),
        exits=(100, 156),
        common=(),
        searched=(),
    ),
    test=None,
)
EXPORTED = ExportRecord(
    num_images=256,
    max_abs_diff=1e-6,
    median_abs_diff=1e-7,
    top1_agreement=1.0,
    file="model.onnx",
    files=(),
    num_bytes=4 << 20,
    target="generic",
    opset=17,
    ir=8,
    batch=None,
    depth=3,
    exits=(),
    early_exit=None,
    budget_mb=500.0,
    peak_mb=290.0,
)
FP16 = SmallerFile(
    file="model.fp16.onnx",
    files=(),
    num_bytes=2 << 20,
    accuracy_fp32=0.9,
    accuracy=0.9,
    top1_agreement=1.0,
    max_relative_diff=1e-3,
    exits=(),
)
INT8 = QuantisedFile(
    file="model.int8.onnx",
    files=(),
    num_bytes=1 << 20,
    accuracy_fp32=0.9,
    accuracy=0.89,
    top1_agreement=0.98,
    max_relative_diff=0.1,
    exits=(),
    form="uint8 activations, int8 weights",
    num_calibrated=512,
    method="minmax",
    methods={"minmax": MethodScore(accuracy=0.89, top1_agreement=0.98, loss=0.01)},
)


def latencies(**p50_ms):
    names = {"model.onnx" if form == "fp32" else f"model.{form}.onnx": ms for form, ms in p50_ms.items()}
    return Latencies(
        measured="a run", onnxruntime="1", machine="x86_64", threads=1, batch=1, runs=200, p50_ms=names
    )
