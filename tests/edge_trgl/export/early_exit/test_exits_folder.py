"""Stages change all at once: whatever is interrupted, the manifest names files that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_trgl.deploy.manifest import Manifest, Stage
from edge_trgl.export.early_exit.exits_folder import free_paths, publish, spans_of
from edge_trgl.export.onnx_file.onnx_file import ModelFiles, new_of
from edge_trgl.runtime.storage import files


def test_spans():
    assert spans_of((3, 6, 10)) == [(1, 3), (4, 6), (7, 10)]
    assert spans_of((2, 3)) == [(1, 2), (3, 3)]


def written(folder, count, content):
    """Stages that are yet to be published."""
    stages = [ModelFiles(model=path, data=None) for path in free_paths(folder, count)]
    for stage in stages:
        new_of(stage.model).write_bytes(content)
    return stages


def manifest_of(stages):
    *early, last = (Stage(file=stage.model.name, flops=1, threshold=0.5) for stage in stages)
    return Manifest(class_names=(), stages=(*early, replace(last, threshold=None)))


def put(folder, count, content):
    stages = written(folder, count, content)
    publish(stages, folder, manifest_of(stages))


def content(folder):
    """What the stages that the manifest names hold."""
    return [(folder / stage.file).read_bytes() for stage in Manifest.read(folder).stages]


def test_nothing_of_an_older_export_is_left(tmp_path):
    put(tmp_path, 3, b"old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"] + [
        f"stage-{number}.onnx" for number in (1, 2, 3)
    ]
    for count, text in ((2, b"new"), (4, b"newer")):
        put(tmp_path, count, text)
        assert content(tmp_path) == [text] * count
        assert len(list(tmp_path.iterdir())) == count + 1


def test_weights_in_files_of_their_own_stay(tmp_path):
    (path,) = free_paths(tmp_path, 1)
    data = path.with_name(path.name + ".data")
    for file in (path, data):
        new_of(file).write_bytes(b"x")
    stages = [ModelFiles(model=path, data=data)]
    publish(stages, tmp_path, manifest_of(stages))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "manifest.json", path, data]


def test_whatever_operation_fails_leaves_the_old_stages_or_the_new(tmp_path, monkeypatch):
    put(tmp_path, 2, b"old")
    seen = set()
    for stop in range(100):
        stages = written(tmp_path, 2, b"new")
        with monkeypatch.context() as patch:
            count_down(patch, stop)
            try:
                publish(stages, tmp_path, manifest_of(stages))
            except InterruptedError:
                seen.add(content(tmp_path)[0])
                assert content(tmp_path) in ([b"old"] * 2, [b"new"] * 2)
                continue
        break
    assert content(tmp_path) == [b"new"] * 2
    assert len(list(tmp_path.iterdir())) == 3
    assert seen == {b"old", b"new"}


def count_down(patch, stop):
    """Let the operation number `stop` that changes the folder fail."""
    left = iter(range(stop))
    for name in ("rename", "remove"):
        real = getattr(files, name)

        def counted(*arguments, real=real, **options):
            if next(left, None) is None:
                raise InterruptedError
            real(*arguments, **options)

        patch.setattr(files, name, counted)


@pytest.mark.parametrize("present", ["stage-2.onnx", "stage-1.onnx.rejected"])
def test_a_name_in_use_is_not_taken(tmp_path, present):
    (tmp_path / present).write_bytes(b"x")
    names = [path.name for path in free_paths(tmp_path, 2)]
    assert (names == ["stage-1.onnx", "stage-2.onnx"]) == (present == "stage-1.onnx.rejected")
    assert present not in names
