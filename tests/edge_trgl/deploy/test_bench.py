"""The counting of a benchmark, with a clock made by hand; what it says it measured."""

from __future__ import annotations

import itertools

import pytest

from edge_trgl.deploy.bench import WARM_UP_RUNS, bench, describe, side_by_side, statistics, timed
from edge_trgl.deploy.network import Network
from edge_trgl.runtime.errors import InputError, UsageError


class Clock:
    """Moves on when a step is made."""

    def __init__(self, *steps):
        self.now = 100.0
        self.steps = itertools.cycle(steps)

    def __call__(self):
        return self.now

    def step(self):
        self.now += next(self.steps)


def test_so_many_runs():
    clock = Clock(1.0, 2.0)
    assert list(timed(clock.step, runs=3, seconds=0.5, clock=clock)) == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(("seconds", "num"), [(0.0, 1), (0.5, 1), (3.0, 2), (3.5, 3), (6.0, 4)])
def test_so_many_seconds(seconds, num):
    clock = Clock(1.0, 2.0)
    assert len(list(timed(clock.step, runs=None, seconds=seconds, clock=clock))) == num


def test_statistics():
    found = statistics([0.001 * number for number in range(1, 101)], batch=4)
    assert found.runs == 100
    assert found.seconds == pytest.approx(5.05)
    assert found.latency_ms.p50 == pytest.approx(50.5)
    assert found.latency_ms.p95 == pytest.approx(95.05)
    assert (found.latency_ms.min, found.latency_ms.max) == pytest.approx((1, 100))
    assert found.samples_per_s == pytest.approx(400 / 5.05)


@pytest.mark.parametrize(("fixed", "asked", "used"), [("n", None, 1), ("n", 5, 5), (3, None, 3), (3, 3, 3)])
def test_what_it_says(tmp_path, tiny, fixed, asked, used):
    path = tiny.classifier(tmp_path / "model.onnx", batch=fixed)
    found = bench(path, batch=asked, runs=4, threads=1)
    assert found.batch == used
    assert found.runs == 4
    assert found.warm_up_runs == WARM_UP_RUNS
    assert found.provider == "cpu"
    assert set(found.passed_over) == {"tensorrt", "cuda"}
    assert found.threads == 1
    assert found.peak_rss_mb > 20
    assert found.latency_ms.min <= found.latency_ms.p50 <= found.latency_ms.p95
    text = describe(found)
    assert f"4 of {used} in" in text
    assert "1 thread\n" in text
    assert "left out" in text


def test_a_batch_that_the_file_does_not_take(tmp_path, tiny):
    with pytest.raises(UsageError, match="batches of 3, not of 2"):
        bench(tiny.classifier(tmp_path / "model.onnx", batch=3), batch=2)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no model file"):
        bench(tmp_path / "model.onnx")


def test_several_files_take_turns(tmp_path, tiny, monkeypatch):
    paths = [tiny.classifier(tmp_path / f"{name}.onnx", batch=3) for name in ("first", "second")]
    order, original = [], Network.run

    def run(network, arrays, outputs):
        order.append((network.path.stem, network.threads, len(arrays["input"])))
        return original(network, arrays, outputs)

    monkeypatch.setattr(Network, "run", run)
    document = side_by_side(paths, runs=4, seconds=1e9)
    assert order == [("first", 1, 3), ("second", 1, 3)] * (WARM_UP_RUNS + 4)
    assert list(document.p50_ms) == ["first.onnx", "second.onnx"]
    assert all(found > 0 for found in document.p50_ms.values())
    assert (document.runs, document.batch, document.threads) == (4, 3, 1)


def test_several_files_take_one_turn_at_least(tmp_path, tiny):
    path = tiny.classifier(tmp_path / "model.onnx")
    assert side_by_side([path], runs=100, seconds=0.0).runs == 1
