"""The training job: the budget holds to its end."""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest

HUNGRY = Path(own_process.__file__).with_name("hungry_checksum.py")


@pytest.mark.slow
def test_the_checksum_of_the_weights_is_counted_and_held_to_the_budget(plan_run):
    found = own_process.result_of(HUNGRY, plan_run("usual").folder, plan_run("held").folder)
    assert "at the checksum of the weights" in found["refusal"]
    assert found["again"]["weights_sha256"] == found["usual"]["weights_sha256"]
    assert found["again"]["work"]["steps"] == found["usual"]["work"]["steps"]
