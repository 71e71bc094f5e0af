"""Errors of the user's own code are told as theirs, with their own lines; what is no classifier is refused."""

from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn

from edge_trgl.networks.cutting.cut import cut
from edge_trgl.networks.cutting.users_code import users_code
from edge_trgl.networks.open_net import open_net
from edge_trgl.runtime.errors import InputError, UsageError

SHAPE, CLASSES = (3, 8, 8), 5

CODE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.out = nn.Conv2d(3, 4, 3), nn.Linear(7, 5)

        def forward(self, x):
            return self.out(self.one(x).mean((2, 3)))

    class Helpless(Net):
        def forward(self, x):
            return self.helper(x)

        def helper(self, x):
            raise KeyError("colour")

    def build(num_classes):
        return nn.Linear(3, num_classes / 0)

    def fails(input_shape, num_classes):
        return build(num_classes)

    def leaves(input_shape, num_classes):
        raise SystemExit("usage: net.py DATA")

    def badly_sized(input_shape, num_classes):
        return Net()

    def in_forward(input_shape, num_classes):
        return Helpless()

    def takes_nothing():
        return Net()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module of the user's, and opens a model of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def open_model(name, code=CODE, module="users_models"):
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        return open_net(f"{module}:{name}", input_shape=SHAPE, num_classes=CLASSES)

    yield open_model
    import sys

    for module in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("name", "message", "lines"),
    [
        ("fails", r"your own code raised ZeroDivisionError: ", ["in fails", "in build"]),
        ("leaves", r"your own code raised SystemExit: usage: net.py DATA$", ["in leaves"]),
        (
            "badly_sized",
            r"raised RuntimeError in its forward, at users_models.py:\d+: ",
            ["in forward"],
        ),
        (
            "in_forward",
            r"raised KeyError in its forward, at users_models.py:\d+: 'colour'",
            ["in forward", "in helper"],
        ),
        ("takes_nothing", r"raised TypeError: takes_nothing\(\) got an unexpected keyword argument", []),
    ],
)
def test_the_users_errors_are_theirs(mine, name, message, lines):
    with pytest.raises(UsageError, match=f"^--model users_models:{name}: .*{message}") as told:
        mine(name)
    files = [line for line in told.value.hint.splitlines() if "File " in line]
    assert all("users_models.py" in line for line in files)
    assert [line.rpartition(", ")[2] for line in files] == lines


@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("def net(:\n", "raised SyntaxError", "def net(:"),
        ("import einops_that_is_not_there\n", "raised ModuleNotFoundError", "import einops_that_is_not_there"),
        ("x = undefined\n", "raised NameError", "x = undefined"),
    ],
)
def test_a_module_that_cannot_be_imported(mine, code, message, shown):
    with pytest.raises(UsageError, match=message) as told:
        mine("net", code, module="users_broken")
    assert shown in told.value.hint
    assert "importlib" not in told.value.hint


def test_a_refused_allocation_is_none_of_theirs():
    with pytest.raises(MemoryError), users_code("mine:net"):
        raise MemoryError


def test_an_error_of_a_librarys_model():
    with (
        pytest.raises(InputError, match=r"^--model timm:one fails: .*too small$"),
        users_code("timm:one"),
    ):
        raise ValueError("too small\nmuch")


class Body(nn.Module):
    def __init__(self, classes=CLASSES):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, classes)

    def classify(self, x):
        return self.out(self.two(self.one(x)).mean((2, 3)))


class Segmenting(Body):
    def forward(self, x):
        return self.two(self.one(x))


class Named(Body):
    def forward(self, x):
        return {"out": self.classify(x)}


class Chosen(Body):
    def forward(self, x):
        return self.classify(x).argmax(1)


class Whole(Body):
    def forward(self, x):
        return self.classify(x).round().long()


class Merged(Body):
    def forward(self, x):
        return self.classify(x).flatten()


class Classifying(Body):
    def forward(self, x):
        return self.classify(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Segmenting, r"gives \[4, 8, 8\] for each sample, not logits of 5 classes: it is no classifier"),
        (Named, "gives dict, not one tensor"),
        (Chosen, r"gives \[\] whole numbers for each sample"),
        (Whole, r"gives \[5\] whole numbers for each sample"),
        (Merged, r"gives \[\] for each sample"),
        (lambda: Classifying(7), "gives 7 logits, and the data has 5 classes"),
    ],
)
def test_what_is_no_classifier_of_these_classes_is_refused(make, message):
    with pytest.raises(InputError, match=f"^mine: the model('s forward)? {message}"):
        cut(make, name="mine", input_shape=SHAPE, num_classes=CLASSES)


def test_a_classifier_that_is_replaced_may_have_other_classes():
    net = cut(lambda: Classifying(7), name="mine", input_shape=SHAPE, num_classes=CLASSES, any_classifier=True)
    assert (net.num_logits, net.num_classes, net.classifier) == (7, 5, "out")
    assert (
        torch.Size([2, 4])
        == nn.Sequential(*(make() for make in net.chain().blocks))(torch.zeros(2, *SHAPE)).mean((2, 3)).shape
    )
