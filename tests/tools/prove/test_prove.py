"""The proof: its verdicts, its book, its look at processes, its nets; and a small one for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from left_runs import left_runs

from edge_trgl.runtime.memory import cgroup

ROOT = Path(__file__).parents[3]


@pytest.fixture
def book(tool, tmp_path):
    return tool("common.book").Book(tmp_path / "proof.json", {"threads": 1})


# ---- the book


def test_a_book_is_gone_on_with_under_the_same_settings_alone(tool, book, tmp_path):
    book.put("rows", "mlp", {"kept": True})
    reopened, other = (tool("common.book").Book(tmp_path / "proof.json", {"threads": n}) for n in (1, 2))
    assert reopened.find("rows", "mlp") == {"kept": True}
    assert reopened.find("minimum", "mlp") is None
    assert other.find("rows", "mlp") is None


def test_what_failed_is_in_the_document_and_measured_again(book):
    book.put("rows", "mlp", {"error": "it ended"})
    assert book.find("rows", "mlp") is None
    assert book.items("rows") == [{"error": "it ended"}]
    assert book.document({"ok": False})["sections"] == {"rows": {"mlp": {"error": "it ended"}}}


def test_a_row_in_the_book_is_not_run_again(tool, book, tmp_path):
    book.put("rows", "mlp, parallel, minimum", {"kept": True})
    proof = tool("prove.proof").Proof(book, tmp_path, 1, grouped=False)
    proof.train = None
    assert proof.row("mlp", "parallel", "minimum") == {"kept": True}


def test_a_run_that_never_began_has_no_phases(tool, tmp_path):
    assert tool("prove.proof").phases(tmp_path / "none") == {}
    assert not (tmp_path / "none").exists()


# ---- verdicts


def row(planned_mb=300.0, instant_mb=300.0, measured_mb=300.0, **more):
    return {
        "net": "mlp",
        "regime": "parallel",
        "level": "minimum",
        "budget_mb": 310,
        "planned_mb": planned_mb,
        "probed": True,
        "layout": {"resident": 1},
        "instant_mb": instant_mb,
        "instant_layout": {"resident": 1},
        "phases_mb": {"train": measured_mb - 1, "costs": measured_mb - 5},
        "summary_mb": measured_mb - 1,
        "outside_mb": measured_mb,
        "cgroup_mb": 280.0,
        "kills": 0,
        "restarts": 0,
        "lossy": [],
        "kept": True,
        **more,
    }


def missed(tool, book):
    """The names of the targets that are not met; there are targets."""
    targets = tool("prove.judge").judge(book)
    assert targets
    return [target["name"] for target in targets if not target["ok"]]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row()], []),
        ([row(planned_mb=308.9)], []),
        ([row(planned_mb=309.1)], ["probed plan against measured, 1 rows: 95th percentile of the error"]),
        ([row(planned_mb=294.1)], []),
        ([row(planned_mb=293.9)], ["probed plan against measured, 1 rows: most below"]),
        ([row(planned_mb=309.1), *[row()] * 19], []),
        (
            [row(planned_mb=309.1)] * 2 + [row()] * 18,
            ["probed plan against measured, 20 rows: 95th percentile of the error"],
        ),
        ([row(planned_mb=309.1, probed=False)], []),
        ([row(instant_mb=329.9)], []),
        ([row(instant_mb=330.1)], ["instant plan against measured, 1 rows: 95th percentile of the error"]),
        ([row(instant_mb=293.9)], ["instant plan against measured, 1 rows: most below"]),
        ([row(instant_mb=330.1, instant_layout={"resident": 2})], []),
        ([row(lossy=["micro-batch"])], ["rows with a step that is not exact"]),
        ([row(), row(kept=False)], ["rows that finished within their budget, none killed"]),
        ([row(), {"kept": False, "error": "it ended"}], ["rows that finished within their budget, none killed"]),
    ],
)
def test_rows_are_judged(tool, book, rows, expected):
    for number, item in enumerate(rows):
        book.put("rows", str(number), item)
    assert missed(tool, book) == expected


MINIMUM = {
    "net": "mlp",
    "regime": "parallel",
    "minimum_mb": 300.0,
    "measured_mb": 295.0,
    "refused": True,
    "forced_mb": 277,
    "forced_peak_mb": 294.0,
    "forced_code": 6,
}
STATE = {
    "budget_mb": 700.0,
    "state_mb": 2894.0,
    "killed": [45, 140],
    "peaks_mb": {"train": 690.0, "resume": 695.0, "evaluate": 500.0},
    "kernel_kills": 0,
    "same_weights": True,
}
BALLOON = {
    "budget_mb": 400.0,
    "room_mb": 440.0,
    "kills": 1,
    "restarts": 1,
    "same_weights": True,
    "lossy": [],
    "outside_mb": 390.0,
}
DONE, FINISHED = "a net larger than its budget: killed, resumed and evaluated", "killed by the kernel, the run"


@pytest.mark.parametrize(
    ("section", "item", "expected"),
    [
        ("minimum", MINIMUM, None),
        ("minimum", {**MINIMUM, "refused": False}, "mlp, parallel: a step below"),
        ("minimum", {**MINIMUM, "measured_mb": 277.0}, "mlp, parallel: smallest budget"),
        ("minimum", {**MINIMUM, "forced_peak_mb": 276.0}, "mlp, parallel: forced"),
        ("minimum", {"net": "mlp", "regime": "parallel", "error": "it ended"}, "mlp, parallel: a step below"),
        ("state", STATE, None),
        ("state", {**STATE, "state_mb": 2799.0}, "its weights and momentum"),
        ("state", {**STATE, "peaks_mb": {"train": 690.0, "evaluate": 701.0}}, "its peak"),
        ("state", {**STATE, "kernel_kills": 1}, "its processes killed"),
        ("state", {**STATE, "killed": [45]}, DONE),
        ("state", {**STATE, "same_weights": False}, DONE),
        ("state", {"error": "it ended"}, DONE),
        ("balloon", BALLOON, None),
        ("balloon", {**BALLOON, "kills": 0}, FINISHED),
        ("balloon", {**BALLOON, "restarts": 0}, FINISHED),
        ("balloon", {"error": "it ended"}, FINISHED),
        ("balloon", {**BALLOON, "same_weights": False}, "its weights are those"),
        ("balloon", {**BALLOON, "lossy": ["micro-batch"]}, "its weights are those"),
        ("balloon", {**BALLOON, "outside_mb": 401.0}, "its peak"),
    ],
)
def test_the_other_sections_are_judged(tool, book, section, item, expected):
    book.put(section, "it", item)
    names = missed(tool, book)
    assert len(names) == (expected is not None)
    assert all(name.startswith(expected) for name in names)


@pytest.mark.parametrize(("most_mb", "expected"), [(308.9, 0), (309.1, 1)])
def test_depth_is_judged_from_the_fewest_to_the_most_modules(tool, book, most_mb, expected):
    for modules, peak_mb in ((10, 300.0), (50, 400.0), (100, most_mb)):
        book.put("depth", str(modules), {"modules": modules, "outside_mb": peak_mb, "summary_mb": 1.0})
    assert len(missed(tool, book)) == expected
    book.put("depth", "200", {"modules": 200, "error": "it ended"})
    assert "depths that were trained" in missed(tool, book)


def test_the_table_shows_every_verdict(tool, book):
    book.put("rows", "a", row())
    book.put("rows", "b", row(kept=False, instant_layout={"resident": 2}))
    book.put("rows", "c", row(kept=False, kills=2))
    book.put("rows", "d", {"net": "mlp", "regime": "parallel", "level": "generous", "error": "it ended"})
    for section, item in (("minimum", MINIMUM), ("state", STATE), ("balloon", BALLOON)):
        book.put(section, "it", item)
    book.put("depth", "10", {"modules": 10, "outside_mb": 300.0, "summary_mb": 1.0})
    targets = tool("prove.judge").judge(book)
    text = tool("prove.table").table(book.document({"no_cgroup": "not writable", "targets": targets}))
    verdicts = [line.split("  ")[-1].strip() for line in text.splitlines() if line.startswith("mlp")]
    assert verdicts == ["kept", "PASSED, highest in train", "KILLED", "it ended"]
    assert "300.0~" in text
    assert "No memory cgroup: not writable" in text
    assert "MISSED rows that finished within their budget, none killed: 1, at least 4" in text
    for start in (
        "minimum   mlp",
        "state     2894 MiB",
        "balloon   budget 400",
        "depth      10 modules",
        "met    ",
    ):
        assert f"\n{start}" in text


# ---- processes


HERE = dict(os.environ)


def hold(size):
    return [sys.executable, "-c", f"x = b'1' * ({size} << 20)"]


def test_a_watched_command_gives_its_code_its_words_and_its_peak(tool, seen):
    watch = tool("prove.watch").watch
    small, large = (
        watch([sys.executable, "-c", f"{seen}x = b'1' * ({size} << 20); wait()"], environment=HERE, limit_mb=None)
        for size in (0, 60)
    )
    assert 60 < large.peak_mb - small.peak_mb + 2 < 64
    assert (large.cgroup_mb, large.kills) == (None, None)
    code = "import sys; print('[1]'); sys.exit('no such thing')"
    failed = watch([sys.executable, "-c", code], environment=HERE, limit_mb=None)
    assert (failed.code, failed.output) == (1, "[1]\n")
    with pytest.raises(tool("common.processes").CommandError, match="code 1\nno such thing"):
        failed.document()
    assert watch([sys.executable, "-c", "print('[1]')"], environment=HERE, limit_mb=None).document() == [1]


def test_a_hook_is_told_the_processes_that_are_alive(tool):
    seen = []
    tool("prove.watch").watch(
        hold(0), environment=HERE, limit_mb=None, hook=lambda alive, group: seen.append((len(alive), group))
    )
    assert (1, None) in seen


def needs_cgroup(tool):
    reason = tool("prove.watch").why_no_cgroup()
    if reason:
        pytest.skip(f"no memory cgroup here: {reason}")


def test_in_a_cgroup_the_kernel_holds_the_limit(tool):
    needs_cgroup(tool)
    watch = tool("prove.watch").watch
    within = watch(hold(20), environment=HERE, limit_mb=60)
    assert (within.code, within.kills) == (0, 0)
    assert 20 < within.cgroup_mb <= 60
    beyond = watch(hold(80), environment=HERE, limit_mb=60)
    assert beyond.code < 0
    assert beyond.kills > 0


def test_the_balloon_makes_the_kernel_kill_its_neighbour_and_leaves(tool):
    needs_cgroup(tool)
    balloons = []

    def inflate(alive, group):
        if not balloons and len(alive) == 2:
            Path(f"/proc/{alive[1]}/oom_score_adj").write_text("1000")
            command = [sys.executable, "-m", "tools.prove.balloon", str(group.path)]
            balloons.append(subprocess.Popen(command, preexec_fn=partial(cgroup.enter, group.path)))

    worker = "import time; x = b'1' * (30 << 20); time.sleep(20)"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {worker!r}]); time.sleep(1)"
    done = tool("prove.watch").watch([sys.executable, "-c", parent], environment=HERE, limit_mb=80, hook=inflate)
    assert (done.code, done.kills) == (0, 1)
    assert balloons[0].wait() == 0


def test_the_killer_takes_the_worker_first_and_then_all(tool, monkeypatch):
    kills = tool("prove.kills")
    killed, positions = [], iter((3, 5, 9, 12, 30))
    monkeypatch.setattr(kills, "job_of", {10: "train", 11: "plan"}.get)
    monkeypatch.setattr(kills, "position_of", lambda folder: next(positions))
    monkeypatch.setattr(kills.os, "kill", lambda pid, number: killed.append(pid))
    killer = kills.Killer(Path("run"), worker_at=5, all_at=10)
    killer([1, 11], None)  # no worker yet: its database may not be there
    for _ in range(5):
        killer([1, 10], None)
    assert killed == [10, 1, 10]
    assert killer.done == [5, 12]


# ---- nets


@pytest.mark.slow
def test_every_case_is_planned_from_flags_that_the_command_knows(tool, tmp_path):
    cases, processes = tool("prove.cases"), tool("common.processes")
    for net in (*cases.NETS.values(), cases.STATE, cases.BALLOON, cases.depth_net(100)):
        command = processes.edge_trgl("train", *net.model, "--batch-size", str(net.batch_size), "--dry-run")
        assert processes.output_of(command)
    for flags in (*cases.REGIMES.values(), cases.STATE_FLAGS, cases.BALLOON_FLAGS, cases.DEPTH_FLAGS):
        assert processes.output_of(processes.edge_trgl("train", *flags, "--dry-run"))


@pytest.mark.parametrize("name", ["mlp", "huge", "resnet18", "mobilenet"])
def test_the_nets_are_chains_that_a_batch_goes_through(tool, name):
    import torch

    chain = getattr(tool("prove.nets"), name)(input_shape=(1, 28, 28), num_classes=10)
    with torch.device("meta"):
        x = torch.zeros(2, 1, 28, 28)
        for module in range(len(chain)):
            x = chain.trunk(module)(x)
        logits = chain.classifier(len(chain) - 1, tuple(x.shape[1:]))(x)
    assert logits.shape == (2, 10)
    assert chain.head == "linear"


def test_the_large_net_is_four_times_its_budget(tool):
    import torch

    cases = tool("prove.cases")
    chain = tool("prove.nets").large_state(input_shape=(1, 28, 28), num_classes=10)
    with torch.device("meta"):
        weights = sum(p.numel() for module in range(len(chain)) for p in chain.trunk(module).parameters())
    assert weights * 4 * 2 >= cases.STATE_FACTOR * cases.STATE_BUDGET_MB * 2**20


# ---- for real


@pytest.mark.slow
def test_a_small_proof_holds_and_is_not_made_twice(tmp_path):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tools.prove", "--quick", "--threads", "1", "--json", "proof.json"]
    command += ["--sections", "rows", "--nets", "mlp", "--regimes", "sequential"]
    first, second = (
        subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        for _ in range(2)
    )
    document = json.loads((tmp_path / "proof.json").read_text())
    rows = list(document["sections"]["rows"].values())
    assert [found["level"] for found in rows] == ["minimum", "+15 %", "generous"]
    assert all(found["kept"] for found in rows), first.stdout
    assert rows[0]["budget_mb"] < rows[1]["budget_mb"] < rows[2]["budget_mb"]
    assert first.stderr.count("mlp, sequential") == 4  # three levels and their smallest budget
    assert second.stderr == ""
    assert second.stdout == first.stdout
    assert left_runs(tmp_path) == []
