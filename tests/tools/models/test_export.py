"""Every depth of an exported network gives what torch gives."""

from __future__ import annotations

import json

import pytest
from nearness import SMALL


@pytest.mark.tool
def test_export_models_quick(run_tool, tmp_path):
    done = run_tool("models.export", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    (row,) = document["rows"]
    assert len(row["depths"]) == 3
    assert all(0 < depth["largest"] < SMALL * max(1, depth["scale"]) for depth in row["depths"])


@pytest.mark.parametrize("wrong", [{"largest": 2e-4}, {"median": 2e-5}, {"same_class": 0.999}])
def test_a_depth_that_differs_is_missed(tool, wrong):
    depth = {"largest": 1e-4, "median": 1e-5, "same_class": 1.0}
    holds = tool("models.export")._holds
    assert (holds(depth), holds({**depth, **wrong})) == (True, False)


def test_batches_of_all_sizes_cover_the_images_in_order(tool):
    parts = list(tool("models.export")._in_turn(120))
    assert [len(part) for part in parts] == [1, 2, 7, 32, 64, 1, 2, 7, 4]
    assert [number for part in parts for number in part] == list(range(120))
