"""Every program says what it shows, under the command that its page names, and has --quick and --json."""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"): path
    for path in sorted((ROOT / "tools").rglob("*.py"))
    if ", __doc__)" in path.read_text()
}


HELP = """
import contextlib, io, json, runpy, sys

found = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    shown, code = io.StringIO(), None
    with contextlib.redirect_stdout(shown):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    found[name] = [code, shown.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def shown():
    """The exit code and the words of every program with --help, by its name; one process for all of them."""
    return own_process.result_of("-c", HELP, *PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_says_what_it_shows_and_has_quick_and_json(shown, name):
    code, words = shown[name]
    assert code == 0
    assert "--quick" in words
    assert "--json" in words
    document = PROGRAMS[name].read_text().split('"""')[1]
    assert f"python -m {name} " in document
    assert words.startswith(f"usage: python -m {name} ")
    assert document.splitlines()[0] in " ".join(words.split())


def test_few_files_lie_flat():
    flat = {path.name for path in (ROOT / "tools").iterdir() if path.is_file()}
    assert flat == {"__init__.py", "fingerprints.py", "make_sample.py"}
