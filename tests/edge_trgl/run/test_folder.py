"""Run folders: made, found, refused, held by one process."""

from __future__ import annotations

import json

import pytest

from edge_trgl.config.sources import resolve
from edge_trgl.run.folder import Run, newest_unfinished, numbered
from edge_trgl.runtime.errors import StorageError, UsageError
from edge_trgl.runtime.storage import files

CONFIG = resolve({"train": {"lr": 0.3, "epochs": "7"}, "data": {"limit": 50}})


def test_a_new_run_keeps_its_configuration(tmp_path):
    made = Run.create(tmp_path / "deep" / "run", CONFIG)
    assert Run.open(made.folder).config() == CONFIG
    assert [path.name for path in made.folder.iterdir()] == ["run.toml"]
    assert made.summary() is None


def test_an_empty_folder_is_taken(tmp_path):
    assert Run.create(tmp_path, CONFIG).config() == CONFIG


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UsageError, match="is neither a run nor empty") as caught:
        Run.create(tmp_path, CONFIG)
    assert str(tmp_path) in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_what_a_kill_left_of_the_first_file_is_in_nobodys_way(tmp_path):
    files.temporary_of(Run(tmp_path).config_file).write_text("[da")
    assert Run.create(tmp_path, CONFIG).config() == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_a_name_that_cannot_be_written_down_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match="is not valid UTF-8"):
        Run.create(tmp_path / "r\udcff", resolve({}))
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is neither a run nor empty"):
        Run.create(tmp_path / "run", CONFIG)
    with pytest.raises(StorageError, match="cannot be created: Not a directory"):
        Run.create(tmp_path / "run" / "inner", CONFIG)


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_is_not_a_run_cannot_be_opened(tmp_path, name):
    with pytest.raises(UsageError, match=r"is not a run: it has no run\.toml"):
        Run.open(tmp_path / name)


def test_the_summary(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    run.summary_file.write_text(json.dumps({"accuracy": 0.5}))
    assert run.summary() == {"accuracy": 0.5}


def test_a_run_is_held_by_one_at_a_time(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    with run.locked():
        with pytest.raises(UsageError, match="is in use by another process"), Run(tmp_path).locked():
            pass
        with pytest.raises(UsageError), run.locked():
            pass
    with Run(tmp_path).locked():
        pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match="lock"), run.locked():
        pass


def test_a_run_is_let_go_after_an_error(tmp_path):
    run = Run.create(tmp_path, CONFIG)
    with pytest.raises(KeyError), run.locked():
        raise KeyError
    with run.locked():
        pass


def test_runs_are_numbered(tmp_path):
    assert numbered(tmp_path / "missing") == tmp_path / "missing" / "0001"
    for name in ("0002", "0010", "notes", "7x"):
        (tmp_path / name).mkdir()
    (tmp_path / "0099").write_text("a file")
    assert numbered(tmp_path) == tmp_path / "0011"


def test_numbers_grow_beyond_four_digits(tmp_path):
    (tmp_path / "9999").mkdir()
    assert numbered(tmp_path).name == "10000"


def test_the_newest_run_without_a_summary(tmp_path):
    assert newest_unfinished(tmp_path / "missing") is None
    runs = [Run.create(tmp_path / f"{number:04d}", CONFIG) for number in range(1, 5)]
    (tmp_path / "0005").mkdir()  # has no configuration
    runs[3].summary_file.write_text("{}")
    assert newest_unfinished(tmp_path).folder == runs[2].folder
    for run in runs:
        run.summary_file.write_text("{}")
    assert newest_unfinished(tmp_path) is None
