"""A network in stages, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def early_exit_text(early: Mapping[str, Any]) -> str:
    """The lines for `early_exit` of export.json."""
    return "\n".join([_stages_text(early), _scores_text("validation", early), _scores_text("test", early)])


def _stages_text(early: Mapping[str, Any]) -> str:
    stages = early["stages"]
    thresholds = ", ".join(f"{stage['threshold']:.4g}" for stage in stages[:-1])
    all_of_them = sum(stage["flops"] for stage in stages) / early["model_flops"]
    return (
        f"{early['folder']}  {len(stages)} stages, left from a probability of {thresholds} on; all of them take "
        f"{all_of_them:.2f} times the FLOPs of model.onnx; over {early['num_images']} images logits differ by "
        f"{early['max_abs_diff']:.1e} at most"
    )


def _scores_text(split: str, early: Mapping[str, Any]) -> str:
    scores = early[split]
    if scores is None:
        return f"  {split}: there are no such images, nothing is known of them"
    return (
        f"  {split}: accuracy {scores['accuracy']:.2%} (last exit {scores['per_exit'][-1]:.2%}) at "
        f"{scores['compute_share']:.1%} of the FLOPs of all stages, over {scores['num_images']} images"
    )
