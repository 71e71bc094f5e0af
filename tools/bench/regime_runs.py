"""Train runs in a scratch folder and measure each in its own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edge_trgl.config import sources
from edge_trgl.jobs.requests import PREPARE, PrepareRequest
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import EdgeTrglError
from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.planner.plan import Placement
from edge_trgl.runtime.processes.supervisor import ChildCrashedError, library_settings, run_child
from edge_trgl.runtime.records import document_of
from tools.bench.nets import GREEDY, NUM_HELD, ROWS, Net, Row
from tools.common.intervals import median_ratio
from tools.common.processes import CommandError, edge_trgl, output_of, watch
from tools.common.programs import program

AMPLE_MB = 16_000.0
"""A budget that decides nothing; it is lowered to what the machine has."""

TURN_BATCHES = 1

WATCHER_MB = 15.0
"""What this program, which stands beside the row's process and counts, takes beyond the command's parent."""

TRAINER = "product, all in memory"
FAILURES = (CommandError, ChildCrashedError, EdgeTrglError)


class Turn(NamedTuple):
    """What an epoch took: seconds, and CPU seconds of the process."""

    seconds: float
    cpu_seconds: float


class Bench:
    """Makes runs in a scratch folder and measures them, each in a process of its own, on `device`."""

    def __init__(self, scratch: Path, threads: int, device: str = "cpu") -> None:
        self.threads = threads
        self._device = device
        self._scratch = scratch
        self._num_runs = 0

    def row(self, net: Net, name: str, net_name: str) -> dict[str, Any]:
        """The figures of one regime on one net."""
        row = ROWS[name]
        _say(f"{net.title}: {row.title}")
        return {"net": net_name, "row": name, **self.figures(net, row)}

    def growth(self, base: Net, num_modules: int) -> dict[str, Any]:
        """The figures of a K-M net with one of `num_modules` modules in memory."""
        net = replace(base, model={**base.model, "name": f"km-{num_modules}-1"}, num_modules=num_modules)
        _say(f"K-M with {num_modules} modules, one in memory")
        return {"modules": num_modules, **self.figures(net, ROWS["one-module"])}

    def overhead(self, net: Net, num_pairs: int) -> list[dict[str, Any]]:
        """The time of an epoch over that of the bare greedy loop, all taking turns.

        The bare loop runs twice: as PyTorch comes, which the others are compared with, and under the product's
        allocator settings, to tell what those cost.
        """
        net = replace(net, batches=TURN_BATCHES)
        one = replace(ROWS["one-module"], budget={"resident": "1", "chunk": "epoch"})
        contestants = (
            (GREEDY.title, GREEDY, False),
            ("bare greedy loop, allocator of the product", GREEDY, True),
            (TRAINER, ROWS["parallel"], True),
            ("product, one in memory", one, True),
        )
        _say(f"{net.title}: {num_pairs} rounds against the bare greedy loop")
        try:
            rounds = self.race([(net, row, allocator) for _, row, allocator in contestants], num_pairs)
        except FAILURES as error:
            return [{"error": str(error)}]
        return [
            _against(title, [(turns[index].seconds, turns[0].seconds) for turns in rounds])
            for index, (title, _, _) in enumerate(contestants)
            if index > 0
        ]

    def savings(self, net: Net, num_pairs: int) -> dict[str, Any]:
        """The time of an epoch with one module in memory over that with all and nothing saved, taking turns."""
        net = replace(net, batches=TURN_BATCHES)
        one, every = ROWS["one-module"], ROWS["parallel"]
        _say(f"{net.title}: {num_pairs} rounds of one module in memory against all")
        try:
            rounds = self.race([(net, one, True), (net, every, True)], num_pairs)
        except FAILURES as error:
            return {"error": str(error)}
        return _against(one.title, [(turns[0].seconds, turns[1].seconds) for turns in rounds])

    def race(self, contestants: Sequence[tuple[Net, Row, bool]], num_rounds: int) -> list[list[Turn]]:
        """An epoch of each contestant, round by round; a round before these is for warming up.

        Contestants take turns; each is a net, a row, and whether it has the product's allocator settings.
        """
        processes: list[_RowProcess] = []
        try:
            for net, row, allocator in contestants:
                run = self.begin(replace(net, epochs=num_rounds + 1, scored=False), row)
                environment = self._environment(_allocator(net) if allocator else "default")
                processes.append(_RowProcess(run, row, environment, turns=True))
            return [[process.turn() for process in processes] for _ in range(num_rounds + 1)][1:]
        finally:
            for process in processes:
                process.stop()

    def tree(self, net: Net) -> dict[str, Any]:
        """`edge-trgl train` within the net's small budget, its process tree watched from outside."""
        _say(f"{net.title}: edge-trgl train --budget-mb {net.tight_mb:.0f}, watched")
        net = replace(net, batches=net.batches + 1)  # validation images are taken from these
        model = [flag for name, value in net.model.items() for flag in (f"--{name}", str(value))]
        model[0] = "--model"
        command = edge_trgl("train", "--budget-mb", str(net.tight_mb), *model, "--batch-size", str(net.batch_size))
        command += ["--epochs", "1", "--data", str(self._images(net)), "--threads", str(self.threads)]
        command += [
            "--set",
            f"data.limit={net.batches * net.batch_size}",
            "--run",
            str(self._folder()),
            "--json",
        ]
        try:
            watched = watch(command)
        except CommandError as error:
            return {"error": str(error)}
        memory = json.loads(watched.output)["memory"]
        return {"budget_mb": net.tight_mb, "summary_mb": memory["peak_mb"], "outside_mb": watched.peak_mb}

    def figures(self, net: Net, row: Row) -> dict[str, Any]:
        """What a row took and gave, or the error that it ended with."""
        try:
            run = self.begin(net, row)
            figures = _RowProcess(run, row, self._environment(_allocator(net)), turns=False).result()
        except FAILURES as error:
            return {"error": str(error)}
        shutil.rmtree(run.folder)
        num_images = net.batches * net.batch_size * net.epochs
        if not net.scored:
            figures["accuracy"] = None
        return {**figures, "images_per_s": num_images / figures["seconds"]}

    def begin(self, net: Net, row: Row) -> Run:
        """A run that waits for its first step: data prepared and, for the product, planned."""
        resident = {} if row.tight or row.bare else {"resident": str(net.num_modules)}
        whole = row.train.get("regime") == "end-to-end"
        config = sources.resolve(
            {
                "data": {"source": str(self._images(net))},
                "model": {**net.model, **({"modules": 1} if whole else {})},
                "train": {**self._lengths(net), **row.train},
                "transport": {"enabled": row.transport},
                "budget": {"mb": net.tight_mb + WATCHER_MB if row.tight else AMPLE_MB, **resident, **row.budget},
            }
        )
        run = Run.create(self._folder(), config)
        if row.bare:
            _prepare(run)
        else:
            Pipeline(run.folder, _unheard).plan()
        if row.placement is not None:
            _place(run, row.placement)
        return run

    def _lengths(self, net: Net) -> dict[str, int | str]:
        lengths = {"epochs": net.epochs, "batch_size": net.batch_size}
        return {**lengths, "threads": self.threads, "device": self._device}

    def _folder(self) -> Path:
        self._num_runs += 1
        return self._scratch / f"{self._num_runs:03d}"

    def _images(self, net: Net) -> Path:
        """The .npz file with the net's images, made where there is none yet."""
        num_train = net.batches * net.batch_size
        path = self._scratch / f"{net.side}-{num_train}-{net.num_test}.npz"
        if not path.is_file():
            wanted = {"side": net.side, "train": num_train, "val": NUM_HELD, "test": net.num_test}
            document = json.dumps({"file": str(path), "source": _source(net), **wanted})
            output_of(program("common.images", document))
        return path

    def _environment(self, allocator: Allocator) -> dict[str, str]:
        bare = {"OMP_NUM_THREADS": str(self.threads)}
        return {**os.environ, **(bare if allocator == "default" else library_settings(self.threads, allocator))}


