"""`edge-trgl predict` and `edge-trgl bench` as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

BASE = [sys.executable, "-m", "edge_trgl"]
PEAK = """
import sys
from edge_trgl.cli.command import cli
from edge_trgl.runtime.memory import high_water
try:
    cli(sys.argv[1:], standalone_mode=False)
finally:
    heavy = sorted({"torch", "onnx", "matplotlib", "torchvision"} & set(sys.modules))
    print(high_water.peak_mb(), *heavy, file=sys.stderr)
"""


def run(folder, *arguments):
    return subprocess.run([*BASE, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def photos(tmp_path):
    """Three images and two files that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("1.png", "3.png", "5.jpg")):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "2.png").write_text("no image")
    (folder / "4.jpg").touch()
    return folder


def test_a_line_a_file_and_the_bad_ones_told(tmp_path, tiny, photos):
    tiny.classifier(tmp_path / "model.onnx")
    found = run(tmp_path, "predict", "model.onnx", "photos", "--top", "2")
    assert found.returncode == 4
    lines = found.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["photos/1.png", "photos/3.png", "photos/5.jpg"]
    for line in lines:
        _, first, percent, second, _ = line.split()
        assert {first, second} < set(tiny.NAMES)
        assert percent.endswith("%")
    assert "photos/2.png cannot be read as an image" in found.stderr
    assert "photos/4.jpg is empty" in found.stderr
    assert "2 of 5 could not be classified" in found.stderr
    assert "Traceback" not in found.stderr
    told = found.stderr.splitlines()[0]
    assert told.startswith("provider cpu (tensorrt: not in this build of onnxruntime")

    alone = run(tmp_path, "predict", "model.onnx", "photos/1.png", "photos/5.jpg", "--top", "2")
    assert alone.returncode == 0
    assert alone.stdout.splitlines() == [lines[0], lines[2]]


def test_json_and_csv(tmp_path, tiny, photos):
    tiny.classifier(tmp_path / "model.onnx", names=None)
    found = run(tmp_path, "predict", "model.onnx", "photos", "--json", "--top", "9")
    documents = [json.loads(line) for line in found.stdout.splitlines()]
    assert found.returncode == 4
    assert [document["file"][-5:-4] for document in documents] == ["1", "2", "3", "4", "5"]
    assert ["error" in document for document in documents] == [False, True, False, True, False]
    assert sum(guess["probability"] for guess in documents[0]["top"]) == pytest.approx(1)
    assert sorted(guess["label"] for guess in documents[0]["top"]) == ["0", "1", "2", "3"]
    assert "2.png" not in found.stderr

    rows = list(csv.DictReader(run(tmp_path, "predict", "model.onnx", "photos", "--csv").stdout.splitlines()))
    assert [bool(row["error"]) for row in rows] == [False, True, False, True, False]
    assert rows[0]["label_1"] == documents[0]["top"][0]["label"]
    assert run(tmp_path, "predict", "model.onnx", "photos", "--csv", "--json").returncode == 2


def test_the_folder_of_a_run(tmp_path, tiny, photos):
    (tmp_path / "run").mkdir()
    refused = run(tmp_path, "predict", "run", "photos")
    assert refused.returncode == 2
    assert "edge-trgl export run" in refused.stderr
    tiny.classifier(tmp_path / "run" / "model.onnx")
    assert run(tmp_path, "predict", "run", "photos/1.png").returncode == 0
    assert "samples/s" in run(tmp_path, "bench", "run", "--runs", "2").stdout


def test_windows(tmp_path, tiny):
    windows = np.random.default_rng(0).normal(size=(3, 6, 30)).astype(np.float32)
    np.savez(tmp_path / "w.npz", x=windows, axes="NCL")
    tiny.classifier(tmp_path / "model.onnx", (6, 30))
    found = run(tmp_path, "predict", "model.onnx", "w.npz")
    expected = [tiny.NAMES[index] for index in tiny.logits(windows).argmax(axis=1)]
    assert [line.split()[:2] for line in found.stdout.splitlines()] == [
        [f"w.npz[{index}]", name] for index, name in enumerate(expected)
    ]
    assert found.returncode == 0


def test_values_that_are_not_finite_are_no_answer(tmp_path, tiny, photos):
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Log", ["minus"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["logits"]),
    ]
    shapes = {"input": ["n", 3, 8, 8]}, {"logits": ["n", 3]}
    tiny.save(tmp_path / "model.onnx", nodes, *shapes, {"minus": np.full(3, -1, np.float32)})
    found = run(tmp_path, "predict", "model.onnx", "photos/1.png", "--json")
    assert found.returncode == 4
    assert "not finite" in json.loads(found.stdout)["error"]


