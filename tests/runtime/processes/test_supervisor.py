"""Real children: what they send, how they end, and the signals that their parent passes on."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_trgl.runtime.errors import ERRORS, OverBudgetError, StoppedError, UsageError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator_settings import allocator_environment
from edge_trgl.runtime.processes import processor
from edge_trgl.runtime.processes.supervisor import SPINS, ChildCrashedError, run_child

HEADER = """
import os, signal, sys
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.processes import messages

def finish(value=None):
    messages.send("result", value=value, peak_mb=high_water.peak_mb())

"""


def run(code, *, on_message=lambda message: None, **options):
    return run_child(["-c", HEADER + code], on_message=on_message, **options)


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def typed():
    """Some input that waits for this process."""
    reading, writing = os.pipe()
    os.write(writing, b"typed")
    os.close(writing)
    before = os.dup(0)
    os.dup2(reading, 0)
    yield
    os.dup2(before, 0)
    os.close(before)
    os.close(reading)


class TestResults:
    def test_result_peak_and_duration_come_back(self):
        outcome = run('held = b"x" * (64 << 20)\ndel held\nfinish({"depth": [1, 2]})')
        assert outcome.result == {"depth": [1, 2]}
        assert 64 < outcome.peak_mb < 128
        assert outcome.seconds > 0

    def test_the_end_of_its_life_counts(self):
        """What unloads libraries may take more than all that was before."""
        code = 'import atexit\natexit.register(lambda: b"x" * (256 << 20))\nfinish()'
        # What a child has from this process, and what it says itself, is less.
        assert run(code).peak_mb > 256 or high_water.peak_mb() > 256

    def test_messages_arrive_in_order_while_the_child_lives(self, tmp_path):
        """The child goes on only when its first message was answered."""
        answer = tmp_path / "answer"
        os.mkfifo(answer)
        heard = []

        def on_message(message):
            heard.append(message)
            if message["kind"] == "question":
                answer.write_text("42")

        code = f"""
messages.send("question", number=1)
messages.send("answer", text=open({str(answer)!r}).read())
finish()
"""
        run(code, on_message=on_message)
        assert [message["kind"] for message in heard] == ["question", "answer", "result"]
        assert heard[1]["text"] == "42"

    def test_many_long_messages_are_no_trouble(self):
        heard = []
        code = 'for n in range(50):\n    messages.send("row", n=n, text="ä" * 9000)\nfinish()'
        run(code, on_message=heard.append)
        assert [message.get("n") for message in heard] == [*range(50), None]
        assert {len(message["text"]) for message in heard[:-1]} == {9000}

    def test_what_it_prints_goes_to_standard_error(self, capfd):
        run('print("printed by a factory")\nfinish()')
        out, err = capfd.readouterr()
        assert out == ""
        assert "printed by a factory" in err

    def test_what_is_typed_is_not_for_it(self, typed):
        assert run("finish(sys.stdin.read())").result == ""

    def test_it_is_out_of_reach_of_the_terminal(self):
        assert run("finish(os.getsid(0) == os.getpid())").result is True

    def test_no_descriptor_is_left_open(self):
        before = descriptors()
        run("finish()")
        with pytest.raises(ChildCrashedError):
            run("sys.exit(1)")
        assert descriptors() == before

    def test_the_handlers_of_signals_are_put_back(self):
        handled = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in handled]
        during = []
        run("finish()", on_message=lambda message: during.extend(map(signal.getsignal, handled)))
        with pytest.raises(ChildCrashedError):
            run("sys.exit(1)")
        assert [signal.getsignal(number) for number in handled] == before
        assert not set(during) & set(before)


class TestFailures:
    @pytest.mark.parametrize("error", ERRORS.values())
    def test_an_error_is_raised_again_as_what_it_was(self, error):
        told = {"message": "the cause", "hint": "the way out", "exit_code": error.exit_code}
        code = f"""
