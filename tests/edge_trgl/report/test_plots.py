"""Each plot is well-formed SVG, says its numbers in words, and draws what it was given."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from edge_trgl.report import plots
from edge_trgl.report.document import MAX_AGAINST, IoSample, LookPoint, LossPoint, MemorySample
from edge_trgl.report.drawing import drawing

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def parse(svg):
    return ElementTree.fromstring(svg.replace("<svg", SVG, 1))


def description(svg):
    (text,) = [e.text for e in parse(svg).iter() if e.tag.endswith("}desc")]
    return text.replace("\u00a0", " ")


def strokes(svg, variable):
    """The `d` of every path drawn in a colour of the page."""
    return [
        element.get("d")
        for element in parse(svg).iter()
        if element.tag.endswith("}path") and f"stroke: var({variable})" in (element.get("style") or "")
    ]


def texts(svg):
    return {e.text for e in parse(svg).iter() if e.tag.endswith("}text")}


def test_memory_shows_budget_peak_and_phases(make_report):
    samples = make_report().memory
    svg = plots.memory(samples, 340)
    assert description(svg) == "The process tree used 310 MiB at most; the budget is 340 MiB."
    assert len(strokes(svg, "--bad")) == 1
    assert strokes(plots.memory(samples, None), "--bad") == []
    for phase in ("prepare", "train", "evaluate", "export"):
        assert plots.PHASES[phase] in svg
    assert plots.PHASES["plan"] not in svg
    assert {"MiB", "time (h)"} <= texts(svg)


@pytest.mark.slow
def test_a_lone_peak_among_many_samples_is_drawn(make_report):
    samples = list(make_report(num_samples=50_000).memory)
    flat = plots.memory([replace(s, rss_mb=300.0, peak_mb=330.0) for s in samples], 340)
    peak = plots.memory(
        [replace(s, rss_mb=330.0 if i == 31_234 else 300.0, peak_mb=330.0) for i, s in enumerate(samples)],
        340,
    )
    assert _height(strokes(flat, "--first")) == 0
    assert _height(strokes(peak, "--first")) > 5


def test_an_unknown_phase_has_a_colour():
    svg = plots.memory([MemorySample(time_s=t, phase="new", rss_mb=1, peak_mb=1) for t in (0, 1)], None)
    assert plots.OTHER_PHASE in svg


def test_modules_draw_a_bar_for_each_number(make_report):
    costs = list(make_report(num_modules=6).modules)
    costs[4:] = [replace(cost, measured_mb=None) for cost in costs[4:]]
    svg = plots.modules(costs)
    assert description(svg) == "6 modules, planned 300 MiB at most; 4 of them measured."
    assert svg.count("fill: var(--muted)") >= 6
    assert svg.count("fill: var(--first)") == 4


def test_titles_are_escaped():
    with drawing() as picture:
        svg = picture.svg(name="x", title="a < b", description="c & d")
    assert {"a < b", "c & d"} <= {element.text for element in parse(svg).iter()}


def test_one_module_has_whole_ticks_only(make_report):
    report = make_report(num_modules=1, num_epochs=1)
    ticks = {text for text in texts(plots.accuracy(report.accuracy, 1)) if re.fullmatch(r"[\d.]+", text)}
    assert ticks == {"1"}


def test_accuracy_marks_the_chosen_depth_and_the_test_scores(make_report):
    depths = make_report(num_modules=8).accuracy
    svg = plots.accuracy(depths, 7)
    assert description(svg) == "Accuracy on validation images is highest at depth 8: 88.75 %."
    dashed = [line for line in re.findall(r'style="([^"]*)"', svg) if "dasharray" in line]
    assert len(dashed) == 1
    assert "dasharray" not in plots.accuracy(depths, None)
    assert "var(--second)" in svg
    assert "var(--second)" not in plots.accuracy([replace(d, test=None) for d in depths], None)


@pytest.mark.parametrize("tested", [False, True])
def test_each_run_that_is_compared_is_a_line_of_its_own(make_report, tested):
    ours = [replace(entry, test=0.9) for entry in make_report(num_modules=40).accuracy]
    theirs = [replace(entry, validation=0.8, test=entry.validation) for entry in ours[:35]]
    svg = plots.against([ours, theirs], tested=tested, images="some images")
    assert description(svg) == "Accuracy of 2 runs on some images."
    (first,), (second,) = (strokes(svg, name) for name in ("--first", "--second"))
    assert (len(first.split("L")), len(second.split("L"))) == (40, 35)
    assert (_height([first]) == 0, _height([second]) == 0) == (tested, not tested)


def test_as_many_runs_have_a_colour_as_are_compared():
    assert len(set(plots.RUNS)) == len(plots.RUNS) == MAX_AGAINST + 1


def test_early_exit_draws_both_curves_and_the_exported_thresholds(make_report):
    early = make_report().early_exit
    svg = plots.early_exit(early)
    assert description(svg) == "The exported thresholds give 89.00 % for 41 % of the FLOPs."
    (common,), (searched,) = (
        [path for path in strokes(svg, name) if len(path.split("L")) > 1 and "C" not in path and "z" not in path]
        for name in ("--first", "--second")
    )
    assert len(common.split("L")) == 10 and len(searched.split("L")) == 2
    assert "FLOPs per image, share of all stages" in texts(svg)


@pytest.mark.parametrize("num_modules", [1, 3, 100])
def test_losses_draw_one_line_a_module_from_end_to_end_of_the_ramp(num_modules):
    points = [
        LossPoint(module=k, epoch=e, loss=1 / e + k, accuracy=0.5, transport=0.0)
        for e in range(1, 201)
        for k in range(num_modules)
    ]
    svg = plots.losses(points)
    colours = re.findall(r"stroke: (#\w{6})", svg)
    assert len(colours) == num_modules
    assert colours[0] == plots.RAMP[0]
    assert num_modules == 1 or colours[-1] == plots.RAMP[2]
    assert description(svg).startswith(f"{num_modules} modules; the last loss of the last one is")


def test_looks_draw_one_line_a_module_and_tell_the_last():
    points = [LookPoint(module=k, epoch=e, accuracy=0.1 * k + 0.01 * e) for e in (9, 19, 29) for k in range(3)]
    svg = plots.looks(points, "half of the test images")
    assert len(set(re.findall(r"stroke: (#\w{6})", svg))) == 3
    assert description(svg) == (
        "Accuracy of the last of 3 modules on half of the test images at the last look: 49.00 %."
    )


def test_a_loss_that_is_not_a_number_leaves_a_gap():
    points = [
        LossPoint(module=0, epoch=e, loss=loss, accuracy=0.1, transport=0.0)
        for e, loss in enumerate([2.0, 1.0, float("nan"), float("inf")], 1)
    ]
    assert "inf" in description(plots.losses(points))


@pytest.mark.parametrize(("last_mb", "unit"), [(1000.0, "MiB"), (9000.0, "GiB")])
@pytest.mark.parametrize(("last_s", "time"), [(90, "time (s)"), (600, "time (min)"), (9000, "time (h)")])
def test_io_chooses_its_units(last_mb, unit, last_s, time):
    samples = [IoSample(time_s=t * last_s, read_mb=t * last_mb, written_mb=t) for t in (0, 0.5, 1)]
    svg = plots.io(samples)
    assert {unit, time} <= texts(svg)
    assert description(svg).endswith("1 MiB written in all.")


def _height(paths):
    (path,) = paths
    ys = [float(y) for y in re.findall(r"[ML] [\d.-]+ ([\d.-]+)", path)]
    return max(ys) - min(ys)
