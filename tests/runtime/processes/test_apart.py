"""A function called in a forked child: its result, its errors, and nothing of it in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from edge_trgl.runtime.errors import DamagedBoundaryError, StorageError
from edge_trgl.runtime.processes import apart as module
from edge_trgl.runtime.processes.apart import ApartError, apart


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """As if this process had one thread, whatever runs the tests."""
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(module, "TASKS", tmp_path)


@pytest.mark.usefixtures("alone")
class TestApart:
    def test_what_is_imported_and_changed_stays_there(self):
        here = []

        def elsewhere():
            import this  # noqa: F401 - a module that nobody has

            here.append(1)
            return {"pid": os.getpid(), "list": (1, 2)}

        found = apart(elsewhere)
        assert found["pid"] != os.getpid()
        assert found["list"] == [1, 2]
        assert here == []
        assert "this" not in sys.modules

    def test_an_error_of_the_user_comes_back_as_the_nearest_known(self):
        def fail():
            error = DamagedBoundaryError("it is damaged", hint="mend it", boundary="b")
            error.exit_code = 9
            raise error

        with pytest.raises(StorageError, match="it is damaged") as caught:
            apart(fail)
        assert (caught.value.hint, caught.value.exit_code) == ("mend it", 9)

    def test_a_bug_shows_its_traceback(self, capfd):
        def fail():
            raise ZeroDivisionError("by accident")

        with pytest.raises(ApartError):
            apart(fail)
        assert "ZeroDivisionError: by accident" in capfd.readouterr().err

    def test_one_that_is_killed(self):
        with pytest.raises(ApartError):
            apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_beside_other_threads_it_is_called_here():
    """A fork may leave a lock of theirs locked for ever."""
    left = threading.Event()
    thread = threading.Thread(target=left.wait)
    thread.start()
    try:
        assert apart(os.getpid) == os.getpid()
    finally:
        left.set()
        thread.join()


INTERRUPTED = """
import signal, sys, time
from edge_trgl.runtime.processes.apart import apart

def stop(number, frame):
    raise SystemExit(7)

def wait():
    sys.stderr.write("there\\n")
    sys.stderr.flush()
    time.sleep(60)

signal.signal(signal.SIGTERM, stop)
sys.stdout.write("once ")
apart(wait)
"""


def test_a_signal_ends_both_and_buffers_are_written_once():
    parent = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stderr.readline() == "there\n"
    parent.send_signal(signal.SIGTERM)
    # Both have gone when the streams they share are closed.
    assert parent.communicate()[0] == "once "
    assert parent.returncode == 7
