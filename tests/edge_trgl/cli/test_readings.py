"""From a CSV file of readings to predictions about somebody who was never measured before."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from preloaded import command

PAGE = Path(__file__).parents[3] / "edge_trgl" / "data" / "README.md"
HERTZ = {"walking": 2.0, "running": 5.0}


def write_readings(path, people, seconds=40):
    """Two activities of each person, told apart by how fast they swing."""
    generator = np.random.default_rng(len(people))
    lines = ["time,x,y,z,activity,person"]
    for number, person in enumerate(people):
        for activity, hertz in HERTZ.items():
            times = np.arange(seconds * 50) / 50
            # A quarter between the channels: how they stand to each other tells nothing of the activity.
            begin = generator.uniform(0, 1) + np.arange(3) / 4
            pace, strength = 1 + 0.05 * number, 1 + 0.2 * number
            swings = strength * np.sin(2 * np.pi * (hertz * pace * times[:, None] + begin))
            swings += generator.normal(0, 0.3, swings.shape)
            for time, (x, y, z) in zip(times, swings, strict=True):
                lines.append(f"{time:.2f},{x:.4f},{y:.4f},{z:.4f},{activity},{person}")
    path.write_text("\n".join(lines))


@pytest.mark.slow
def test_the_example_of_the_page_learns_two_activities_of_four_people(tmp_path):
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "readings.toml").write_text(toml)
    write_readings(tmp_path / "readings.csv", ["anna", "ben", "carl", "dora"])
    small = (
        "--model",
        "km-3-1",
        "--width",
        "8",
        "--epochs",
        "15",
        "--batch-size",
        "8",
        "--threads",
        "1",
        "--no-probe",
    )
    trained = command(tmp_path, "train", "--data", "readings.csv", *small, "--run", "run", "--export", "--json")
    assert trained.returncode == 0, trained.stderr
    # The test set is one of the four people.
    assert json.loads(trained.stdout.splitlines()[0])["accuracy"]["chosen"] > 0.75

    evaluated = command(tmp_path, "evaluate", "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "windows/s" in report
    for text in (trained.stderr, evaluated.stdout, report):
        assert "images" not in text

    write_readings(tmp_path / "new.csv", ["eve"])
    predicted = command(tmp_path, "predict", "run", "new.csv", "--json")
    assert predicted.returncode == 0, predicted.stderr
    found = [json.loads(line)["top"][0]["label"] for line in predicted.stdout.splitlines()]
    half = len(found) // 2
    right = [name == ("walking" if window < half else "running") for window, name in enumerate(found)]
    assert np.mean(right) > 0.75
