"""A network in stages, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def early_exit_text(early: Mapping[str, Any]) -> str:
    """The lines for `early_exit` of export.json."""
    chosen_on = "half of the test images" if early["chosen_on"] == "half-test" else "validation"
    lines = [_stages_text(early), _scores_text(chosen_on, early["validation"])]
    return "\n".join([*lines, _scores_text("test", early["test"])])


def _stages_text(early: Mapping[str, Any]) -> str:
    stages = early["stages"]
    thresholds = ", ".join(f"{stage['threshold']:.4g}" for stage in stages[:-1])
    all_of_them = sum(stage["flops"] for stage in stages) / early["model_flops"]
    return (
        f"{early['folder']}  {len(stages)} stages, left from a probability of {thresholds} on; all of them take "
        f"{all_of_them:.2f} times the FLOPs of model.onnx; over {early['num_images']} images logits differ by "
        f"{early['max_abs_diff']:.1e} at most"
    )


def _scores_text(images: str, scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return f"  {images}: there are no such images, and nothing is known of others than those above"
    return (
        f"  {images}: accuracy {scores['accuracy']:.2%} (last exit {scores['per_exit'][-1]:.2%}) at "
        f"{scores['compute_share']:.1%} of the FLOPs of all stages, over {scores['num_images']} images"
    )
