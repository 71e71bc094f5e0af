"""CSV files of readings become labelled windows, whatever their separators, headers and times look like."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_trgl.data.sources import load
from edge_trgl.data.sources.readings import csv_table
from edge_trgl.runtime.errors import InputError


def _rows(num_rows=24, people=3, per_label=12):
    """`people` of `num_rows` readings each: time, two channels, person and label."""
    for person in range(people):
        for row in range(num_rows):
            value = person * 1000 + row
            yield (
                f"{row * 0.02:.2f}",
                f"{value}.5",
                f"{-value}",
                f"p{person}",
                ("walk", "run")[row // per_label % 2],
            )


HEADER = ("time", "x", "y", "person", "activity")


def _text(rows, header=HEADER, separator=","):
    return "".join(f"{separator.join(row)}\n" for row in (header, *rows))


def _write(folder, text, toml="window = 4\nstride = 2\n", name="readings.csv"):
    (folder / name).write_text(text)
    if toml:
        (folder / name).with_suffix(".toml").write_text(toml)
    return str(folder / name)


def _windows(source, split="train"):
    labels = source.splits[split].labels
    windows = np.concatenate(list(source.splits[split].batches(np.arange(len(labels)))))
    assert windows.dtype == np.float32
    assert windows.shape == (len(labels), *source.shape)
    return windows


def test_windows_labels_and_groups(tmp_path):
    source = load(_write(tmp_path, _text(_rows())))
    windows = _windows(source)
    assert source.class_names == ("run", "walk")
    assert (source.shape, source.dtype, set(source.splits)) == ((4, 2), "float32", {"train"})
    starts = np.arange(0, 21, 2)
    expected = np.concatenate([person * 1000 + starts[:, None] + np.arange(4) for person in range(3)])
    # The window at 10 is half walk and half run.
    mixed = np.tile(starts == 10, 3)
    assert (windows[..., 0] == expected[~mixed] + 0.5).all()
    assert (windows[..., 1] == -expected[~mixed]).all()
    assert source.splits["train"].labels.tolist() == np.tile(starts < 12, 3)[~mixed].astype(int).tolist()
    assert np.bincount(source.groups.of_sample).tolist() == [10, 10, 10]
    assert any(notice.startswith("left out: 3 × a window without one label") for notice in source.notices)


def test_only_the_windows_that_are_asked_for_are_read(tmp_path):
    source = load(_write(tmp_path, _text(_rows())))
    some = np.array([1, 7, 8, 29])
    found = np.concatenate(list(source.splits["train"].batches(some)))
    assert (found == _windows(source)[some]).all()


@pytest.mark.parametrize("block", [1, 5, 24, 1000])
def test_the_size_of_a_block_does_not_matter(tmp_path, monkeypatch, block):
    path = _write(tmp_path, _text(_rows()))
    expected = _windows(load(path))
    monkeypatch.setattr(csv_table, "BLOCK_ROWS", block)
    assert (_windows(load(path)) == expected).all()


SPREADSHEET = {
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace(".", ",").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "quoted names": lambda text: text.replace("activity", '"activity"').replace("x,", '"x",').encode(),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "empty lines": lambda text: text.replace("\n", "\n\n").encode(),
    "spaces": lambda text: text.replace(",", " , ").encode(),
    "names in capitals": lambda text: text.replace("person,activity", "Person,ACTIVITY").encode(),
    "row numbers of pandas": lambda text: "\n".join(
        f"{'' if row == 0 else row},{line}" for row, line in enumerate(text.splitlines())
    ).encode(),
}


@pytest.mark.parametrize("write", SPREADSHEET.values(), ids=SPREADSHEET)
def test_what_spreadsheets_write(tmp_path, write):
    text = _text(_rows())
    path = _write(tmp_path, text)
    expected = load(path)
    windows = _windows(expected)
    (tmp_path / "readings.csv").write_bytes(write(text))
    found = load(path)
    assert (_windows(found) == windows).all()
    assert found.class_names == expected.class_names
    assert (found.groups.of_sample == expected.groups.of_sample).all()


def test_a_packed_file(tmp_path):
    path = _write(tmp_path, _text(_rows()))
    with gzip.open(tmp_path / "packed.csv.gz", "wt") as packed:
        packed.write(_text(_rows()))
    (tmp_path / "packed.toml").write_text("window = 4\nstride = 2\n")
    assert (_windows(load(str(tmp_path / "packed.csv.gz"))) == _windows(load(path))).all()


def test_a_description_names_the_columns_and_the_file(tmp_path):
    rows = [(row[0], row[1], row[2], row[3], row[4], "7") for row in _rows()]
    text = _text(rows, ("when", "ax", "ay", "who", "what", "battery"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data of today.csv").write_text(text)
    (tmp_path / "setup.toml").write_text(
        'file = "here/data of today.csv"\ntime = "when"\nlabel = "what"\ngroup = "who"\n'
        'channels = ["ay", "ax"]\nwindow = 4\nstride = 2\n'
    )
    source = load(str(tmp_path / "setup.toml"))
    expected = load(_write(tmp_path, _text(_rows())))
    assert (_windows(source) == _windows(expected)[..., ::-1]).all()
    assert source.groups is not None


def test_defaults_without_a_description(tmp_path):
    source = load(_write(tmp_path, _text(_rows(300, 2, 150)), toml=None))
    assert source.shape == (128, 2)
    # Of each person: windows at 0, 64 and 128; that at 64 has 86 of 128 readings of the first label.
    assert len(source.splits["train"].labels) == 6
    assert source.notices[0].endswith(
        "readings.csv: time time, label activity, group person; channels x, y; windows of 128 readings, "
        "one every 64 (readings.toml sets it)"
    )


def test_columns_of_text_are_left_out_and_named(tmp_path):
    rows = [(*row, "left wrist") for row in _rows()]
    source = load(_write(tmp_path, _text(rows, (*HEADER, "place"))))
    assert source.shape == (4, 2)
    assert "columns without numbers are left out: place" in source.notices


@pytest.mark.parametrize(
    "written",
    [
        lambda row: f"2024-05-31T12:00:{row * 0.02:09.6f}Z",
        lambda row: f"2024-05-31 12:00:{row * 0.02:05.2f}",
        lambda row: f"{1_717_156_800_000 + row * 20}",
    ],
)
def test_no_window_crosses_a_gap_in_time(tmp_path, written):
    # A gap of six usual steps after the eighth reading.
    rows = [(written(row + 5 * (row >= 8)), "1", "2", "p", "walk" if row < 12 else "run") for row in range(24)]
    source = load(_write(tmp_path, _text(rows)))
    assert len(source.splits["train"].labels) == 3 + 7 - 1  # one is half walk and half run
    assert any(notice.startswith("gaps in time: 1 ") for notice in source.notices)


def test_files_of_a_folder_are_recordings_and_groups(tmp_path):
    for person in range(3):
        rows = [row for row in _rows() if row[3] == f"p{person}"]
        _write(
            tmp_path, _text([row[:3] + row[4:] for row in rows], HEADER[:3] + HEADER[4:]), None, f"{person}.csv"
        )
    (tmp_path / "readings.toml").write_text("window = 4\nstride = 2\n")
    source = load(str(tmp_path))
    (tmp_path / "one").mkdir()
    expected = load(_write(tmp_path / "one", _text(_rows())))
    assert (_windows(source) == _windows(expected)).all()
    assert (source.groups.of_sample == expected.groups.of_sample).all()
    (tmp_path / "readings.toml").write_text('window = 4\nstride = 2\ngroup = ""\n')
    assert load(str(tmp_path / "readings.toml")).groups is None


def test_a_folder_with_splits(tmp_path):
    for split, person in (("train", "p0"), ("train", "p2"), ("test", "p1")):
        (tmp_path / split).mkdir(exist_ok=True)
        _write(tmp_path / split, _text([row for row in _rows() if row[3] == person]), None, f"{person}.csv")
    (tmp_path / "readings.toml").write_text("window = 4\nstride = 2\n")
    source = load(str(tmp_path))
    assert {name: len(split.labels) for name, split in source.splits.items()} == {"train": 20, "test": 10}
    assert (_windows(source, "test")[..., 0] // 1000 == 1).all()


def test_photos_with_a_table_beside_them_are_photos(tmp_path, sets):
    sets.image_folder(tmp_path, {"": sets.labelled(20, (4, 4, 3), 2)})
    (tmp_path / "labels.csv").write_text("file,label\n0000.png,cat\n")
    assert load(str(tmp_path)).format == "image folders"


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    rows = [("1", "2", str((10, 9, 100)[number // 8])) for number in range(24)]
    assert load(_write(tmp_path, _text(rows, ("x", "y", "label")))).class_names == ("9", "10", "100")


def test_without_persons_it_is_said_that_the_accuracy_is_too_high(tmp_path):
    rows = [row[:3] + row[4:] for row in _rows(people=1)]
    source = load(_write(tmp_path, _text(rows, HEADER[:3] + HEADER[4:])))
    assert source.groups is None
    assert source.notices[-1].startswith("no column says which person or machine was measured")


GOOD = _text(_rows())


def _change(line, old, new):
    lines = GOOD.splitlines()
    lines[line - 1] = lines[line - 1].replace(old, new)
    return "\n".join(lines)


MISTAKES = {
    "no number": (_change(7, "5.5", "high"), r"line 7 of \S+csv has 'high' in the column x, not a number"),
    "nothing": (_change(7, "5.5", ""), r"line 7 of \S+csv has nothing in the column x, not a number"),
    "nan": (_change(7, "5.5", "NaN"), r"line 7 of \S+csv has 'NaN' in the column x, not a number"),
    "too large": (_change(7, "5.5", "1e39"), r"line 7 of \S+csv has '1e39' in the column x"),
    "no label": (_change(30, "walk", " "), r"line 30 of \S+csv has nothing in the column activity, not a name"),
    "no person": (_change(30, "p1", ""), r"line 30 of \S+csv has nothing in the column person"),
    "no time": (_change(30, "0.08", "noon"), r"line 30 of \S+csv has 'noon' in the column time, not a time"),
    "a cell too many": (_change(9, "p0", "p0,x"), r"line 9 of \S+csv has 6 cells; its header names 5"),
    "no header": ("\n".join(GOOD.splitlines()[1:]), "has no header: its first line holds numbers"),
    "an empty file": ("", "is empty"),
    "a header alone": (",".join(HEADER), "has no column of numbers"),
    "a name twice": (GOOD.replace("person", "x", 1), "has two columns named x"),
    "no column for the label": (
        GOOD.replace("activity", "what", 1),
        "has no column for the label; its columns are",
    ),
    "two labels": (GOOD.replace("person", "label", 1), "has the columns label and activity; which of them is"),
    "several labels": (GOOD.replace("walk", '"walk;talk"'), "'walk;talk', which reads as several labels at once"),
    "a regression": (
        _text([(*row[:4], f"{row[0]}1") for row in _rows()]),
        r"holds too many different values for names of classes, such as 0\.401",
    ),
    "too short": (_text(_rows(3)), "has no 4 readings in a row of one person without a gap in time; the longest"),
    "one class": (_text(_rows(per_label=24)), "has training windows of 1 class"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_a_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        load(_write(tmp_path, text))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_label_is_proposed_where_none_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        load(_write(tmp_path, GOOD.replace("activity", "what", 1), None))
    assert caught.value.hint.startswith("Name it: echo 'label = \"what\"' > ")


def test_text_in_another_encoding(tmp_path):
    (tmp_path / "readings.csv").write_bytes(GOOD.replace("run", "gehört").encode("latin1"))
    with pytest.raises(InputError, match="is not text in UTF-8") as caught:
        load(str(tmp_path / "readings.csv"))
    assert caught.value.hint.startswith("iconv -f latin1")


DESCRIPTIONS = {
    "an unknown word": ("windw = 4", "windw is not known; did you mean window"),
    "another type": ('window = "long"', "window must be a whole number of at least 2, not 'long'"),
    "out of range": ("stride = 0", "stride must be a whole number of at least 1, not 0"),
    "no such column": ('label = "what"', "has no column what, which is the label by"),
    "no such channel": ('channels = ["z"]', "has no column z, which is the channels by"),
    "no such file": ('file = "other.csv"', "there is no"),
    "no TOML": ("window 4", "cannot be read as TOML"),
}


@pytest.mark.parametrize(("toml", "message"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_mistake_in_the_description(tmp_path, toml, message):
    _write(tmp_path, GOOD, toml)
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "readings.toml"))


def test_a_class_that_training_does_not_have(tmp_path):
    for split, text in (("train", GOOD), ("test", GOOD.replace("run", "jump"))):
        (tmp_path / split).mkdir()
        _write(tmp_path / split, text, None)
    (tmp_path / "readings.toml").write_text("window = 4\nstride = 2\n")
    with pytest.raises(InputError, match="the test split has samples of jump, of which training has none"):
        load(str(tmp_path))


def test_the_page_describes_its_example(tmp_path):
    page = (Path(__file__).parents[3] / "edge_trgl" / "data" / "README.md").read_text()
    (table,) = re.findall(r"^```\n(time,.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    header, *lines = table.splitlines()
    lines = [*lines * 64, *(line.replace("walking", "running") for line in lines * 64)]
    rows = [f"{number / 50}{line[line.index(',') :]}" for number, line in enumerate(lines)]
    text = "\n".join([header, *rows])
    default, described = load(_write(tmp_path, text, None)), load(_write(tmp_path, text, toml))
    assert described == replace(default, splits=described.splits, groups=described.groups)
    assert described.splits["train"].labels.tolist() == default.splits["train"].labels.tolist() == [1, 0]


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "BLOCK_ROWS", 256)
    peaks = []
    for num_rows in (1_000, 20_000):
        path = _write(tmp_path, _text(_rows(num_rows, 2, num_rows // 2)), "window = 32\n")
        tracemalloc.start()
        source = load(path)
        for windows in source.splits["train"].batches(np.arange(len(source.splits["train"].labels))):
            assert windows.shape[1:] == (32, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
