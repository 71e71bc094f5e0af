"""Compare the latency of early exit as a cascade of models and as one model with nested `If` nodes.

    python -m tools.bench.exits RUN [--threads N] [--images N] [--rounds N] [--json FILE|-] [--quick]

RUN was exported with `--exits`. Its stages are put into one graph, each but the first in the `else` branch of the
one before. Images of the validation set are classified one at a time by the cascade, by that graph and by
model.onnx, in turns; figures are milliseconds an image, the median over rounds, and the median of the ratio with
its 95 % interval. A threshold of 1 keeps nearly all images to the end, 0 lets all leave at the first exit.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy import Cascade, Predictor
from edge_trgl.run.folder import Run
from tools.common.intervals import median_ratio
from tools.common.machine import origin
from tools.common.options import command_line

THRESHOLDS = (1.0, 0.6, 0.0)
LOGITS = "logits"


def main() -> None:
    """Measure and print; one line a threshold."""
    parser = command_line("bench.exits", __doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="write the results to this file; - prints them")
    parser.add_argument("--quick", action="store_true", help="a few images and two rounds, to try the tool")
    given = parser.parse_args()
    num_images, rounds = (4, 2) if given.quick else (given.images, given.rounds)
    run = Run.open(given.run)
    images = _images(run, num_images)
    rows = [
        _measured(run, images, rounds, given.threads, threshold=threshold, optimize=optimize)
        for optimize in (False, True)
        for threshold in THRESHOLDS
    ]
    document = {**origin(given.threads), "num_images": num_images, "rounds": rounds, "rows": rows}
    if given.json == "-":
        json.dump(document, sys.stdout, indent=2)
        return
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=2) + "\n")
    for row in rows:
        print(_line(row))


def nested(folder: Path, threshold: float) -> onnx.ModelProto:
    """The stages of a folder `model.exits` as one model that leaves at `threshold`."""
    names = [stage["file"] for stage in json.loads((folder / "manifest.json").read_text())["stages"]]
    stages = [onnx.load(folder / name) for name in names]
    first, weights = stages[0], [weight for stage in stages for weight in stage.graph.initializer]
    limit = helper.make_tensor("limit", onnx.TensorProto.FLOAT, [1], [threshold])
    output = first.graph.output[[value.name for value in first.graph.output].index(LOGITS)]
    graph = helper.make_graph(
        _nodes(stages, 0), "nested", first.graph.input, [_called(output, "logits_0_chosen")], [limit, *weights]
    )
    model = helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    helper.set_model_props(model, {entry.key: entry.value for entry in first.metadata_props})
    return model


def _nodes(stages: list[onnx.ModelProto], place: int) -> list[onnx.NodeProto]:
    """Stage `place` and, inside an `If`, those after it; the last of them gives `logits_{place}_chosen`."""
    own, chosen = f"logits_{place}", f"logits_{place}_chosen"
    nodes = [_renamed(node, own) for node in stages[place].graph.node]
    if place == len(stages) - 1:
        return [*nodes, helper.make_node("Identity", [own], [chosen])]
    sure, largest, leaves = (f"{name}_{place}" for name in ("probabilities", "largest", "leaves"))
    (output,) = (value for value in stages[place].graph.output if value.name == LOGITS)
    then = helper.make_graph(
        [helper.make_node("Identity", [own], [f"{own}_then"])], "leave", [], [_called(output, f"{own}_then")]
    )
    later = f"logits_{place + 1}_chosen"
    go_on = helper.make_graph(_nodes(stages, place + 1), "go on", [], [_called(output, later)])
    return [
        *nodes,
        helper.make_node("Softmax", [own], [sure], axis=1),
        helper.make_node("ReduceMax", [sure], [largest], keepdims=0),
        helper.make_node("Less", [largest, "limit"], [f"{leaves}_not"]),
        helper.make_node("Not", [f"{leaves}_not"], [leaves]),
        helper.make_node("If", [leaves], [chosen], then_branch=then, else_branch=go_on),
    ]


def _renamed(node: onnx.NodeProto, own: str) -> onnx.NodeProto:
    found = onnx.NodeProto()
    found.CopyFrom(node)
    for places in (found.input, found.output):
        places[:] = [own if name == LOGITS else name for name in places]
    return found


def _called(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    found = onnx.ValueInfoProto()
    found.CopyFrom(value)
    found.name = name
    return found


def _images(run: Run, num_images: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    reader = RecordReader(run.data, "val", open_dataset(run.data))
    records = reader.read(np.arange(min(num_images, len(reader))))
    return np.ascontiguousarray(np.moveaxis(records, -1, 1), np.float32)


def _measured(
    run: Run, images: Any, rounds: int, threads: int, *, threshold: float, optimize: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {"threads": threads, "optimize": optimize}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nested.onnx"
        onnx.save(nested(run.exits_folder, threshold), file)
        whole = Predictor(file, "cpu", **options)
    cascade = Cascade(run.exits_folder, "cpu", threshold=threshold, **options)
    plain = Predictor(run.onnx_file, "cpu", **options)
    found = [cascade.predict(image[None]) for image in images]
    for image, expected in zip(images, found, strict=True):
        np.testing.assert_allclose(whole.predict(image[None]).logits, expected.logits, atol=1e-4)
    programs = {"cascade": cascade.predict, "nested": whole.predict, "model": plain.predict}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, predict in programs.items():
            times[name].append(_milliseconds(predict, images))
    return {
        "threshold": threshold,
        "optimize": optimize,
        "compute_share": float(np.mean([one.compute_shares for one in found])),
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
        "cascade_to_nested": median_ratio(list(zip(times["cascade"], times["nested"], strict=True))),
        "cascade_to_model": median_ratio(list(zip(times["cascade"], times["model"], strict=True))),
    }


def _milliseconds(predict: Callable[[Any], Any], images: Any) -> float:
    """Of an image, one at a time."""
    start = time.perf_counter()
    for image in images:
        predict(image[None])
    return (time.perf_counter() - start) / len(images) * 1e3


def _line(row: dict[str, Any]) -> str:
    nested_ratio, model_ratio = (
        f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        for middle, low, high in (row["cascade_to_nested"], row["cascade_to_model"])
    )
    kind = " optimised" if row["optimize"] else ""
    return (
        f"threshold {row['threshold']:.1f}{kind}: {row['compute_share']:.1%} of the FLOPs; cascade "
        f"{row['cascade_ms']:.2f} ms, nested {row['nested_ms']:.2f}, model.onnx {row['model_ms']:.2f}; "
        f"cascade/nested {nested_ratio}, cascade/model.onnx {model_ratio}"
    )


if __name__ == "__main__":
    main()
