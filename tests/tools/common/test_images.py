"""Images that the tools save."""

from __future__ import annotations

import numpy as np


def test_saved_images_have_the_wanted_size_and_numbers(tool, tmp_path):
    path = tmp_path / "images.npz"
    tool("common.images").save(str(path), source="sample", side=96, train=40, val=20, test=10)
    saved = np.load(path)
    assert {name: saved[name].shape for name in ("x_train", "x_val", "x_test")} == {
        "x_train": (40, 96, 96, 1),
        "x_val": (20, 96, 96, 1),
        "x_test": (10, 96, 96, 1),
    }
    assert np.bincount(saved["y_train"]).tolist() == [4] * 10
    assert saved["x_train"].dtype == np.uint8
