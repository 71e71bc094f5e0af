"""What a user is told of a package that is not installed."""

from __future__ import annotations

import pytest

from edge_trgl.runtime.errors import UsageError, missing_package, require_package
from edge_trgl.runtime.processes.supervisor import run_child

JOB = """
import sys
sys.modules["numpy"] = None  # as if it was not installed
sys.argv[1:] = ["prepare", "nowhere", "{}"]
from edge_trgl.jobs.__main__ import main
sys.exit(main())
"""


def test_what_is_needed_is_looked_for_before_the_work_begins():
    require_package("json", "training")
    with pytest.raises(UsageError, match="training needs no_such_package, which is not installed") as caught:
        require_package("no_such_package", "training")
    assert "pip install edge-trgl" in caught.value.hint


def test_a_failed_import_of_a_package_is_explained():
    error = missing_package(ModuleNotFoundError(name="torch.nn"), "this command")
    assert error is not None
    assert error.message == "this command needs torch, which is not installed here"


def test_a_failed_import_of_anything_else_is_not():
    assert missing_package(ModuleNotFoundError(name="my_model"), "this command") is None
    assert missing_package(ModuleNotFoundError(), "this command") is None


def test_a_job_without_a_package_says_so():
    with pytest.raises(UsageError, match="the job prepare needs numpy, which is not installed"):
        run_child(["-c", JOB], on_message=lambda message: None)
