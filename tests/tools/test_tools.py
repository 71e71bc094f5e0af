"""The tools: their arithmetic, their view of other processes, and that each one works with --quick."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import own_process
import pytest
import torch
from nearness import SMALL

from edge_trgl.config.sources import resolve
from edge_trgl.data import open_dataset
from edge_trgl.data.prepare import prepare
from edge_trgl.engine import from_config
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.folder import Run

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
PROGRAMS = sorted(path.name for path in TOOLS.glob("*.py") if not path.name.startswith("_"))


HELP = """
import contextlib, io, json, runpy, sys

found = {}
for sys.argv in [[path, "--help"] for path in sys.argv[1:]]:
    shown, code = io.StringIO(), None
    with contextlib.redirect_stdout(shown):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
    found[sys.argv[0]] = [code, shown.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def shown():
    """The exit code and the words of every program with --help, by its path; one process for all of them."""
    return own_process.result_of("-c", HELP, *(TOOLS / name for name in PROGRAMS), PYTHONPATH=f"{ROOT}:{TOOLS}")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_says_what_it_shows_and_has_quick_and_json(shown, name):
    code, words = shown[str(TOOLS / name)]
    assert code == 0
    assert "--quick" in words
    assert "--json" in words
    document = (TOOLS / name).read_text().split('"""')[1]
    assert f"python tools/{name}" in document
    assert document.splitlines()[0] in " ".join(words.split())


# ---- intervals


def test_the_interval_of_a_mean_is_students(tool):
    mean, half = tool("_intervals").mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5)


def test_one_value_has_no_interval(tool):
    assert tool("_intervals").mean_interval([0.5]) == (0.5, None)


def test_the_interval_of_a_ratio_surrounds_it_and_narrows_with_less_noise(tool):
    wide, narrow = (
        tool("_intervals").median_ratio([((1.04 + step * noise) * 2.0, 2.0) for step in range(-4, 5)])
        for noise in (0.01, 0.001)
    )
    for median, low, high in (wide, narrow):
        assert median == pytest.approx(1.04)
        assert low < median < high
    assert narrow[2] - narrow[1] < wide[2] - wide[1]


# ---- processes


def test_watching_adds_up_the_processes_that_live_together(tool, seen):
    inner = f"{seen}x = bytearray(40 << 20); wait()"
    alone = tool("_processes").watch([sys.executable, "-c", inner])
    outer = f"{seen}x = bytearray(60 << 20); subprocess.run([sys.executable, '-c', {inner!r}])"
    together = tool("_processes").watch([sys.executable, "-c", outer])
    assert 40 < alone.peak_mb < 80
    assert alone.peak_mb + 60 < together.peak_mb < alone.peak_mb + 60 + 40


def test_a_process_that_came_when_another_had_gone_is_not_added_to_it(tool, monkeypatch):
    processes, alive = tool("_processes"), iter([[1, 2], [1, 2], [1, 2, 3], [1, 3]])
    monkeypatch.setattr(processes, "tree", lambda root: next(alive))
    monkeypatch.setattr(
        processes.process_memory, "usage", lambda status: SimpleNamespace(peak=float(status.parent.name))
    )
    marks = processes.Marks(1)
    marks.sample()
    assert marks.peak_mb == 3
    marks.sample()
    assert marks.peak_mb == 4


def test_watching_keeps_a_peak_that_a_process_wiped_out_itself(tool, seen):
    code = (
        f"{seen}x = bytearray(80 << 20); wait(1); del x\n"
        "open('/proc/self/clear_refs', 'w').write('5'); wait(2); print('done')"
    )
    watched = tool("_processes").watch([sys.executable, "-c", code])
    assert watched.peak_mb > 80
    assert watched.output == "done\n"


def test_a_command_that_fails_is_told_with_what_it_said(tool):
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    for call in (tool("_processes").watch, tool("_processes").output_of):
        with pytest.raises(tool("_processes").CommandError, match="code 1\nno such thing"):
            call(command)


def test_a_job_is_known_by_its_command_line(tool):
    code = "import time; time.sleep(60)"
    job = subprocess.Popen([sys.executable, "-c", code, "edge_trgl.jobs", "plan"])
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        while tool("_processes").job_of(job.pid) is None and job.poll() is None:
            time.sleep(0.01)  # until the child has become python
        assert tool("_processes").job_of(job.pid) == "plan"
        assert tool("_processes").job_of(other.pid) is None
        assert {job.pid, other.pid} <= set(tool("_processes").tree(os.getpid()))
    finally:
        job.kill()
        other.kill()
    tool("_processes").wait_until_gone([job.pid, other.pid])
    assert job.wait() == other.wait() == -signal.SIGKILL


# ---- images and the bare loops


