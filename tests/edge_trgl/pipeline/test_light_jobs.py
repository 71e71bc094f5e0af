"""Whole runs in processes that load torch light, as users' runs do, against ones that load all of it."""

import json
import subprocess
import sys

import pytest

COMMON = (
    *("--model", "km-2-2", "--width", "8", "--epochs", "1", "--batch-size", "16", "--threads", "1", "--no-probe"),
    *("--budget-mb", "2000", "--set", "data.limit=96", "--set", "data.validation=0.2"),
)


def trained(folder, *options):
    command = [sys.executable, "-m", "edge_trgl", "train", *COMMON, *options, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--regime", "parallel", "--resident", "1"),
        ("--regime", "sequential", "--loss", "infopro", "--set", "train.optimizer=adamw"),
        ("--regime", "end-to-end", "--resident", "1", "--precision", "bf16"),
    ],
    ids=["parallel", "sequential", "end-to-end"],
)
def test_the_same_weights_in_less_memory(tmp_path, options):
    light = trained(tmp_path, *options)
    whole = trained(tmp_path, *options, "--without", "diet,file-pages")
    assert light["weights_sha256"] == whole["weights_sha256"]
    assert light["memory"]["peak_mb"] < whole["memory"]["peak_mb"]
