"""Measure the speed and the memory of a model file on this machine."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_trgl.deploy.network import Network
from edge_trgl.run.export_record import Latencies
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import high_water

WARM_UP_RUNS = 3
MEASURED = (
    "one run of onnxruntime on made-up values that lie in memory; decoding, resizing and softmax are left out"
)


@dataclass(frozen=True, kw_only=True)
class LatencyMs:
    """Latency of a run in milliseconds: median, 95th percentile, minimum and maximum."""

    p50: float
    p95: float
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Latency and throughput of `runs` runs that took `seconds` seconds in all."""

    runs: int
    seconds: float
    latency_ms: LatencyMs
    samples_per_s: float


@dataclass(frozen=True, kw_only=True)
class Benchmark(Throughput):
    """Speed and memory of a model file.

    Args:
        file: the path of the model file.
        measured: a sentence on what is included in the measurement.
        provider: the execution provider that was used.
        passed_over: faster providers that did not work, each with the reason.
        onnxruntime: version of onnxruntime.
        machine: architecture of the processor.
        threads: CPU threads.
        optimized: whether onnxruntime optimised the graph.
        batch: samples per run.
        load_s: seconds to load the file.
        warm_up_runs: unmeasured runs before the measured ones.
        first_run_ms: milliseconds of the first warm-up run.
        peak_rss_mb: peak resident memory of the whole process, MiB.
    """

    file: str
    measured: str
    provider: str
    passed_over: Mapping[str, str]
    onnxruntime: str
    machine: str
    threads: int
    optimized: bool
    batch: int
    load_s: float
    warm_up_runs: int
    first_run_ms: float
    peak_rss_mb: float


def bench(
    path: Path,
    *,
    provider: str = "auto",
    batch: int | None = None,
    runs: int | None = None,
    seconds: float = 5.0,
    threads: int | None = None,
    optimize: bool = False,
) -> Benchmark:
    """Load a file and run it repeatedly on synthetic values.

    Args:
        path: an ONNX file.
        provider: `auto`, `tensorrt`, `cuda` or `cpu`.
        batch: samples per run; None for the file's own batch size, or 1.
        runs: number of measured runs; None for as many as fit in `seconds`, at least one.
        seconds: duration of the measurement if `runs` is None.
        threads: CPU threads; None for one per processor that this process may use.
        optimize: see `Network`.

    Raises:
        InputError: the file cannot be read or run.
        UsageError: the provider does not work here, or the file has another fixed batch size.
    """
    start = time.perf_counter()
    network = Network(path, provider=provider, threads=threads, optimize=optimize)
    load_s = time.perf_counter() - start
    if network.batch is not None and batch not in (None, network.batch):
        raise UsageError(
            f"{path} was exported for batches of {network.batch}, not of {batch}",
            hint=f"Leave --batch out, or give --batch {network.batch}.",
        )
    size = network.batch or batch or 1
    arrays = {name: _made_up((size, *shape)) for name, shape in network.inputs.items()}
    warm_up = list(timed(lambda: network.run(arrays, network.outputs), runs=WARM_UP_RUNS, seconds=0.0))
    times = list(timed(lambda: network.run(arrays, network.outputs), runs=runs, seconds=seconds))
    return Benchmark(
        **vars(statistics(times, size)),
        file=str(path),
        measured=MEASURED,
        provider=network.provider.name,
        passed_over=dict(network.provider.passed_over),
        onnxruntime=network.version,
        machine=platform.machine(),
        threads=network.threads,
        optimized=optimize,
        batch=size,
        load_s=load_s,
        warm_up_runs=len(warm_up),
        first_run_ms=warm_up[0] * 1000,
        peak_rss_mb=high_water.peak_mb(),
    )


def side_by_side(paths: Sequence[Path], *, runs: int, seconds: float) -> Latencies:
    """Run several files alternately, so that other load on the machine affects all of them alike.

    They run on the CPU in one thread, optimised by onnxruntime, with the file's fixed batch size, else one sample.

    Args:
        paths: ONNX files with the same batch size.
        runs: the largest number of runs of each file.
        seconds: no further round begins after this time.

    Raises:
        InputError: a file cannot be read or run.
    """
    networks = [Network(path, provider="cpu", threads=1, optimize=True) for path in paths]
    arrays = [
        {name: _made_up((network.batch or 1, *shape)) for name, shape in network.inputs.items()}
        for network in networks
    ]

    def step(index: int) -> Callable[[], object]:
        return lambda: networks[index].run(arrays[index], networks[index].outputs)

    steps = [step(index) for index in range(len(networks))]
    for run_file in steps * WARM_UP_RUNS:
        run_file()
    times: list[list[float]] = [[] for _ in steps]
    begin = time.perf_counter()
    while len(times[0]) < runs and (not times[0] or time.perf_counter() - begin < seconds):
        for index, run_file in enumerate(steps):
            times[index] += timed(run_file, runs=1, seconds=0.0)
    medians = [float(np.median(seconds_of_runs)) for seconds_of_runs in times]
    return Latencies(
        measured=MEASURED,
        onnxruntime=networks[0].version,
        machine=platform.machine(),
        threads=1,
        batch=networks[0].batch or 1,
        runs=len(times[0]),
        p50_ms={path.name: median * 1000 for path, median in zip(paths, medians, strict=True)},
    )


def timed(
    step: Callable[[], object],
    *,
    runs: int | None,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[float]:
    """Run `step` `runs` times, or for `seconds` if `runs` is None, and yield the seconds that each run took."""
    begin = now = clock()
    done = 0
    while done == 0 or (now - begin < seconds if runs is None else done < runs):
        start = clock()
        step()
        now = clock()
        done += 1
        yield now - start


def statistics(times: Sequence[float], batch: int) -> Throughput:
    """Latency and throughput of runs of `batch` samples, from the seconds that each run took."""
    median, late = (float(value) * 1000 for value in np.percentile(times, [50, 95]))
    return Throughput(
        runs=len(times),
        seconds=sum(times),
        latency_ms=LatencyMs(p50=median, p95=late, min=min(times) * 1000, max=max(times) * 1000),
        samples_per_s=batch * len(times) / sum(times),
    )


def describe(benchmark: Benchmark) -> str:
    """Format the measurements as a short table."""
    latency = benchmark.latency_ms
    threads = f"{benchmark.threads} thread{'' if benchmark.threads == 1 else 's'}"
    by = [benchmark.provider, f"onnxruntime {benchmark.onnxruntime}", benchmark.machine, threads]
    rows = {
        "measured": benchmark.measured,
        "provider": ", ".join([*by, *(["optimized"] if benchmark.optimized else [])]),
        "runs": f"{benchmark.runs} of {benchmark.batch} in {benchmark.seconds:.1f} s, after "
        f"{benchmark.warm_up_runs} to warm up (the first took {benchmark.first_run_ms:.1f} ms)",
        "latency": f"p50 {latency.p50:.2f} ms, p95 {latency.p95:.2f} ms "
        f"(from {latency.min:.2f} to {latency.max:.2f})",
        "throughput": f"{benchmark.samples_per_s:.1f} samples/s",
        "memory": f"{benchmark.peak_rss_mb:.0f} MiB resident at most; loaded in {benchmark.load_s:.2f} s",
    }
    return "\n".join(f"{title:11s} {text}" for title, text in rows.items())


def _made_up(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values from 0 to 250. numpy.random would add 6 MiB to the memory that is being measured."""
    values: NDArray[np.float32] = (np.arange(math.prod(shape)) % 251).astype(np.float32)
    return values.reshape(shape)