def test_saved_images_have_the_wanted_size_and_numbers(tool, tmp_path):
    path = tmp_path / "images.npz"
    tool("_images").save(str(path), source="sample", side=96, train=40, val=20, test=10)
    saved = np.load(path)
    assert {name: saved[name].shape for name in ("x_train", "x_val", "x_test")} == {
        "x_train": (40, 96, 96, 1),
        "x_val": (20, 96, 96, 1),
        "x_test": (10, 96, 96, 1),
    }
    assert np.bincount(saved["y_train"]).tolist() == [4] * 10
    assert saved["x_train"].dtype == np.uint8


def a_run(folder, **train):
    config = resolve(
        {
            "data": {"limit": 60},
            "model": {"name": "km-3-1", "width": 4},
            "train": {"batch_size": 16, "epochs": 1, "threads": 1, **train},
        }
    )
    run = Run.create(folder, config)
    prepare("sample", run.data, seed=0, limit=60)
    return run, config, open_dataset(run.data)


@pytest.mark.slow
def test_the_bare_greedy_loop_trains_the_same_net_as_the_product(tool, tmp_path):
    bare = tool("_bare")
    run, config, info = a_run(tmp_path / "run")
    chain = from_config.make_chain(config, info)
    parts = bare.build(chain, config)
    shapes = [(4, 14, 14), (8, 7, 7), (8, 7, 7)]
    modules = [LocalModule(chain, k, shapes[k], from_config.step_config(config)) for k in range(3)]
    for k, module in enumerate(modules):
        chain.initialise(k, module.trunk, module.head, config.train.seed)
        module.materialise("cpu")
    before = [weight.detach().clone() for weight in modules[2].trunk.parameters()]

    bare.train(parts, run, "greedy", None)
    shape = from_config.job_shape(config, 1, info.splits["train"].num_images)
    program = from_config.program(config, 1, 1)
    rate = from_config.LearningRate(config, shape, program)
    for visit, batch, images, y in bare._batches(program.visits(shape), bare._feed(run, config, info, "train")):
        x = images
        for module in modules:
            outputs = []
            module.train_step(x, y, lr=rate(visit, batch), seed=0, emit=outputs.append)
            (x,) = outputs
    for part, module in zip(parts, modules, strict=True):
        for ours, theirs in zip(
            [*part.trunk.parameters(), *part.head.parameters()],
            [*module.trunk.parameters(), *module.head.parameters()],
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not any(map(torch.equal, before, modules[2].trunk.parameters()))


def test_checkpointing_changes_memory_and_not_the_weights(tool, tmp_path):
    bare = tool("_bare")
    run, config, info = a_run(tmp_path / "run", regime="end-to-end")
    trained = []
    for loop in ("end-to-end", "checkpointed"):
        parts = bare.build(from_config.make_chain(config, info), config)
        assert len(parts) == 1
        bare.train(parts, run, loop, None)
        trained.append([weight.detach() for weight in parts[0].trunk.parameters()])
    for plain, checkpointed in zip(*trained, strict=True):
        torch.testing.assert_close(plain, checkpointed)


# ---- verdicts


def figures(**sections):
    return {"rows": [], "overhead": [], "savings": [], "growth": [], "tree": [], **sections}


def row(name, tensors_mb):
    return {"net": "resnet110", "row": name, "tensors_mb": tensors_mb}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"rows": [row("one-module", 44.0), row("end-to-end", 1000.0)]}, [True]),
        ({"rows": [row("one-module", 46.0), row("end-to-end", 1000.0)]}, [False]),
        ({"savings": [{"net": "resnet110", "row": "one", "median": 1.24}]}, [True]),
        ({"savings": [{"net": "resnet110", "row": "one", "median": 1.26}]}, [False]),
        ({"savings": [{"net": "quick", "row": "one", "median": 9.0}]}, []),
        ({"rows": [row("one-module", 61.0)]}, []),
        ({"growth": [{"modules": 10, "rss_mb": 300.0}, {"modules": 50, "rss_mb": 314.0}]}, [True]),
        ({"growth": [{"modules": 10, "rss_mb": 300.0}, {"modules": 50, "rss_mb": 316.0}]}, [False]),
        ({"tree": [{"budget_mb": 580, "summary_mb": 570, "outside_mb": 579}]}, [True]),
        ({"tree": [{"budget_mb": 580, "summary_mb": 570, "outside_mb": 581}]}, [False]),
        ({"tree": [{"error": "it ended"}]}, []),
        ({"overhead": [{"net": "resnet110", "row": "product, all in memory", "median": 1.04}]}, [True]),
        ({"overhead": [{"net": "resnet110", "row": "product, all in memory", "median": 1.06}]}, [False]),
        ({"overhead": [{"net": "quick", "row": "product, all in memory", "median": 9.0}]}, []),
        ({"overhead": [{"net": "resnet110", "row": "product, one in memory", "median": 9.0}]}, []),
    ],
)
def test_targets_are_judged_where_there_are_figures(tool, sections, expected):
    targets = tool("bench_regimes").judge(figures(**sections))
    assert [target["ok"] for target in targets] == expected


