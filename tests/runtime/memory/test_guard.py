"""The guard refuses what passes the limit, in a way that training survives; the check names both numbers."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits

# A limit cannot be taken back, so each case has a process of its own; forked, for importing torch takes long.
CASES = """
import ctypes, json, os, resource
import numpy as np
import torch
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.allocator import trim
from edge_trgl.runtime.memory.counters import usage
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.units import MIB

torch.set_num_threads(1)
layer = torch.nn.Linear(64, 64)

def step():
    layer.zero_grad()
    loss = layer(torch.ones(8, 64)).square().sum()
    loss.backward()
    with torch.no_grad():
        layer.weight -= 0.001 * layer.weight.grad
    return float(loss.detach())

def attempt(mb, ones=torch.ones, dtype=torch.uint8):
    try:
        return len(ones(mb * MIB, dtype=dtype)) == mb * MIB
    except Exception as error:
        return "refused" if guard.refused(error) else repr(error)

def training_goes_on():
    guard.set_guard(Limits(budget_mb=usage().rss + 64))
    answers = [attempt(128), attempt(48), attempt(128), attempt(48)]
    return [answers, [first, *(step() for _ in range(3))]]

def freed():
    held = torch.ones(96 * MIB, dtype=torch.uint8)
    guard.set_guard(Limits(budget_mb=usage().rss + 16))
    before = attempt(80)
    del held
    return [before, attempt(80)]

def renewed():
    ctypes.CDLL(None).mallopt(-3, 32 * MIB)  # tensors of a MiB on the heap
    held = [torch.ones(MIB, dtype=torch.uint8) for _ in range(96)]
    guard.set_guard(Limits(budget_mb=usage().rss + 16))
    del held[:-1]  # the last one keeps the heap as long as it is
    trim()
    before = attempt(100)
    guard.renew_guard()
    return [before, attempt(100), attempt(200)]

def untouched():
    import mmap
    guard.set_guard(Limits(budget_mb=usage().rss + 48))
    reserved = [mmap.mmap(-1, 56 * MIB, flags=mmap.MAP_PRIVATE)]  # as oneDNN does for the code of its kernels
    before = attempt(40)
    guard.renew_guard()
    return [before, attempt(40), attempt(160)]

def never_lower():
    guard.set_guard(Limits(budget_mb=usage().rss + 64))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    held = np.memmap("/proc/self/exe", mode="r")
    held[::4096].sum()  # file pages
    guard.renew_guard()
    return [resource.getrlimit(resource.RLIMIT_DATA) == before, usage().file > 1]

def without_a_guard():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    guard.renew_guard()
    return resource.getrlimit(resource.RLIMIT_DATA) == before

def numpy():
    guard.set_guard(Limits(budget_mb=usage().rss + 64))
    return [attempt(128, np.ones, np.uint8), attempt(48, np.ones, np.uint8)]

def passed_already():
    mapped = int(usage().data * MIB)
    guard.set_guard(Limits(budget_mb=1))
    return [resource.getrlimit(resource.RLIMIT_DATA)[0] >= mapped, attempt(64)]

def limited():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with guard.limited(64):
        inside = [attempt(160), attempt(48)]
    return [*inside, attempt(160), resource.getrlimit(resource.RLIMIT_DATA) == before]

def limited_under_a_guard():
    guard.set_guard(Limits(budget_mb=usage().rss + 16))
    with guard.limited(512):
        return attempt(160)

def lower_limit():
    lower = int((usage().data + 32) * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (lower, lower))
    guard.set_guard(Limits(budget_mb=usage().rss + 512))
    return [resource.getrlimit(resource.RLIMIT_DATA)[0] == lower, attempt(64)]

first = step()
for case in (
    training_goes_on, freed, renewed, untouched, never_lower, without_a_guard, numpy, passed_already, limited,
    limited_under_a_guard, lower_limit,
):
    if os.fork() == 0:
        print(json.dumps([case.__name__, case()]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def answers():
    """What each of `CASES` returned."""
    result = subprocess.run([sys.executable, "-c", CASES], check=True, capture_output=True, text=True)
    return dict(json.loads(line) for line in result.stdout.splitlines())


class TestGuard:
    @pytest.mark.slow
    def test_it_refuses_what_passes_the_limit_and_training_goes_on(self, answers):
        attempts, losses = answers["training_goes_on"]
        assert attempts == ["refused", True, "refused", True]
        assert losses == sorted(losses, reverse=True)
        assert len(set(losses)) == 4

    def test_what_is_freed_can_be_had_again(self, answers):
        assert answers["freed"] == ["refused", True]

    def test_what_the_heap_gave_back_can_be_had_again_once_it_is_renewed(self, answers):
        assert answers["renewed"] == ["refused", True, "refused"]

    def test_what_is_mapped_and_not_touched_does_not_count_once_it_is_renewed(self, answers):
        assert answers["untouched"] == ["refused", True, "refused"]

    def test_renewed_it_is_no_lower(self, answers):
        assert answers["never_lower"] == [True, True]

    def test_there_is_none_to_renew(self, answers):
        assert answers["without_a_guard"] is True

    def test_numpy_is_refused_too(self, answers):
        assert answers["numpy"] == ["refused", True]

    def test_a_limit_that_is_already_passed_leaves_what_is_mapped(self, answers):
        assert answers["passed_already"] == [True, "refused"]

    def test_for_a_while_it_is_narrower(self, answers):
        assert answers["limited"] == ["refused", True, True, True]
        assert answers["limited_under_a_guard"] == "refused"

    def test_the_limit_of_the_system_stands(self, answers):
        assert answers["lower_limit"] == [True, "refused"]


def recorded(folder):
    """The messages of `fixtures/FOLDER`, as torch and its libraries gave them, by name."""
    paths = sorted((Path(__file__).parent / "fixtures" / folder).glob("*.txt"))
    return [pytest.param(path.read_text().removesuffix("\n"), id=path.stem) for path in paths]


class TestRefused:
    @pytest.mark.parametrize("message", recorded("refused"))
    def test_what_allocators_say(self, message):
        assert guard.refused(RuntimeError(message))

    def test_libraries_have_error_classes_of_their_own(self):
        class RuntimeException(Exception):
            """As onnxruntime's, which is no RuntimeError."""

        assert guard.refused(RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"))
        assert not guard.refused(RuntimeException("[ONNXRuntimeError] : 1 : FAIL : no such operation"))

    @pytest.mark.parametrize("message", recorded("not_refused"))
    def test_what_else_goes_wrong_says_something_else(self, message):
        assert not guard.refused(RuntimeError(message))

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ],
    )
    def test_what_they_raise(self, error):
        assert guard.refused(error)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("out of memory"),
            OSError("can't allocate memory"),
            OSError(errno.ENOSPC, "No space left on device"),
        ],
    )
    def test_other_errors_are_not(self, error):
        assert not guard.refused(error)


class TestCheck:
    def test_within_the_budget_nothing_happens(self):
        guard.check(512.0, Limits(budget_mb=512.0), "module 3, epoch 1")

    def test_beyond_it_both_numbers_and_the_place_are_named(self):
        with pytest.raises(OverBudgetError) as caught:
            guard.check(513.0, Limits(budget_mb=512.0), "module 3, epoch 1")
        assert caught.value.message == "the budget of 512 MiB was passed: 513 MiB at module 3, epoch 1"
        assert "--budget-mb" in caught.value.hint
        assert caught.value.exit_code == 6