@pytest.mark.slow
def test_one_exit_of_several(tmp_path, tiny, photos):
    tiny.classifier(tmp_path / "model.onnx", exits=(4, 6))
    lines = [
        run(tmp_path, "predict", "model.onnx", "photos/1.png", "--json", *flags).stdout
        for flags in ([], ["--exit", "2"], ["--exit", "1"])
    ]
    assert lines[0] == lines[1] != lines[2]
    assert run(tmp_path, "predict", "model.onnx", "photos/1.png", "--exit", "3").returncode == 2


@pytest.mark.slow
def test_leaving_early(tmp_path, tiny, photos):
    tiny.classifier(tmp_path / "model.onnx")
    refused = run(tmp_path, "predict", "model.onnx", "photos", "--exits", "0.9")
    assert refused.returncode == 2
    assert "model.exits" in refused.stderr

    tiny.cascade(tmp_path / "model.exits", thresholds=(1.0, None))
    for model in ("model.onnx", ".", "model.exits"):
        found = run(tmp_path, "predict", model, "photos", "--exits", "0", "--json")
        documents = [json.loads(line) for line in found.stdout.splitlines()]
        assert {document.get("exit") for document in documents if "error" not in document} == {1}
        assert "25.0% of the network's FLOPs on average" in found.stderr
    # The folder alone: with the thresholds of its manifest.
    whole = run(tmp_path, "predict", "model.exits", "photos/1.png", "photos/3.png")
    assert [line.split()[-2:] for line in whole.stdout.splitlines()] == [["exit", "2"]] * 2
    assert "100.0% of the network's FLOPs" in whole.stderr
    assert run(tmp_path, "predict", "model.exits", "photos", "--exit", "1").returncode == 2


def test_a_benchmark(tmp_path, tiny):
    tiny.classifier(tmp_path / "model.onnx")
    found = run(tmp_path, "bench", "model.onnx", "--runs", "5", "--threads", "1", "--batch", "3", "--json")
    document = json.loads(found.stdout)
    assert (document["runs"], document["batch"], document["threads"]) == (5, 3, 1)
    assert run(tmp_path, "bench", "model.onnx", "--runs", "5", "--seconds", "2").returncode == 2


WRONG = {
    "no file": (["predict", "gone.onnx", "photos"], 4, "no model file gone.onnx"),
    "no images": (["predict", "model.onnx"], 2, "FILES"),
    "a file that is no model": (["predict", "photos/2.png", "photos"], 4, "cannot be loaded"),
    "no such image": (["predict", "model.onnx", "gone.png"], 4, "there is no file gone.png"),
    "a provider that is not there": (
        ["predict", "model.onnx", "photos", "--provider", "cuda"],
        2,
        "not in this build",
    ),
    "a provider that is none": (["bench", "model.onnx", "--provider", "npu"], 2, "tensorrt"),
    "a model to measure that is none": (["bench", "photos/2.png"], 4, "cannot be loaded"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_mistakes(tmp_path, tiny, photos, case):
    arguments, code, text = WRONG[case]
    tiny.classifier(tmp_path / "model.onnx")
    found = run(tmp_path, *arguments)
    assert found.returncode == code
    assert text in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_without_onnxruntime(tmp_path, tiny, photos):
    tiny.classifier(tmp_path / "model.onnx")
    code = "import sys\nsys.modules['onnxruntime'] = None\nfrom edge_trgl.cli.app import main\nmain()"
    for arguments in (["predict", "model.onnx", "photos"], ["bench", "model.onnx"]):
        command = [sys.executable, "-c", code, *arguments]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert found.returncode == 2
        assert found.stderr.startswith("edge-trgl: running a model file needs onnxruntime")
        assert "pip install onnxruntime" in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_no_torch_and_120_mib_with_as_many_weights_as_resnet18(tmp_path, tiny, photos):
    path = tiny.as_large_as_resnet18(tmp_path / "model.onnx")
    assert path.stat().st_size > 40 * 2**20
    for arguments in (
        ["predict", "model.onnx", "photos/1.png", "photos/5.jpg", "--threads", "1"],
        ["bench", "model.onnx", "--runs", "2", "--threads", "1"],
    ):
        command = [sys.executable, "-c", PEAK, *arguments]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        peak, *heavy = found.stderr.splitlines()[-1].split()
        assert heavy == []
        assert float(peak) <= 120