def test_a_row_that_failed_is_not_ok(tool):
    class Broken:
        threads = 1

        def row(self, net, name, net_name):
            return {"net": net_name, "row": name, "error": "it ended"}

    bench = tool("bench_regimes")
    document = bench.measure(Broken(), {"quick": tool("_nets").TINY}, ["parallel"], 2, quick=True)
    assert document["ok"] is False
    assert "it ended" in bench.table(document)


KILLS = ((2, 0, 3, True), (1, 1, 3, False), (2, 0, 2, False))


@pytest.mark.parametrize(("equal", "different", "kills", "ok"), KILLS)
def test_kills_are_ok_only_if_all_were_dealt_and_all_runs_are_equal(tool, equal, different, kills, ok):
    kill = tool("kill")
    tally = kill.Tally(
        regime="parallel", seconds=1.0, sha256="", worker=1, tree=kills - 1, equal=equal, different=different
    )
    document = kill.judge([tally], 3, 0)
    assert document["ok"] is ok
    assert ("NOT OK" in kill.table(document)) is not ok


# ---- each of them, for real


@pytest.mark.tool
def test_bench_regimes_quick(run_tool, tmp_path):
    done = run_tool("bench_regimes.py", "--quick", "--threads", "1", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert document["ok"]
    names = [row["row"] for row in document["rows"]]
    assert names == ["end-to-end", "checkpointing", "parallel", "one-module", "multi-lap", "sequential"]
    for found in document["rows"]:
        assert 0 < found["tensors_mb"] < found["rss_mb"]
        assert found["images_per_s"] > 0
        assert 0 <= found["accuracy"] <= 1
    by_name = {found["row"]: found for found in document["rows"]}
    assert by_name["sequential"]["written_mb"] > by_name["end-to-end"]["written_mb"]
    (tree,) = document["tree"]
    assert tree["outside_mb"] == pytest.approx(tree["summary_mb"], rel=0.1)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.tool
def test_bench_regimes_takes_turns(run_tool, tmp_path):
    arguments = ("--quick", "--threads", "1", "--rows", "overhead", "savings", "growth", "--json", "-")
    done = run_tool("bench_regimes.py", *arguments, cwd=tmp_path)
    document = json.loads(done.stdout)
    assert len(document["overhead"]) == 3
    for item in (*document["overhead"], *document["savings"]):
        assert item["pairs"] == 2
        assert item["low"] <= item["median"] <= item["high"]
    assert [item["modules"] for item in document["growth"]] == [10, 20]


@pytest.mark.tool
def test_kill_quick(run_tool, tmp_path):
    done = run_tool("kill.py", "--quick", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert document["ok"]
    assert sum(item["kills"] for item in document["regimes"]) == 3
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.tool
def test_bench_export_quick(run_tool, tmp_path):
    done = run_tool("bench_export.py", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    for row in document["rows"]:
        assert row["heaviest_mb"] < 1
        assert 0 < row["check_mb"] < row["export_mb"] <= row["limit_mb"] < 325
        assert row["tree_mb"] == pytest.approx(row["export_mb"], rel=0.1)
        assert row["files"] == ["model.onnx"]
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.tool
def test_export_models_quick(run_tool, tmp_path):
    done = run_tool("export_models.py", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    (row,) = document["rows"]
    assert len(row["depths"]) == 3
    assert all(0 < depth["largest"] < SMALL * max(1, depth["scale"]) for depth in row["depths"])


@pytest.mark.parametrize("wrong", [{"largest": 2e-4}, {"median": 2e-5}, {"same_class": 0.999}])
def test_a_depth_that_differs_is_missed(tool, wrong):
    depth = {"largest": 1e-4, "median": 1e-5, "same_class": 1.0}
    holds = tool("export_models")._holds
    assert (holds(depth), holds({**depth, **wrong})) == (True, False)


def test_batches_of_all_sizes_cover_the_images_in_order(tool):
    parts = list(tool("export_models")._in_turn(120))
    assert [len(part) for part in parts] == [1, 2, 7, 32, 64, 1, 2, 7, 4]
    assert [number for part in parts for number in part] == list(range(120))


def test_a_missed_limit_is_shown(tool):
    names = ("weights_mb", "heaviest_mb", "budget_mb", "export_mb", "check_mb", "tree_mb", "limit_mb")
    row = {**dict.fromkeys(names, 1.0), "net": "n", "files": ["f"], "max_abs_diff": 0.0, "within_limit": True}
    table = tool("bench_export")._table
    assert "MISSED" not in table([{**row, "within_budget": True}])
    assert "MISSED" in table([{**row, "within_budget": False}])
