"""What the command says of a network in stages."""

from __future__ import annotations

from dataclasses import replace

from edge_trgl.cli.export import early_exit_text
from edge_trgl.run.export_record import EarlyExitRecord, EarlyExitScores, StageRecord, ValidationScores

STAGES = (
    StageRecord(files=(), modules=(1, 1), flops=30, threshold=0.87654),
    StageRecord(files=(), modules=(2, 2), flops=50, threshold=None),
)
EARLY = EarlyExitRecord(
    folder="runs/0001/model.exits",
    stages=STAGES,
    asked="0.87654",
    chosen_on="validation",
    model_flops=64,
    num_images=256,
    max_abs_diff=2e-6,
    median_abs_diff=1e-6,
    top1_agreement=1.0,
    validation=ValidationScores(
        accuracy=0.9,
        compute_share=0.4,
        exits=(400, 200),
        num_images=600,
        per_exit=(0.85, 0.91),
        common=(),
        searched=(),
    ),
    test=EarlyExitScores(
        accuracy=0.88, compute_share=0.4, exits=(700, 300), num_images=1000, per_exit=(0.85, 0.91)
    ),
)


def test_stages_and_both_sets_of_images():
    assert early_exit_text(EARLY, "images").splitlines() == [
        "runs/0001/model.exits  2 stages, left from a probability of 0.8765 on; together they take 1.25 times the "
        "FLOPs of model.onnx; over 256 images logits differ by at most 2.0e-06",
        "  validation images: accuracy 90.00% (last exit 91.00%) at 40.0% of the FLOPs of all stages, over 600 "
        "images",
        "  test: accuracy 88.00% (last exit 91.00%) at 40.0% of the FLOPs of all stages, over 1000 images",
    ]


def test_no_test_images_and_half_of_them():
    assert "test: there are no such images" in early_exit_text(replace(EARLY, test=None), "images")
    half = early_exit_text(replace(EARLY, chosen_on="half-test"), "images")
    assert "half of the test images: accuracy 90.00%" in half and "validation" not in half
