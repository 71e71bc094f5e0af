"""Progress of a run on stderr: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import TextIO

from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.processes.supervisor import Message

PLAIN_SECONDS = 5.0

COLUMNS = 80
"""Of a terminal that does not say how wide it is."""

PHASES = {
    "prepare": "reading the data",
    "cut": "cutting the model into blocks",
    "plan": "planning",
    "convert": "copying weights",
    "scan": "training a little, to choose tau",
    "train": "training",
    "evaluate": "evaluating every depth",
    "match": "comparing the pretrained file with the network",
    "count": "counting the costs of each module",
    "probe": "measuring steps",
    "export": "exporting",
    "calibrate": "searching early-exit thresholds",
    "check": "comparing the file with the network",
    "smaller": "writing and checking a smaller file",
    "latency": "measuring the files",
    "report": "writing the report",
}

WITHOUT_LOSS = {
    "forward": "frozen, forward only",
    "ascend": "forward pass",
    "recalibrate": "recalibrating norms",
    "backward": "backward pass",
}
"""What to show for visits that have no loss."""


class Terminal:
    """Shows the messages of jobs. A library for this would cost the run 4 MiB of its budget."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown = 0.0
        self._open_line = False

    def __call__(self, message: Message) -> None:
        """Show one message of a job."""
        if message["kind"] == "phase":
            self.line(PHASES[message["name"]] + " ...")
        elif message["kind"] == "warning":
            self.line(f"warning: {message['text']}")
        elif message["kind"] == "note":
            self.line(message["text"])
        elif message["kind"] == "data":
            self.line(apart(partial(_data_text, message, columns())))
        elif message["kind"] == "progress":
            self._progress(progress_line(message))
        elif message["kind"] == "reading":
            self._progress(reading_line(message))

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._open_line:
            self._stream.write("\r\x1b[K")
            self._open_line = False
        self._stream.write(text + "\n")
        self._stream.flush()

    def _progress(self, text: str) -> None:
        if self._live:
            self._stream.write("\r\x1b[K" + text[: columns() - 1])
            self._stream.flush()
            self._open_line = True
        elif time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._shown = time.monotonic()
            self.line(text)


def columns() -> int:
    """Number of characters in a line of the terminal, as `shutil` finds it, which takes 0.6 MiB."""
    try:
        return int(os.environ.get("COLUMNS", "")) or COLUMNS
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or COLUMNS  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # there is none, or no terminal
        return COLUMNS


def _data_text(message: Message, columns: int) -> str:
    from edge_trgl.cli.data_text import data_text
    from edge_trgl.run.data_summary import Augmentation, DataSummary
    from edge_trgl.runtime.records import read_record

    summary = read_record(DataSummary, message["summary"])
    return data_text(summary, read_record(Augmentation, message["augmentation"]), columns)


def progress_line(message: Message) -> str:
    """Format progress: share done, module, epoch, loss, accuracy, speed, MiB now / peak / budget, time left."""
    lap = f" lap {message['lap'] + 1}" if message["lap"] else ""
    if message["phase"] in WITHOUT_LOSS:
        doing = WITHOUT_LOSS[message["phase"]]
    else:
        doing = f"epoch {message['epoch'] + 1}  loss {message['loss']:.3f}"
        if message["accuracy"] is not None:
            doing += f" acc {message['accuracy']:.1%}"
    return (
        f"{message['done']:4.0%}{lap} module {message['module']} {doing}"
        f"  {message['images_per_s']:.0f} {message['samples']}/s"
        f"  MiB {message['rss_mb']:.0f}/{message['peak_mb']:.0f}/{message['budget_mb']:.0f}"
        f"  {duration(message['left_s'])} left"
    )


def reading_line(message: Message) -> str:
    """Format the progress of reading data: share done, speed, time left; or the number so far, and speed."""
    noun, speed = message["noun"], f"{message['per_s']:.0f} {message['noun']}/s"
    if message["done"] is None:
        return f"looked at {message['count']:,} {noun} so far, {speed}"
    return f"{message['done']:4.0%} {speed}  {duration(message['left_s'])} left"


def duration(seconds: float) -> str:
    """Format seconds: 45s, 12m 05s, 3h 20m."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes == 0:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


def size(mb: float) -> str:
    """Format MiB: 340 KiB, 12 MiB, 3.1 GiB."""
    if 0 < mb < 1:
        return f"{max(1, round(mb * 1024))} KiB"
    return f"{mb:.0f} MiB" if mb < 1024 else f"{mb / 1024:.1f} GiB"
