"""Every command that a message suggests can be pasted: it ends the hint, and the command line takes it."""

from __future__ import annotations

import ast
import contextlib
import shlex
from pathlib import Path

import click
import pytest

from edge_trgl.cli.command import VERBS, cli
from edge_trgl.runtime.errors import RESUME, StoppedError, command

ROOT = Path(__file__).parents[2]
HINTS = {"hint", "_RESUME", "_FULL_HINT", "DAMAGED_HINT"}
"""Names under which hints stand in the code."""
FOLDER = "my run"


def _rendered(node):
    """The text of a hint, with a folder for RESUME and a number for every other value that it takes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_rendered, node.values))
    if isinstance(node, ast.FormattedValue):
        return _rendered(node.value)
    if isinstance(node, ast.Name) and node.id == "RESUME":
        return RESUME
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command":
        return command(*(one.value if isinstance(one, ast.Constant) else FOLDER for one in node.args))
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_more":
        return " --budget-mb 300"
    return "300"


def _hints():
    for file in sorted([*ROOT.glob("edge_trgl/**/*.py"), *ROOT.glob("runtime/**/*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if (isinstance(node, ast.keyword) and node.arg in HINTS) or (
                isinstance(node, ast.Assign) and HINTS & {getattr(one, "id", "") for one in node.targets}
            ):
                yield file, _rendered(node.value)


COMMANDS = {text: file for file, text in _hints() if any(f"edge-trgl {verb}" in text for verb in VERBS)}


def test_there_are_such_hints():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("hint", COMMANDS)
def test_a_suggested_command_is_one(hint):
    error = StoppedError("stopped", hint=hint)
    error.name_run(Path(FOLDER))
    assert "`" not in error.hint
    before, _, after = error.hint.partition("edge-trgl ")
    assert not before or before.endswith(": "), f"{error.hint}: say what it is for, a colon, and the command"
    verb, *words = shlex.split(after)
    with cli.make_context("edge-trgl", [verb], ignore_unknown_options=True) as group:
        known = cli.get_command(group, verb)
        assert known is not None, verb
        with contextlib.suppress(click.exceptions.Exit):  # --help-all has done its work
            known.make_context(verb, words, parent=group)
    assert not {"RUN", "N", "PATH", "FOLDER"} & set(words)


def test_the_folder_is_quoted():
    error = StoppedError("stopped", hint=f"To go on: {RESUME} --budget-mb 300")
    error.name_run(Path("my runs/it's 1"))
    _, resume, folder, *options = shlex.split(error.hint.removeprefix("To go on: "))
    assert (resume, folder, options) == ("resume", "my runs/it's 1", ["--budget-mb", "300"])


@pytest.mark.parametrize(
    ("options", "said"),
    [("", "To go on: try again"), (" --budget-mb 300", "To go on: try again with --budget-mb 300")],
)
def test_without_a_run_to_continue(options, said):
    error = StoppedError("stopped", hint=f"To go on: {RESUME}{options}")
    error.name_run(None)
    assert error.hint == said


def test_words_of_a_command_are_quoted():
    assert command("export", Path("a b"), "--depth", 3) == "edge-trgl export 'a b' --depth 3"