messages.send("error", name={error.__name__!r}, **{told})
sys.exit({error.exit_code})
"""
        with pytest.raises(error) as caught:
            run(code)
        assert type(caught.value) is error
        assert (caught.value.message, caught.value.hint) == ("the cause", "the way out")
        assert caught.value.exit_code == error.exit_code

    def test_a_kill_from_outside_is_taken_for_a_lack_of_memory(self):
        with pytest.raises(OverBudgetError, match="killed from outside") as caught:
            run('messages.send("progress")\nos.kill(os.getpid(), signal.SIGKILL)')
        assert "resume" in caught.value.hint

    def test_a_bug_shows_its_traceback_and_its_code(self, capfd):
        with pytest.raises(ChildCrashedError, match=r"code 1$"):
            run("raise KeyError('a bug')")
        assert "KeyError: 'a bug'" in capfd.readouterr().err

    def test_a_crash_shows_its_signal(self):
        with pytest.raises(ChildCrashedError, match=rf"code -{signal.SIGSEGV:d}$"):
            run("signal.signal(signal.SIGSEGV, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGSEGV)")

    ILLEGAL = "signal.signal(signal.SIGILL, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGILL)"

    def test_a_torch_for_newer_arm_processors_is_no_bug(self, monkeypatch):
        """What torch 2.10 does on a Raspberry Pi 4."""
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        monkeypatch.setattr(processor, "processor", lambda: "Cortex-A72")
        monkeypatch.setattr(processor, "has_large_atomics", lambda: False)
        with pytest.raises(UsageError) as caught:
            run(self.ILLEGAL)
        assert caught.value.message == (
            "the installed torch needs a newer processor than this one (Cortex-A72): from 2.10 on, torch uses "
            "atomic instructions of ARMv8.1, which Cortex-A53, A57 and A72 do not have"
        )
        assert caught.value.hint.endswith('pip install "torch==2.9.1" "torchvision==0.24.1"')
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
    def test_any_other_library_for_newer_processors_is_none_either(self, monkeypatch, machine):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(processor, "processor", lambda: "Old One")
        monkeypatch.setattr(processor, "has_large_atomics", lambda: machine == "aarch64")
        with pytest.raises(UsageError, match=r"an instruction that this processor \(Old One\) does not have"):
            run(self.ILLEGAL)

    def test_half_a_message_is_not_heard(self):
        code = """
os.write(int(os.environ[messages.DESCRIPTOR]), b'{"kind": "resu')
os.kill(os.getpid(), signal.SIGKILL)
"""
        with pytest.raises(OverBudgetError):
            run(code)

    def test_an_end_without_a_result_is_a_crash(self):
        with pytest.raises(ChildCrashedError, match=r"code 0$"):
            run("sys.exit(0)")

    def test_a_listener_that_fails_leaves_no_child(self):
        pids = []

        def fail(message):
            pids.append(message["pid"])
            raise ValueError("no listener")

        with pytest.raises(ValueError, match="no listener"):
            run('messages.send("ready", pid=os.getpid())\nsignal.pause()', on_message=fail)
        assert not Path(f"/proc/{pids[0]}").exists()


class TestEnvironment:
    NAMES = (
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT"),
        *allocator_environment("huge"),
    )

    def environment(self, **options):
        return run(f"finish({{name: os.environ.get(name) for name in {self.NAMES!r}}})", **options).result

    def test_the_allocators_are_set_before_the_child_starts(self):
        for allocator in ("heap", "huge"):
            found, expected = self.environment(allocator=allocator), allocator_environment(allocator)
            assert {name: found[name] for name in expected} == expected
        assert found["OPENBLAS_NUM_THREADS"] == "1"

    def test_threads_are_set_where_they_were_chosen(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        chosen, free = self.environment(threads=3), self.environment()
        assert (chosen["OMP_NUM_THREADS"], chosen["MKL_NUM_THREADS"]) == ("3", "3")
        assert (free["OMP_NUM_THREADS"], free["MKL_NUM_THREADS"]) == ("7", None)

    @pytest.mark.parametrize("chosen", [None, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
    def test_threads_that_wait_spin_shortly_unless_the_user_says_otherwise(self, monkeypatch, chosen):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        if chosen is not None:
            monkeypatch.setenv(chosen, "5")
        expected = {None: SPINS, "GOMP_SPINCOUNT": "5", "OMP_WAIT_POLICY": None}[chosen]
        assert self.environment()["GOMP_SPINCOUNT"] == expected

    def test_this_process_is_left_as_it_is(self):
        before = dict(os.environ)
        self.environment(threads=3)
        assert dict(os.environ) == before


POLITE = """
def stop(number, frame):
    messages.send("error", name="StoppedError", message="stopped after a commit", hint="", exit_code=75)
    sys.exit(75)

