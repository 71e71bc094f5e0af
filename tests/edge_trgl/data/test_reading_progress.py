"""How far reading has come: silent while it is short, then a message every half second."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.data import reading_progress
from edge_trgl.data.prepare import prepare
from edge_trgl.data.reading_progress import EACH_SECONDS, QUIET_SECONDS, ReadingProgress
from edge_trgl.data.sources import load
from edge_trgl.runtime.processes import messages


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reading_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def heard(monkeypatch):
    heard = []
    monkeypatch.setattr(messages, "send", lambda kind, **values: heard.append({"kind": kind, **values}))
    return heard


def test_nothing_is_told_of_what_is_read_at_once(clock, heard):
    observe = ReadingProgress("images", 100).counting(lambda samples: None)
    for _ in range(9):
        clock[0] += QUIET_SECONDS / 10
        observe(np.zeros((10, 1)))
    assert heard == []


def test_the_speed_and_the_time_left(clock, heard):
    seen = []
    observe = ReadingProgress("windows", 400).counting(lambda samples: seen.append(len(samples)))
    clock[0] += QUIET_SECONDS
    observe(np.zeros((100, 1)))
    rate = 100 / QUIET_SECONDS
    left_s = pytest.approx(300 / rate)
    assert heard == [
        {"kind": "reading", "noun": "windows", "count": 100, "per_s": rate, "done": 0.25, "left_s": left_s}
    ]
    clock[0] += EACH_SECONDS / 2
    observe(np.zeros((100, 1)))
    assert len(heard) == 1
    clock[0] += EACH_SECONDS
    observe(np.zeros((200, 1)))
    assert heard[1]["done"] == 1.0
    assert heard[1]["left_s"] == 0
    assert seen == [100, 100, 200]


def test_where_nobody_knows_how_many_there_are(clock, heard):
    progress = ReadingProgress("files")
    clock[0] += QUIET_SECONDS
    progress.add(50)
    assert heard == [
        {
            "kind": "reading",
            "noun": "files",
            "count": 50,
            "per_s": 50 / QUIET_SECONDS,
            "done": None,
            "left_s": None,
        }
    ]


def test_looking_at_photos_and_readings_is_told(tmp_path, sets, heard, monkeypatch):
    monkeypatch.setattr(reading_progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(reading_progress, "EACH_SECONDS", 0.0)
    sets.image_folder(tmp_path / "photos", {"": sets.labelled(8, (4, 4, 3), 2)})
    load(str(tmp_path / "photos"))
    assert [(message["noun"], message["count"]) for message in heard] == [("files", n) for n in range(1, 9)]
    heard.clear()
    rows = "".join(f"{n},{n % 7},{'ab'[n // 300]}\n" for n in range(600))
    (tmp_path / "walk.csv").write_text("time,x,label\n" + rows)
    load(str(tmp_path / "walk.csv"))
    assert {message["noun"] for message in heard} == {"windows"}


@pytest.mark.parametrize(("shape", "noun"), [((8, 8, 3), "images"), ((16, 3), "windows")])
def test_preparing_tells_of_every_sample(tmp_path, sets, heard, monkeypatch, shape, noun):
    monkeypatch.setattr(reading_progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(reading_progress, "EACH_SECONDS", 0.0)
    axes = "NHWC" if len(shape) == 3 else "NLC"
    sets.npz(tmp_path / "set.npz", sets.labelled(30, shape, 3), sets.labelled(6, shape, 3), axes=axes)
    prepare(str(tmp_path / "set.npz"), tmp_path / "data", seed=0)
    told = [message for message in heard if message["done"] is not None]
    assert {message["noun"] for message in told} == {noun}
    assert told[-1]["done"] == 1.0
    assert [message["done"] for message in told] == sorted(message["done"] for message in told)
