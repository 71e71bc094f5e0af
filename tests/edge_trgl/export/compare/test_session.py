"""A written model in onnxruntime, module by module."""

from __future__ import annotations

import numpy as np
import pytest
from nearness import assert_near

from edge_trgl.export.compare.session import Session
from edge_trgl.export.onnx_file import onnx_file


@pytest.mark.parametrize("max_inside", [onnx_file.MAX_INSIDE_BYTES, 0])
def test_modules_one_after_another_give_what_the_file_gives(tmp_path, net, unpublished, small, max_inside):
    model = unpublished(tmp_path, net.modules, net.normalisation, max_inside=max_inside).read()
    x = small.images(3)
    first, second = Session(model, 1, 1), Session(model, 2, 1)
    assert (first.entry, second.entry) == ("input", "boundary_1")
    found = first(x.numpy())
    assert found.keys() == {"boundary_1", "logits_1"}
    found |= second(found["boundary_1"])
    for number, expected in enumerate(net.infer(x), 1):
        assert_near(found[f"logits_{number}"], expected)


def test_it_is_the_file_that_is_run(tmp_path, net, unpublished, small):
    written = unpublished(tmp_path, net.modules, net.normalisation)
    weight = written.read().weights["module1/head.5.bias"]
    x = small.images(3).numpy()
    before = Session(written.read(), 1, 1)(x)["logits_1"]
    with weight.path.open("r+b") as file:
        file.seek(weight.start + 4)
        file.write(np.float32(7).tobytes())
    after = Session(written.read(), 1, 1)(x)["logits_1"]
    assert_near(after[:, 0], before[:, 0])
    assert_near(after[:, 1], before[:, 1] + 7 - net.modules[0][1][5].bias[1].item())
