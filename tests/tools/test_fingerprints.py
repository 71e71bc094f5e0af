"""Fingerprints of short runs: equal where nothing changed, told where something did."""

from __future__ import annotations

import json

import pytest


@pytest.mark.tool
def test_a_run_is_as_before_and_another_differs(run_tool, tmp_path):
    before = tmp_path / "before.json"
    first = run_tool("fingerprints", "--quick", "--json", str(before), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    document = json.loads(before.read_text())
    # Paging changes no weight.
    assert len({run["weights_sha256"] for run in document["runs"].values()}) == 1
    document["runs"]["parallel"]["weights_sha256"] = "0" * 64
    before.write_text(json.dumps(document))
    second = run_tool("fingerprints", "--quick", "--against", str(before), "--json", "-", cwd=tmp_path)
    assert second.returncode == 1
    assert json.loads(second.stdout)["differ"] == ["parallel"]
    assert "as before" in second.stderr
