"""A message is one line of JSON in the parent's pipe; without a parent there is none."""

from __future__ import annotations

import json
import os

import pytest

from edge_trgl.runtime.processes import messages


@pytest.fixture
def pipe(monkeypatch):
    """The reading end of the pipe that messages go to."""
    reading, writing = os.pipe()
    monkeypatch.setenv(messages.DESCRIPTOR, str(writing))
    yield reading
    os.close(reading)
    os.close(writing)


def test_each_message_is_one_line(pipe):
    messages.send("progress", text="two\nlines", accuracy=0.5)
    messages.send("result", value={"größe": [1, None]})
    first, second = os.read(pipe, 1000).decode().splitlines()
    assert json.loads(first) == {"kind": "progress", "text": "two\nlines", "accuracy": 0.5}
    assert json.loads(second) == {"kind": "result", "value": {"größe": [1, None]}}


def test_a_write_that_is_cut_short_goes_on(pipe, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    messages.send("progress", text="long")
    assert json.loads(os.read(pipe, 1000)) == {"kind": "progress", "text": "long"}


def test_without_a_parent_nothing_happens(pipe, monkeypatch):
    monkeypatch.delenv(messages.DESCRIPTOR)
    messages.send("lost")
    monkeypatch.undo()
    os.set_blocking(pipe, False)
    with pytest.raises(BlockingIOError):
        os.read(pipe, 1)