signal.signal(signal.SIGTERM, stop)
messages.send("ready")
while True:
    signal.pause()
"""

STUBBORN = """
signal.signal(signal.SIGTERM, lambda number, frame: messages.send("heard"))
messages.send("ready")
while True:
    signal.pause()
"""

UNPREPARED = """
messages.send("ready")
while True:
    signal.pause()
"""

FAILING = """
def stop(number, frame):
    messages.send("error", name="StorageError", message="the disk is full", hint="", exit_code=5)
    sys.exit(5)

signal.signal(signal.SIGTERM, stop)
messages.send("ready")
while True:
    signal.pause()
"""

PARENT = """
import json, sys
from edge_trgl.runtime.errors import EdgeTrglError
from edge_trgl.runtime.processes.supervisor import run_child

def tell(*words):
    print(json.dumps(words), flush=True)

try:
    run_child(["-c", sys.argv[1]], on_message=lambda message: tell(message["kind"]))
except EdgeTrglError as error:
    tell(type(error).__name__, error.message, error.exit_code)
"""


@pytest.fixture
def family():
    """Start a parent, in a process of its own, of a child that runs some code; both end with the test."""
    started = []

    def start(code):
        arguments = [sys.executable, "-c", PARENT, HEADER + code]
        # A session of their own, so that signals reach the parent alone, as they do here by its number.
        parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(parent)
        return parent

    yield start
    for parent in started:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def hear(parent):
    return json.loads(parent.stdout.readline())


class TestSignals:
    @pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
    def test_the_first_asks_the_child_to_stop(self, family, number, exit_code):
        parent = family(POLITE)
        assert hear(parent) == ["ready"]
        parent.send_signal(number)
        assert hear(parent) == ["error"]
        assert hear(parent) == ["StoppedError", "stopped after a commit", exit_code]
        assert parent.wait() == 0

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_the_second_ends_it_at_once(self, family, second):
        parent = family(STUBBORN)
        assert hear(parent) == ["ready"]
        parent.send_signal(signal.SIGTERM)
        assert hear(parent) == ["heard"]
        parent.send_signal(second)
        exit_code = 130 if second == signal.SIGINT else StoppedError.exit_code
        assert hear(parent) == ["StoppedError", "stopped at once", exit_code]

    def test_a_child_that_listens_to_no_signal_stops_at_once(self, family):
        parent = family(UNPREPARED)
        assert hear(parent) == ["ready"]
        parent.send_signal(signal.SIGTERM)
        assert hear(parent) == ["StoppedError", "stopped at once", 75]

    def test_an_error_on_the_way_out_is_told(self, family):
        parent = family(FAILING)
        assert hear(parent) == ["ready"]
        parent.send_signal(signal.SIGTERM)
        assert hear(parent) == ["error"]
        assert hear(parent) == ["StorageError", "the disk is full", 5]


def test_the_supervisor_is_small():
    code = """
import sys
import edge_trgl.runtime.processes.supervisor
print([name for name in ("torch", "numpy") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
