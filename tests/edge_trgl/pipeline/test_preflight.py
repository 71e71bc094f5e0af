"""What is refused before the data is read: models, devices and files that are not there."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from edge_trgl.api import begin, plan_of
from edge_trgl.config.model_names import FIXED, KM
from edge_trgl.config.sources import resolve
from edge_trgl.networks.catalogue import NETS
from edge_trgl.networks.cutting import libraries
from edge_trgl.pipeline import preflight
from edge_trgl.runtime.errors import InputError, UsageError

MINE = """
import os
from json import dumps as from_elsewhere
if os.name == "posix":
    def conditional(input_shape, num_classes): ...
assigned = unpacked, (also, _) = None, (None, None)
class Net: ...
"""


def check(**model):
    preflight.check(resolve({"model": model}))


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """Modules of the user's in the current folder; importing one of them fails."""
    (tmp_path / "my_nets.py").write_text(f"{MINE}raise SystemExit\n")
    (tmp_path / "my_open.py").write_text("from my_nets import *\n")
    (tmp_path / "my_broken.py").write_text("def (:\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "my_package" / "inner.py").write_text("def net(): ...\n")
    monkeypatch.chdir(tmp_path)


def test_the_names_are_those_of_the_catalogue():
    assert set(FIXED) == set(NETS)


@pytest.mark.parametrize("name", ["km-10-1", "km-20-1-encoder", *FIXED])
def test_a_model_of_the_catalogue(name):
    check(name=name)


@pytest.mark.parametrize("name", ["km-0-1", "km-1", "km-01-1", "resnet10", "a net"])
def test_no_model_of_the_catalogue(name):
    assert not KM.fullmatch(name)
    with pytest.raises(UsageError, match="there is no model"):
        check(name=name)


@pytest.mark.parametrize(
    "name",
    [
        "my_nets:conditional",
        "my_nets:from_elsewhere",
        "my_nets:assigned",
        "my_nets:also",
        "my_nets:Net",
        "my_open:anything",
        "my_broken:anything",
        "my_package.inner:net",
        "math:floor",
    ],
)
def test_a_function_of_the_users(name):
    check(name=name)
    assert "my_nets" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_nets:Nett", "my_nets.py has no attribute 'Nett'"),
        ("my_nests:Net", "there is no module my_nests"),
        ("my_package.outer:net", "there is no module my_package.outer"),
        ("my_nets.deeper:net", "there is no module my_nets.deeper"),
    ],
)
def test_no_function_of_the_users(name, message):
    with pytest.raises(InputError, match=message):
        check(name=name)


@pytest.mark.parametrize(
    ("right", "wrong", "near"),
    [
        ("torchvision:resnet18", "torchvision:resnet19", "resnet18"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tinny_patch16_224", "vit_tiny_patch16_224"),
    ],
)
def test_models_of_libraries(right, wrong, near):
    package = right.partition(":")[0]
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    check(name=right)
    with pytest.raises(UsageError, match=f"{package} has no model") as told:
        check(name=wrong)
    assert near in told.value.hint


@pytest.mark.slow
def test_every_model_that_a_library_lists_is_known():
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("needs timm and torchvision")
    timm, models = libraries._import("timm"), libraries._import("torchvision.models")
    for package, names in (("timm", timm.list_models()[::60]), ("torchvision", models.list_models(models)[::8])):
        for name in names:
            check(name=f"{package}:{name}")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(preflight, "_found", lambda package: None)
    with pytest.raises(InputError, match="--model timm:resnet18 needs timm") as told:
        check(name="timm:resnet18")
    assert told.value.hint == "pip install timm"


def test_a_pretrained_file_that_is_not_there():
    with pytest.raises(InputError, match=r"weights.pth: there is no such file"):
        check(name="km-2-1", pretrained="weights.pth")


class TestDevice:
    def check(self, monkeypatch, cuda, code):
        version = type("Version", (), {"read_text": lambda self: f"cuda: Optional[str] = {cuda}\nhip = None\n"})()
        monkeypatch.setattr(preflight.Path, "read_text", lambda path: version.read_text())
        done = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: done)
        preflight.check(resolve({"train": {"device": "cuda"}}))

    def test_a_device(self, monkeypatch):
        self.check(monkeypatch, "'12.8'", 0)

    def test_a_torch_without_cuda(self, monkeypatch):
        with pytest.raises(UsageError, match="built for the CPU alone"):
            self.check(monkeypatch, "None", 0)

    def test_no_device(self, monkeypatch):
        with pytest.raises(UsageError, match="there is no CUDA device here"):
            self.check(monkeypatch, "'12.8'", 1)


@pytest.mark.parametrize("begun", [lambda config: begin("run", config), plan_of])
def test_nothing_is_written_for_what_is_refused(tmp_path, begun):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="there is no model"):
        begun(resolve({"model": {"name": "resnet10"}}))
    assert sorted(tmp_path.iterdir()) == before
