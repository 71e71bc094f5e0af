"""What a person sees: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from edge_trgl.cli import progress
from edge_trgl.cli.progress import PHASES, PLAIN_SECONDS, Terminal, duration, progress_line, reading_line, size
from edge_trgl.jobs.requests import JOBS

PROGRESS = {
    "kind": "progress",
    "phase": "train",
    "done": 0.254,
    "lap": 0,
    "module": 3,
    "epoch": 1,
    "loss": 1.23456,
    "accuracy": 0.5,
    "samples": "images",
    "images_per_s": 812.6,
    "rss_mb": 251.4,
    "peak_mb": 299.6,
    "budget_mb": 340.0,
    "left_s": 725.9,
}
LINE = " 25% module 3 epoch 2  loss 1.235 acc 50.0%  813 images/s  MiB 251/300/340  12m 05s left"
CLEAR = "\r\x1b[K"


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time as the terminal sees it; a test moves it by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def columns(monkeypatch):
    def set_to(number):
        monkeypatch.setattr(progress, "columns", lambda: number)

    set_to(200)
    return set_to


def test_the_line_of_progress():
    assert progress_line(PROGRESS) == LINE
    assert progress_line({**PROGRESS, "samples": "windows"}) == LINE.replace("images", "windows")
    assert progress_line({**PROGRESS, "lap": 2}).startswith(" 25% lap 3 module 3 epoch 2 ")
    assert progress_line({**PROGRESS, "done": 1.0}).startswith("100% module")
    assert progress_line({**PROGRESS, "phase": "forward"}).startswith(" 25% module 3 frozen, forward only  ")


def test_the_line_of_reading(clock):
    reading = {"kind": "reading", "noun": "windows", "count": 9, "done": 0.034, "per_s": 812.6, "left_s": 725.9}
    assert reading_line(reading) == "  3% 813 windows/s  12m 05s left"
    looking = {"kind": "reading", "noun": "files", "count": 12300, "per_s": 812.6, "done": None, "left_s": None}
    assert reading_line(looking) == "looked at 12,300 files so far, 813 files/s"
    stream = io.StringIO()
    show = Terminal(stream)
    show({"kind": "phase", "name": "prepare"})
    show({**reading, "noun": "images"})
    show({"kind": "note", "text": "using the images that were prepared before"})
    expected = (
        "reading the data ...\n  3% 813 images/s  12m 05s left\nusing the images that were prepared before\n"
    )
    assert stream.getvalue() == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (725, "12m 05s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (12000, "3h 20m"),
        (360000, "100h 00m"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_where_there_is_no_terminal(clock):
    stream = io.StringIO()
    show = Terminal(stream)
    show({"kind": "phase", "name": "plan"})
    show({"kind": "warning", "text": "little memory"})
    show(PROGRESS)
    assert stream.getvalue() == f"planning ...\nwarning: little memory\n{LINE}\n"


def test_plain_progress_comes_every_few_seconds(clock):
    stream = io.StringIO()
    show = Terminal(stream)
    for _ in range(3):
        show(PROGRESS)
    clock[0] += PLAIN_SECONDS - 0.1
    show(PROGRESS)
    assert stream.getvalue() == LINE + "\n"
    clock[0] += 0.2
    show({**PROGRESS, "module": 4})
    assert stream.getvalue() == LINE + "\n" + LINE.replace("module 3", "module 4") + "\n"


def test_one_live_line_on_a_terminal(clock, columns):
    stream = FakeTerminal()
    show = Terminal(stream)
    show(PROGRESS)
    show({**PROGRESS, "module": 4})
    assert stream.getvalue() == CLEAR + LINE + CLEAR + LINE.replace("module 3", "module 4")


def test_a_line_that_stays_takes_the_place_of_the_live_one(clock, columns):
    stream = FakeTerminal()
    show = Terminal(stream)
    show.line("first")
    show(PROGRESS)
    show({"kind": "phase", "name": "evaluate"})
    show.line("last")
    assert stream.getvalue() == f"first\n{CLEAR}{LINE}{CLEAR}evaluating every depth ...\nlast\n"


def test_a_live_line_never_wraps(clock, columns):
    stream = FakeTerminal()
    columns(30)
    Terminal(stream)(PROGRESS)
    assert stream.getvalue() == CLEAR + LINE[:29]


def test_other_messages_are_not_for_people(clock):
    stream = io.StringIO()
    Terminal(stream)({"kind": "result", "value": 3})
    assert stream.getvalue() == ""


def test_standard_error_is_the_default(capsys):
    Terminal().line("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_every_job_has_words():
    assert set(PHASES) == JOBS.keys() - {"machine", "survey"}  # these belong to no run


@pytest.mark.parametrize(
    ("mb", "text"),
    [
        (0.0, "0 MiB"),
        (0.0001, "1 KiB"),
        (0.3, "307 KiB"),
        (1.0, "1 MiB"),
        (1023.0, "1023 MiB"),
        (1536.0, "1.5 GiB"),
    ],
)
def test_no_size_reads_as_nothing(mb, text):
    assert size(mb) == text
