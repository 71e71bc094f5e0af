"""What the emulated board gets installed, and that nothing is done where it cannot be built."""

from __future__ import annotations

import json
import platform
import sqlite3

import pytest

CONSTRAINTS = """\
# A comment.
numpy==2.2.6; python_version < "3.11"
numpy==2.4.6; python_version >= "3.11"
torch==2.9.1; platform_machine == "aarch64"
torch==2.13.0; platform_machine != "aarch64"
xxhash==4.1.0
"""


def test_pins_are_those_of_the_board(tool):
    pins = tool("arm.root")._pins
    assert pins(CONSTRAINTS, []) == {"numpy": "2.4.6", "torch": "2.9.1", "xxhash": "4.1.0"}
    assert pins(CONSTRAINTS, ["torch==2.10.0"])["torch"] == "2.10.0"


def test_elsewhere_it_says_why_it_does_nothing(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    arguments = ["--root", str(tmp_path / "root"), "--logs", str(tmp_path / "logs"), "--json"]
    assert tool("arm.__main__").main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"skipped": "this machine is riscv64, not x86_64"}
    assert list(tmp_path.iterdir()) == []


class TestSteps:
    @pytest.fixture
    def once(self, tool, tmp_path, monkeypatch):
        """Do a step of that outcome; the document of it."""
        module = tool("arm.__main__")

        def once(outcome, *, again=False):
            def step(bench):
                if isinstance(outcome, str):
                    raise module.StepError(outcome)
                return outcome

            monkeypatch.setitem(module.STEPS, "plan", step)
            bench = module.Bench(root=None, logs=tmp_path, tests=())
            return module._once("plan", bench, again=again)

        return once

    def test_what_went_well_is_not_repeated(self, once):
        failed = once("broken")
        assert (failed["ok"], failed["error"]) == (False, "broken")
        assert once({"number": 1})["number"] == 1
        assert once({"number": 2})["number"] == 1
        assert once({"number": 3}, again=True)["number"] == 3

    def test_the_moment_to_kill_is_read_from_the_database(self, tool, tmp_path):
        position = tool("arm.__main__")._position
        assert position(tmp_path) == 0
        database = sqlite3.connect(tmp_path / "state.db")
        assert position(tmp_path) == 0
        with database:
            database.execute("CREATE TABLE run (position INTEGER)")
            database.execute("INSERT INTO run VALUES (7)")
        database.close()
        assert position(tmp_path) == 7

    def test_the_largest_difference_is_found_wherever_it_is(self, tool):
        document = {"exits": [{"max_abs_diff": 1e-9}, {"max_abs_diff": 3e-9, "depth": 2}], "files": ["a"]}
        assert tool("arm.__main__")._largest(document) == 3e-9

    def test_failures_are_named_and_counted(self, tool):
        module = tool("arm.__main__")
        said = "..F\nFAILED ../opt/edge-trgl/tests/a.py::test_it - assert 2 < 1\n1 failed, 2 passed in 3.00s\n"
        assert module._counted(said) == {
            "summary": "1 failed, 2 passed in 3.00s",
            "failures": ["tests/a.py::test_it"],
        }
        with pytest.raises(module.StepError, match="did not come to their end"):
            module._counted("..F\n")
