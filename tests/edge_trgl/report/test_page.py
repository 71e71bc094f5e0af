"""The page as a whole: what it says, what it must not hold, how large it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edge_trgl.report.document import Data, Event, MemorySample
from edge_trgl.report.page import render
from edge_trgl.run.data_summary import Augmentation, ClassCount, DataSummary, Sizes, UnreadableFile

MEGABYTE = 1_000_000
PLOTS = ("memory", "modules", "accuracy", "against", "early-exit", "losses", "looks", "io")
VOID = {"meta", "br", "link", "img", "input", "hr"}


def in_another_process(report, code):
    """What `code` prints, given `report`, in a new interpreter."""
    imports = "import sys\nfrom edge_trgl.report.document import *\nfrom edge_trgl.report.page import render\n"
    script = f"{imports}report = {report!r}\n{code}"
    result = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=True)
    return result.stdout


class Page(HTMLParser):
    """Text, ids, attributes and nesting of a page."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.attributes, self.text, self.open, self.tags = [], [], "", [], Counter()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data + " "

    @property
    def words(self):
        return " ".join(self.text.split())


def test_header_gives_the_verdict_and_the_numbers(make_report):
    html = render(make_report())
    words = Page(html).words
    for expected in (
        "peak 331 MiB of 340 MiB budget",
        "Budget kept.",
        "No memory saving changed the result.",
        "91.98 % at depth 9 of 10, last 91.60 %",
        "812 images/s",
        "45 min 1 restart",
        "30.5 M parameters, 10 modules, parallel",
        "30 MiB written, 28 MiB planned; 9,000 MiB read; 0.012 % of the storage's rated endurance",
        "12 MiB planned peak",
        "3f" * 32,
    ):
        assert " ".join(expected.split()) in words, expected
    assert 'class="card over"' not in html


def test_a_passed_budget_and_lossy_steps_are_said(make_report):
    report = make_report()
    memory = {**report.summary["memory"], "peak_mb": 351.0}
    report = replace(report, summary={**report.summary, "memory": memory, "lossy": ["fp16", "micro"]})
    html = render(report)
    words = Page(html).words
    assert "Budget exceeded." in words
    assert "Budget kept." not in words
    assert "Changes the result: fp16, micro." in words
    assert 'class="card over"' in html
    assert "width: 100.0%" in html


def test_a_run_without_a_budget(make_report):
    report = make_report()
    memory = {**report.summary["memory"], "budget_mb": None}
    words = Page(render(replace(report, summary={**report.summary, "memory": memory}))).words
    assert "no budget set" in words
    assert "Budget kept." not in words


def test_an_unfinished_run_says_what_is_missing(unfinished):
    html = render(unfinished)
    words = Page(html).words
    for expected in (
        "not measured yet, 340 MiB budget",
        "– not evaluated yet",
        "No memory samples yet.",
        "No modules planned yet.",
        "Not evaluated yet.",
        "No epoch finished yet.",
        "Nothing read or written yet.",
        "weights sha256 –",
    ):
        assert " ".join(expected.split()) in words, expected
    assert "<svg" not in html


def test_every_plot_is_there_and_named_for_screen_readers(make_report):
    html = render(make_report())
    page = Page(html)
    assert page.tags["svg"] == len(PLOTS)
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-labelledby")]
    assert sorted(labels) == sorted(f"{name}-title {name}-desc" for name in PLOTS)
    assert set(" ".join(labels).split()) <= set(page.ids)
    assert ("svg", "role", "img") in page.attributes


@pytest.mark.slow
def test_ids_are_unique_and_references_resolve(make_report):
    html = render(make_report())
    ids = Page(html).ids
    assert len(ids) == len(set(ids))
    body = html[html.index("<body>") :]
    assert set(re.findall(r'(?:url\(|href=")#([\w.-]+)', body)) <= set(ids)


