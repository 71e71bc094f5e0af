"""Answers as lines."""

from __future__ import annotations

import csv
import json

from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.deploy.answers import Answer, Guess, as_csv, as_json, as_text, csv_header

CAT = Guess(label="cat", index=0, probability=0.9731)
DOG = Guess(label="dog, old", index=1, probability=0.0192)

# With what a file name may hold: anything but NUL, and bytes that are no UTF-8.
NAMES = st.text(st.characters(codec=None, blacklist_characters="\0"), min_size=1)


def test_text():
    assert as_text(Answer(file="a.jpg", top=(CAT, DOG))) == "a.jpg  cat 97.3%  dog, old 1.9%"
    assert as_text(Answer(file="w.npz", sample=0, top=(CAT,))) == "w.npz[0]  cat 97.3%"
    early = Answer(file="a.jpg", top=(CAT,), exit_number=2, compute_share=0.5)
    assert as_text(early) == "a.jpg  cat 97.3%  exit 2"
    assert as_text(Answer(file="a.jpg", error="a.jpg is empty")) == "a.jpg is empty"


def test_json():
    assert json.loads(as_json(Answer(file="w.npz", sample=0, top=(CAT,), exit_number=1, compute_share=0.25))) == {
        "file": "w.npz",
        "sample": 0,
        "top": [{"label": "cat", "index": 0, "probability": 0.9731}],
        "exit": 1,
        "compute_share": 0.25,
    }
    assert json.loads(as_json(Answer(file="a", error="bad"))) == {"file": "a", "error": "bad"}


def test_csv():
    lines = [
        csv_header(2),
        as_csv(Answer(file="w.npz", sample=0, top=(CAT, DOG), exit_number=1, compute_share=0.25)),
        as_csv(Answer(file="b.jpg", error='no "image"')),
    ]
    good, bad = csv.DictReader(lines)
    assert good == {
        "file": "w.npz",
        "sample": "0",
        "error": "",
        "exit": "1",
        "compute_share": "0.250000",
        "label_1": "cat",
        "probability_1": "0.973100",
        "label_2": "dog, old",
        "probability_2": "0.019200",
    }
    assert bad["file"] == "b.jpg"
    assert bad["error"] == 'no "image"'


@given(NAMES, NAMES)
def test_one_line_whatever_a_file_is_called(name, reason):
    for answer in (Answer(file=name, top=(CAT,)), Answer(file=name, error=reason)):
        for form in (as_text, as_json, as_csv):
            line = form(answer)
            assert len(line.splitlines()) == 1
            line.encode()
        assert json.loads(as_json(answer))["file"] == name