class _RowProcess:
    """A running `one_row.py`."""

    def __init__(self, run: Run, row: Row, environment: Mapping[str, str], *, turns: bool) -> None:
        document = json.dumps({"run": str(run.folder), "loop": row.loop, "turns": turns})
        self._errors = (run.folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            program("bench.one_row", document),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        if row.group is not None:
            (row.group / "cgroup.procs").write_text(str(self._process.pid))

    def turn(self) -> Turn:
        """Let it train an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Turn(**self._line()["turn"])

    def result(self) -> dict[str, Any]:
        """The figures at its end."""
        figures = self._line()
        self.stop()
        return figures

    def stop(self) -> None:
        """Let it go: it ends when no more turns can come."""
        self._process.communicate()
        self._errors.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise CommandError(f"one_row.py ended with code {code}\n{self._errors.read()[-2000:]}")
        document: dict[str, Any] = json.loads(line)
        return document


def _allocator(net: Net) -> Allocator:
    """As the plan of the product has it: the tensors of enlarged images, and of wide nets, are large."""
    return "huge" if net.side or net.model.get("width", 0) > 64 else "heap"


def _place(run: Run, placement: Placement) -> None:
    """Lay the run's boundaries there; of those on disk the next batch is read ahead, as a plan with room does."""
    facts = run.facts()
    planned = facts.planned
    layout = replace(planned.plan.layout, placement=placement, prefetch=placement == "disk")
    facts.planned = replace(planned, plan=replace(planned.plan, layout=layout))
    facts.close()


def _against(title: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    median, low, high = median_ratio(pairs)
    return {"row": title, "median": median, "low": low, "high": high, "pairs": len(pairs), "seconds": pairs}


def _source(net: Net) -> str:
    """CIFAR-10 for large images where it is, the sample otherwise."""
    cache = Path(os.environ.get("EDGE_TRGL_DATA", "~/.cache/edge-trgl-data")).expanduser()
    return str(cache / "cifar10") if net.side and (cache / "cifar10").is_dir() else "sample"


def _prepare(run: Run) -> None:
    request = json.dumps(document_of(PrepareRequest()))
    run_child(["-m", "edge_trgl.jobs", PREPARE.name, str(run.folder), request], on_message=_unheard)


def _unheard(message: Mapping[str, Any]) -> None:
    pass


def _say(text: str) -> None:
    print(text, file=sys.stderr)
