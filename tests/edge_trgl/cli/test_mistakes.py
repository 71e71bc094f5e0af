"""A user's mistakes: what is told of them, and the exit code."""

from __future__ import annotations

import pytest
from preloaded import command

WRONG = {
    "a flag that is not there": (
        ["train", "--budget", "3"],
        2,
        "--budget is not an option; did you mean --budget-mb?",
    ),
    "a setting that is not there": (["train", "--set", "train.epoch=3"], 2, "did you mean train.epochs"),
    "a bound": (["train", "--lr", "-1"], 2, "train.lr must be a finite number above 0, not -1.0"),
    "all mistakes at once": (
        ["train", "--lr", "-1", "--batch-size", "many", "--cache", "disk", "--budget", "3", "--set", "lr"],
        2,
        "edge-trgl: --budget is not an option; did you mean --budget-mb?\n"
        "edge-trgl: --set lr must have the form section.key=value\n"
        "edge-trgl: train.batch_size must be a whole number of at least 1, not 'many'\n"
        "edge-trgl: train.cache must be auto, boundary or none, not 'disk'\n"
        "edge-trgl: train.lr must be a finite number above 0, not -1.0\n",
    ),
    "no such folder": (["train", "--data", "nowhere"], 4, "nowhere"),
    "an empty folder": (["train", "--data", "empty"], 4, "empty"),
    "a file that is no image set": (["train", "--data", "text.npz"], 4, "text.npz"),
    "no such model": (["train", "--model", "resnet10"], 2, "did you mean resnet110"),
    "too many modules": (["train", "--modules", "11"], 2, "1 to 10 modules"),
    "nothing left to train": (
        ["train", "--model", "km-2-1", "--freeze", "2"],
        2,
        "--freeze 2: the net has 2 modules",
    ),
    "a factory that is not there": (["train", "--model", "nothing:here"], 4, "nothing"),
    "chunk where it means nothing": (["train", "--regime", "sequential", "--chunk", "4"], 2, "budget.chunk"),
    "mistakes of every kind": (
        ["train", "--profile", "jetson-nanno", "--recipe", "tabel14", "--lr", "0"],
        2,
        "train.lr must be a finite number above 0, not 0.0\n  Every option and setting: edge-trgl train",
    ),
    "three mistakes in a file": (
        ["train", "--config", "wrong.toml"],
        2,
        "edge-trgl: trian is not known; did you mean train?\n"
        "edge-trgl: model.width must be an even whole number of at least 2, not 3\n"
        "edge-trgl: train.momentum must be a number of at least 0 and below 1, not 1.0\n",
    ),
    "resume of no run": (["resume", "empty"], 2, "is not a run"),
    "resume of nothing": (["resume", "nowhere"], 2, "is not a run"),
    "a run folder with other things in it": (["train", "--run", "."], 2, "neither a run nor empty"),
    "no such config": (["train", "--config", "nowhere.toml"], 4, "nowhere.toml"),
    "no such profile": (["train", "--profile", "toaster"], 2, "toaster"),
    "no such recipe": (["train", "--recipe", "table13,tabel14"], 2, "Did you mean table14"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes(tmp_path, case):
    arguments, code, text = WRONG[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no zip archive")
    (tmp_path / "wrong.toml").write_text("[trian]\nlr = 1\n[train]\nmomentum = 1\n[model]\nwidth = 3\n")
    result = command(tmp_path, *arguments)
    assert result.returncode == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.glob("runs/0*")), "a mistake leaves no run to continue"


def test_a_folder_that_the_user_named_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    assert command(tmp_path, "train", "--data", "empty", "--run", "mine").returncode == 4
    assert (tmp_path / "mine" / "run.toml").is_file()
