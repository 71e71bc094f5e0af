"""The demo's budget follows from what this build of torch takes."""

from __future__ import annotations

import own_process
import pytest


@pytest.mark.slow
def test_it_leaves_room_beside_torch(run_tool, tmp_path):
    printed = run_tool("install.demo_budget", cwd=tmp_path)
    taken = own_process.result_of(
        "-c",
        "from edge_trgl.runtime.memory.high_water import peak_mb\n"
        "from edge_trgl.runtime.processes import light_torch\n"
        "light_torch.install(lambda name: None)\nimport torch\nprint(peak_mb())",
    )
    assert abs(int(printed.stdout) - taken - 95) <= 20
    assert int(printed.stdout) % 10 == 0