@pytest.mark.slow
def test_runs_are_compared_on_test_images_where_all_have_them(make_report):
    report = make_report()
    words = Page(render(report)).words
    assert "Against other runs, on validation images" in words and "runs/0002 (train.augment = false)" in words
    scored = tuple(replace(entry, test=0.5) for entry in report.accuracy)
    assert "Against other runs, on test images" in Page(render(replace(report, accuracy=scored))).words
    assert "Against other runs" not in Page(render(replace(report, against=()))).words


@pytest.mark.slow
def test_of_many_changes_some_are_named(make_report):
    report = make_report()
    (other,) = report.against
    config = {"board": {"name": "pi"}, "train": {f"setting_{number}": number for number in range(9)}}
    words = Page(render(replace(report, against=(replace(other, config=config),)))).words
    assert (
        "(train.setting_0 = 0, train.setting_1 = 1, train.setting_2 = 2, train.setting_3 = 3, and 5 more)" in words
    )
    same = replace(other, config={**report.config, "board": {"name": "pi"}})
    assert "runs/0002 (same settings)" in Page(render(replace(report, against=(same,)))).words


def test_nothing_is_fetched_and_nothing_runs(make_report):
    html = render(make_report())
    page = Page(html)
    for tag in ("script", "link", "img", "iframe", "object", "image"):
        assert page.tags[tag] == 0
    links = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert re.findall(r"https?://|@import|url\((?!#)", html) == []
    assert "default-src 'none'" in html


def test_it_is_readable_on_a_phone_and_in_the_dark(make_report):
    html = render(make_report())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html
    assert "var(--first)" in html[html.index("<svg") :]


def test_names_are_escaped_everywhere(make_report):
    evil = "<img src=x onerror=alert(1)> & $\\frac{$"
    report = make_report(num_modules=2)
    report = replace(
        report,
        name=evil,
        summary={**report.summary, "regime": evil, "lossy": [evil], "weights_sha256": evil},
        config={evil: {"key": evil}},
        against=(replace(report.against[0], name=evil, config={evil: {"key": "other"}}),),
        memory=(MemorySample(time_s=1.0, phase=evil, rss_mb=1.0, peak_mb=1.0),),
        modules=tuple(replace(cost, name=evil) for cost in report.modules),
        events=(Event(time_s=0.0, kind=evil, text=evil),),
    )
    page = Page(render(report))
    assert page.tags["img"] == 0
    # title, heading, regime, lossy, hash, phase, two modules, event kind and text, key and value; where runs are
    # compared, both and a setting
    assert page.text.count(evil) == 15


@pytest.mark.slow
def test_the_same_report_gives_the_same_page(make_report):
    assert render(make_report()) == render(make_report())


@pytest.mark.slow
def test_the_same_page_from_another_process(make_report):
    report = make_report()
    assert in_another_process(report, "print(render(report), end='')") == render(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_modules", "num_samples", "num_epochs"), [(1, 1, 1), (2, 2, 2), (100, 5, 2000), (3, 100_000, 2)]
)
def test_any_size_gives_a_small_page(make_report, num_modules, num_samples, num_epochs):
    html = render(make_report(num_modules=num_modules, num_samples=num_samples, num_epochs=num_epochs))
    assert Page(html).tags["svg"] == len(PLOTS)
    assert len(html.encode()) < MEGABYTE


def test_an_event_has_its_moment(make_report):
    assert "1970-01-01 00:23:20" in render(make_report())


def test_many_long_events_are_cut_and_counted(make_report):
    events = tuple(Event(time_s=i, kind="note", text=f"[{i}] " + "x" * 9000) for i in range(5000))
    html = render(replace(make_report(), events=events))
    assert len(html.encode()) < MEGABYTE
    text = Page(html).text
    assert "4600 events in the middle are not shown." in text
    assert "[0]" in text
    assert "[4999]" in text
    assert "[2500]" not in text


