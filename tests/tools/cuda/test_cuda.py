"""The CUDA checks: verdicts on made-up figures, its time limits, and a rehearsal of everything on the CPU."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from left_runs import left_runs


@pytest.fixture
def equal(tool):
    return tool("cuda.equal")


# ---- the CPU's numbers


def difference(equal, **more):
    return equal.Difference(**{"loss": 1e-6, "transport": 1e-6, "weights": 1e-5, **more})


@pytest.mark.parametrize(
    ("more", "ok"),
    [
        pytest.param({}, True, id="as the disturbed one"),
        pytest.param({"loss": 9e-6}, False, id="loss"),
        pytest.param({"transport": 9e-6}, False, id="transport"),
        pytest.param({"weights": 9e-5}, False, id="weights"),
        pytest.param({"loss": math.inf}, False, id="no number"),
    ],
)
def test_devices_may_differ_as_roundings_do(equal, more, ok):
    """By twice the root of 16 steps times what a disturbance did."""
    found = equal.judge_agreement(difference(equal, **more), difference(equal), 1e-7, 16)
    assert found["ok"] is ok
    assert found["tolerance"]["loss"] == pytest.approx(8e-6)


def test_a_disturbance_that_had_no_effect_leaves_the_rounding_itself(equal):
    nothing = equal.Difference(loss=0.0, transport=0.0, weights=0.0)
    assert equal.judge_agreement(nothing, nothing, 1e-7, 4)["tolerance"]["transport"] == pytest.approx(4e-7)


def run_of(tool, *, loss=2.0, weight=1.0, transport=0.5):
    return tool("cuda.runs").Trained(
        losses={(0, 0): 3.0, (0, 1): loss},
        transports={(0, 0): 0.0, (0, 1): transport},
        weights=[{"trunk.w": torch.tensor([weight, 5.0]), "trunk.n": torch.tensor(3), "head.w": torch.ones(1)}],
        first=[{"trunk.w": torch.tensor([0.0, 5.0]), "trunk.n": torch.tensor(0), "head.w": torch.ones(1)}],
        dtypes=("bfloat16",),
    )


def test_differences_are_relative_to_losses_and_to_what_training_moved(tool, equal):
    other = run_of(tool, loss=2.002, weight=1.01, transport=0.505)
    found = equal.difference(run_of(tool), other)
    assert found.loss == pytest.approx(0.001)
    assert found.transport == pytest.approx(0.01)
    assert found.weights == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("what", ["loss", "transport", "weight"])
def test_what_is_no_number_is_infinitely_far(tool, equal, what):
    found = equal.difference(run_of(tool), run_of(tool, **{what: math.nan}))
    assert math.inf in (found.loss, found.transport, found.weights)


# ---- bits


def test_one_bit_is_a_difference(tool, equal):
    same = equal.judge_bits(run_of(tool), run_of(tool))
    assert (same["ok"], same["tensors"], same["different"]) == (True, 3, 0)
    other = equal.judge_bits(run_of(tool), run_of(tool, weight=1 + 2.0**-20))
    assert (other["ok"], other["different"], other["largest"]) == (False, 1, 2.0**-20)


def test_tensors_of_one_module_meet_those_of_several(tool, equal):
    names = ("trunk.0.w", "trunk.0.running_mean", "trunk.1.w", "trunk.1.running_mean", "head.w")
    values = {name: torch.tensor(float(number)) for number, name in enumerate(names)}
    one = {name: values[name] for name in sorted(names, key=lambda name: ("running" in name, names.index(name)))}
    several = [
        {"trunk.0.w": values["trunk.0.w"], "trunk.0.running_mean": values["trunk.0.running_mean"]},
        {
            "trunk.0.w": values["trunk.1.w"],
            "head.w": values["head.w"],
            "trunk.0.running_mean": values["trunk.1.running_mean"],
        },
    ]
    whole, paged = (replace(run_of(tool), weights=found) for found in ([one], several))
    assert equal.judge_bits(whole, paged)["ok"]


# ---- half the digits


@pytest.mark.parametrize(
    ("more", "dtypes", "ok"),
    [
        ({}, ("bfloat16", "float32"), True),
        ({"loss": 3.5}, ("bfloat16", "float32"), False),
        ({"loss": math.nan}, ("bfloat16", "float32"), False),
        ({}, ("float32", "float32"), False),
    ],
)
def test_bf16_trains_if_losses_fall_and_boundaries_are_narrow(tool, equal, more, dtypes, ok):
    assert equal.judge_bf16(replace(run_of(tool, **more), dtypes=dtypes)).ok is ok


# ---- memory


COUNTED = {
    "product": 1500.0,
    "driver": 1480.0,
    "by": "nvidia-smi",
    "reserved": 900.0,
    "reserved_highest": 1000.0,
    "highest": 1600.0,
    "budget": 4000.0,
    "planned": 3000.0,
    "measured": 3100.0,
}


@pytest.mark.parametrize(
    ("more", "ok"),
    [
        pytest.param({}, True, id="right"),
        pytest.param({"driver": 1600.0}, False, id="below the driver"),
        pytest.param({"driver": 1100.0}, False, id="far above the driver"),
        pytest.param({"reserved_highest": 1700.0}, False, id="not all that was reserved"),
        pytest.param({"reserved": 0.0}, False, id="nothing reserved"),
        pytest.param({"measured": 4001.0, "planned": 3900.0}, False, id="over the budget"),
        pytest.param({"measured": 3400.0}, False, id="not as planned"),
    ],
)
def test_what_is_counted_is_held_against_torch_and_the_driver(tool, more, ok):
    memory = tool("cuda.memory")
    assert memory.judge_memory(memory.Counted(**{**COUNTED, **more})).ok is ok


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("12, 300\n4711, 1480\n", 1480.0),
        ("12, 300\n", None),
        ("4711, [N/A]\n", None),
        ("", None),
    ],
)
def test_the_drivers_row_of_a_process(tool, listed, expected):
    assert tool("cuda.memory").own_row(listed, 4711) == expected


# ---- a refusal

STEP = {"kind": "restart", "text": "an allocation was refused: no room; 3 in memory -> 1 in memory"}
REFUSED = {"starts": 2, "events": [STEP], "planned_mb": [500.0, 400.0], "scores": {"last": 0.5}}


@pytest.mark.parametrize(
    ("more", "ok"),
    [
        pytest.param({}, True, id="right"),
        pytest.param({"starts": 1, "events": []}, False, id="never refused"),
        pytest.param({"starts": 3, "events": [STEP, STEP]}, False, id="twice"),
        pytest.param({"events": [{**STEP, "text": "killed; 3 -> 1"}]}, False, id="something else"),
        pytest.param({"planned_mb": [500.0, 500.0]}, False, id="no lower"),
        pytest.param({"scores": None}, False, id="not finished"),
    ],
)
def test_a_refusal_is_one_step_down_and_a_result(tool, more, ok):
    assert tool("cuda.refusal").judge_refusal({**REFUSED, **more}).ok is ok


# ---- the exported network, speed


@pytest.mark.parametrize(("off", "ok"), [(0.0, True), (0.02, True), (0.2, False), (8.0, False)])
def test_logits_may_be_a_hundredth_apart(tool, off, ok):
    expected = np.array([[0.0, 4.0], [4.0, 0.0]])
    found = tool("cuda.export").judge_export(expected, expected + np.array([off, 0.0]), {}, None)
    assert found.ok is ok


def test_logits_that_are_near_must_be_of_the_same_class(tool):
    expected = np.array([[4.0, 4.001], [4.0, 0.0]])
    found = np.array([[4.001, 4.0], [4.0, 0.0]])
    assert not tool("cuda.export").judge_export(expected, found, {}, None).ok


def test_a_row_without_figures_fails_and_the_others_are_kept(tool):
    rows = {
        "parallel": {"images_per_s": 300.0, "peak_mb": 900.0, "plan": {}},
        "bare greedy": {"images_per_s": 200.0},
        "sequential": {"error": "it ended"},
    }
    found = tool("cuda.speed").judge_rows("speed", "a net", rows)
    assert (found.ok, found.details["failed"]) == (False, ["sequential"])
    assert found.details["times_bare_greedy"] == {"parallel": 1.5, "bare greedy": 1.0}
    assert found.details["rows"]["parallel"] == {"images_per_s": 300.0, "peak_mb": 900.0}


# ---- the command


def test_the_shares_of_all_checks_are_ten_minutes_at_most(tool):
    checks = tool("cuda.checks").CHECKS
    assert sum(check.seconds for check in checks.values()) <= 60 * tool("cuda.__main__").MINUTES


def test_every_check_is_there(tool):
    for check in tool("cuda.checks").CHECKS.values():
        module, _, function = check.function.partition(".")
        assert callable(getattr(tool(f"cuda.{module}"), function))


@pytest.fixture
def setting(tool, tmp_path):
    return tool("cuda.checks").Setting(device="cpu", quick=True, threads=1, scratch=tmp_path)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import time; time.sleep(1000)", "not done after 1 s"),
        ("raise SystemExit('no such kernel')", "code 1\nno such kernel"),
    ],
)
def test_a_check_that_hangs_or_fails_is_told(tool, setting, monkeypatch, code, error):
    command = tool("cuda.__main__")
    monkeypatch.setattr(command, "_command", lambda name, options: [command.sys.executable, "-c", code])
    found = command.run_check("bf16", setting, 1.0 if "sleep" in code else 100.0)
    assert not found["ok"]
    assert error in found["error"]
    assert error in command.table([found])


def test_what_was_found_is_kept_and_gone_on_with(tool, tmp_path, monkeypatch):
    command, done, file = tool("cuda.__main__"), [], tmp_path / "cuda.json"

    def run_check(name, setting, seconds):
        done.append(name)
        return {"name": name, "ok": len(done) != 2, "details": {}, "skipped": None}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run_check", run_check)
    monkeypatch.setattr(command, "output_of", lambda words: '{"gpu": "a small one"}')
    arguments = ["--json", str(file)]
    assert command.main(arguments) == 1
    assert len(done) == len(command.CHECKS)
    assert json.loads(file.read_text())["ok"] is False
    assert command.main(arguments) == 0
    assert done[len(command.CHECKS) :] == [done[1]]
    assert json.loads(file.read_text())["ok"] is True
    assert command.main([*arguments, "--only", "export"]) == 0
    assert done[-1] == "export"


def test_without_a_gpu_one_sentence_says_so(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool("cuda.__main__"), "output_of", lambda words: '{"gpu": null}')
    monkeypatch.chdir(tmp_path)
    assert tool("cuda.__main__").main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("There is no CUDA device") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tool
def test_everything_is_rehearsed_on_the_cpu(run_tool, tmp_path):
    arguments = ("--device", "cpu", "--threads", "1", "--minutes", "1000", "--json", "-")
    done = run_tool("cuda", *arguments, cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True), done.stdout
    found = document["sections"]["checks"]
    agreement, paging, refusal = (found[name]["details"] for name in ("agreement", "paging", "refusal"))
    assert list(agreement) == ["parallel", "sequential", "multi-lap", "end-to-end"]
    for regime in agreement.values():
        assert regime["found"] == {"loss": 0.0, "transport": 0.0, "weights": 0.0}  # the same device
        assert 0 < regime["disturbance"] < regime["disturbed"]["weights"] < regime["tolerance"]["weights"]
    assert all(pair["tensors"] > 10 for pair in paging.values())
    assert refusal["held"] == dict.fromkeys(refusal["held"], True)
    assert found["memory"]["details"]["mb"]["planned"] > 0
    assert found["export"]["details"]["top1_agreement"] == 1
    assert found["speed"]["details"]["rows"]["parallel"]["images_per_s"] > 0
    assert {name for name, item in found.items() if item["skipped"]} == {"memory", "export"}
    assert left_runs(tmp_path) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_quick_checks_pass_on_a_gpu(run_tool, tmp_path):
    done = run_tool("cuda", "--quick", "--threads", "4", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
