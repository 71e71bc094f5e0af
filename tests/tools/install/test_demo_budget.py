"""The demo's budget follows from what this build of torch takes."""

from __future__ import annotations

import own_process
import pytest


@pytest.mark.slow
def test_it_leaves_room_beside_torch(run_tool, tmp_path):
    printed = run_tool("install.demo_budget", cwd=tmp_path)
    taken = own_process.result_of(
        "-c",
        "import torch; from edge_trgl.runtime.memory.high_water import peak_mb; print(peak_mb())",
    )
    assert abs(int(printed.stdout) - taken - 120) <= 20
    assert int(printed.stdout) % 10 == 0