def test_the_table_of_modules_joins_memory_loss_and_accuracy(make_report):
    html = render(make_report(num_modules=2, num_epochs=4))
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html[html.index("<summary>Modules") :])
    cells = [[" ".join(c.split()) for c in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]
    memory, scores = ["1.2 M", "300 MiB", "290 MiB"], ["80.00 %", "80.00 %", "90.00 %"]
    assert ["1", "block 0", "–", *memory, "0.5", "0.01", "–", *scores] in cells
    assert ["2", "block 1", "conv", *memory, "0.6", "0.01", "1.23 %", "80.00 %", "85.00 %", "–"] in cells


def test_the_exported_files_are_a_table(make_report, unfinished):
    words = Page(render(make_report())).words
    assert "model.int8.onnx 3 MiB 91.25 % 99.31 % 1.23 ms percentile" in words
    assert "model.fp16.onnx – – – – it differs" in words
    assert "Exported files" not in Page(render(unfinished)).words


def test_the_data_are_described(make_report, unfinished):
    assert "<h2>Data</h2>" not in render(unfinished)
    summary = DataSummary(
        source="photos",
        format="image folders",
        shape=(224, 224, 3),
        dtype="uint8",
        sizes=Sizes(smallest=(400, 500), median=(1260, 940), largest=(4000, 3000), distinct=5),
        resize="squash",
        size_from="choice",
        classes=tuple(ClassCount(name=f"<b>{number}", train=4, val=1, test=0) for number in range(1000)),
        no_images={".csv": 2},
        unreadable=tuple(UnreadableFile(file=f"{number}.jpg", reason="it is empty") for number in range(101)),
        notices=("windows < images",),
        decoded=True,
    )
    data = Data(summary=summary, augmentation=Augmentation(crop_padding=14, flip=False))
    page = render(replace(make_report(), data=data))
    for text in (
        "5,000 images of 1,000 classes: 4,000 train, 1,000 val",
        "500x400 to 3000x4000, 5 different",
        "224x224, squashed to a square (chosen",
        "not mirrored",
        "2 .csv",
        "windows &lt; images",
        "&lt;b&gt;199<",
        "and 800 more; summary.json has all",
        "99.jpg",
        "and 1 more; summary.json has all",
    ):
        assert text in page
    assert "<b>1" not in page


def test_the_configuration_is_flattened(make_report):
    html = render(make_report(num_epochs=7))
    assert "<td>data.spec</td><td>sample</td>" in html
    assert "<td>train.epochs</td><td>7</td>" in html
    assert "<td>train.augment</td><td>true</td>" in html


def test_importing_the_report_loads_neither_matplotlib_nor_jinja2_nor_torch(unfinished):
    heavy = "[name for name in ('matplotlib', 'jinja2', 'torch') if name in sys.modules]"
    assert in_another_process(unfinished, f"print({heavy}, end='')") == "[]"


@pytest.mark.slow
def test_rendering_loads_no_torch(make_report):
    assert in_another_process(make_report(), "render(report); print('torch' in sys.modules, end='')") == "False"


@pytest.mark.slow
def test_a_depth_chosen_on_test_images_is_told(make_report):
    report = make_report()
    accuracy = {**report.summary["accuracy"], "chosen_on": "half-test", "gain": None}
    half = Page(render(replace(report, summary={**report.summary, "accuracy": accuracy}))).words
    assert "the depth is chosen on half of the test images" in half
    plain = Page(render(report)).words
    assert "half of" not in plain.lower()
    assert "validation" in plain
    assert "validation" not in half.replace("data.validation", "").lower()


@pytest.mark.slow
def test_what_depth_gave_is_a_sentence(make_report, unfinished):
    assert "was chosen: 91.0% on validation images." in Page(render(make_report())).words
    assert "was chosen" not in Page(render(unfinished)).words


@pytest.mark.slow
def test_leaving_early_is_told_where_it_was_exported(make_report):
    report = make_report()
    words = Page(render(report)).words
    assert "On 600 images (validation images) the exported thresholds give 89.00 % for 41 % of the FLOPs" in words
    assert "on the test images 88.50 % for 42 %." in words
    untested = replace(report, early_exit=replace(report.early_exit, test=None))
    assert "of all stages; there are no test images." in Page(render(untested)).words
    assert "Early exit" not in Page(render(replace(report, early_exit=None))).words
