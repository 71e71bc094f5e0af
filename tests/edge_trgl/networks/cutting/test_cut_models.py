"""Models that cannot be cut, and why; models without their weights; models of torchvision and timm."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from nearness import assert_near
from torch import nn

from edge_trgl.networks.cutting.cut import cut
from edge_trgl.networks.cutting.first_weights import FirstWeights, copy_by_name, tensors_of
from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.networks.cutting.without_weights import parameters_on_meta
from edge_trgl.networks.open_net import open_net
from edge_trgl.runtime.errors import InputError, UsageError

SHAPE, CLASSES = (3, 8, 8), 5


class Base(nn.Module):
    """Two convolutions and a classifier, for forwards that cannot be followed."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, CLASSES)

    def classify(self, x):
        return self.out(x.mean((2, 3)))


class ByValue(Base):
    def forward(self, x):
        x = self.one(x)
        return self.classify(self.two(x) if x.sum() > 0 else x)  # by value


class ByMode(Base):
    def forward(self, x):
        x = self.one(x)
        return self.classify(self.two(x + torch.rand_like(x) if self.training else x))


class BySize(Base):
    def forward(self, x):
        x = self.one(x)
        return self.classify(self.two(x.relu() if len(x) > 2 else x))


class ByOddSize(Base):
    def forward(self, x):
        return self.classify(self.two(self.one(x)).roll(len(x) + 1, 0))


class Counting(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(1)
        return self.classify(self.two(self.one(x)))


class Custom(Base):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

    def forward(self, x):
        return self.classify(self.two(Custom.Twice.apply(self.one(x))))


class TwoOutputs(Base):
    def forward(self, x):
        x = self.one(x)
        return self.classify(x), self.classify(self.two(x))


class LongShortcut(Base):
    def forward(self, x):
        return self.classify(self.two(self.one(x))) + x.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ByValue, r"cannot be followed at test_cut_models.py:\d+: RuntimeError: Tensor.item"),
        (ByMode, r"what it computes at test_cut_models.py:\d+ depends on whether it is in training mode"),
        (BySize, r"what it computes at test_cut_models.py:\d+ depends on the batch size"),
        (
            ByOddSize,
            r"at test_cut_models.py:\d+ in the model, torch.Tensor.roll is given 3 and 4 for batches of 2 and 3",
        ),
        (Counting, r"test_cut_models.py:\d+ changes its own seen"),
        (Custom, r"test_cut_models.py:\d+ calls Twice, an autograd function"),
        (TwoOutputs, r"gives tuple, not one tensor"),
        (
            LongShortcut,
            r"at no place between its layers is a single batch of samples alive; at .*, there are [23]",
        ),
    ],
)
def test_what_cannot_be_cut_is_told_with_its_place(kind, message):
    with pytest.raises(InputError, match=f"^mine: .*{message}"):
        cut(kind, name="mine", input_shape=SHAPE, num_classes=CLASSES)


class TestParametersOnMeta:
    def test_no_weight_is_held(self):
        with parameters_on_meta() as made:
            model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        assert all(weight.is_meta for weight in model.parameters())
        assert not any(buffer.is_meta for buffer in model.buffers())
        assert len(made) == 4
        assert not nn.Linear(1, 1).weight.is_meta

    def test_shared_weights_stay_shared(self):
        with parameters_on_meta() as made:
            one, other = nn.Linear(3, 3), nn.Linear(3, 3)
            other.weight = one.weight
        assert other.weight is one.weight
        assert len(made) == 4

    def test_an_error_leaves_everything_as_it_was(self):
        before = nn.Module.register_parameter
        with pytest.raises(ZeroDivisionError), parameters_on_meta():
            _ = 1 / 0
        assert nn.Module.register_parameter is before


class Scaled(Base):
    """Draws its weights in its own way, and has a parameter that belongs to no layer of torch."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 1, 1), 1e-3))
        for part in (self.one, self.two):
            nn.init.uniform_(part.weight, 5, 6)

    def forward(self, x):
        return self.classify(self.scale * self.two(torch.relu(self.one(x))))


class TestFirstWeights:
    def blocks(self, seed):
        net = cut(Scaled, name="mine", input_shape=SHAPE, num_classes=CLASSES)
        first_weights, blocks = FirstWeights(net, Scaled, seed), [factory() for factory in net.chain().blocks]
        for number, block in enumerate(blocks):
            first_weights.fill(number, block)
        return blocks

    def test_are_those_of_the_models_own_constructor(self):
        first, second = self.blocks(seed=1)
        for weight in (first.net.one.weight, second.net.two.weight):
            assert 5 <= weight.min() <= weight.max() <= 6
        assert second.net.scale.unique().item() == pytest.approx(1e-3)

    def test_depend_on_the_seed_and_the_block_alone(self):
        first, again, other = (
            [tensor for block in self.blocks(seed) for tensor in block.parameters()] for seed in (1, 1, 2)
        )
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[0].flatten(), first[-2].flatten()[: first[0].numel()])

    def test_of_one_block_alone_are_held(self):
        """In the constructor, only the weights of the block have values."""
        held = []

        class Watched(Scaled):
            def __init__(self):
                super().__init__()
                held.append([name for name, weight in self.named_parameters() if not weight.is_meta])

        net = cut(Watched, name="mine", input_shape=SHAPE, num_classes=CLASSES)
        first_weights, blocks = FirstWeights(net, Watched, 0), [factory() for factory in net.chain().blocks]
        for number, block in enumerate(blocks):
            first_weights.fill(number, block)
        assert held == [[], [], ["one.weight", "one.bias"], ["scale", "two.weight", "two.bias"]]


def test_the_users_own_that_is_neither(tmp_path, monkeypatch):
    (tmp_path / "my_wrong.py").write_text("def wrong(*, input_shape, num_classes):\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(InputError, match="--model my_wrong:wrong: the factory returned int, neither a Chain nor"):
        open_net("my_wrong:wrong", input_shape=SHAPE, num_classes=CLASSES)


# ---- libraries

NAMES = {
    "torchvision:resnet18": 32,
    "torchvision:mobilenet_v2": 32,
    "torchvision:vgg11_bn": 32,
    "torchvision:swin_t": 64,
    "timm:mobilenetv3_small_050": 32,
    "timm:vit_tiny_patch16_224": 32,
    "timm:convnext_atto": 32,
}
"""Some of the smaller models, with the side of an image; tools/models/cut.py tries them all."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_librarys_model_is_its_chain(name):
    factory = library_model(name, (3, NAMES[name], NAMES[name]))
    net = cut(factory, name=name, input_shape=(3, NAMES[name], NAMES[name]), num_classes=CLASSES)
    model = factory().eval()
    values = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    x = torch.randn(3, 3, NAMES[name], NAMES[name], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        expected = model(x)
        for number, make in enumerate(net.chain().blocks):
            block = make().eval()
            tensors = tensors_of(block)
            copy_by_name(values, tensors, net.names(number, tensors))
            x = block(x)
        features = x.flatten(2).mean(2) if x.dim() > 2 else x
        found = model.get_submodule(net.classifier)(features)
    assert_near(found, expected)


def library_model(name, shape):
    try:
        return model_factory(name, shape, CLASSES)
    except InputError as error:
        pytest.skip(error.message)


class TestLibraries:
    def test_an_unknown_name(self):
        library_model("torchvision:resnet18", SHAPE)
        with pytest.raises(UsageError, match="torchvision has no model 'resnet19'"):
            model_factory("torchvision:resnet19", SHAPE, CLASSES)

    def test_other_channels_than_torchvision_reads(self):
        with pytest.raises(UsageError, match="read 3 channels; the data has 1"):
            model_factory("torchvision:resnet18", (1, 8, 8), CLASSES)

    @pytest.mark.slow
    @pytest.mark.parametrize("suits", [True, False])
    def test_a_compiled_part_that_suits_torch_or_does_not(self, tmp_path, suits):
        """A compiled part that loads defines two operators; without it, the import needs them to be defined."""
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(
            textwrap.dedent(f"""
            from torch import library
            if {suits}:
                compiled = library.Library("torchvision", "DEF")
                for name in ("nms", "qnms"):
                    compiled.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
            library.register_fake("torchvision::qnms")(lambda dets, scores, iou_threshold: dets)
            """)
        )
        lines = (
            "import torch",
            "list_models = lambda models: ['one']",
            "get_model = lambda *_, **options: torch.nn.ReLU()",
        )
        (package / "models.py").write_text("\n".join(lines))
        code = f"""
            import sys
            sys.path.insert(0, {str(tmp_path)!r})
            from edge_trgl.networks.cutting.libraries import model_factory
            print(*(model_factory("torchvision:one", (3, 8, 8), 2)() for _ in range(2)))
        """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ReLU() ReLU()\n"

    @pytest.mark.slow
    def test_blocks_are_built_without_a_library(self):
        """Building them does not load what tracing would, either."""
        code = """
            import json, sys, torch
            from torch import nn
            from edge_trgl.networks.cutting.cut import cut
            from edge_trgl.networks.cutting.net import Net
            layers = lambda: (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 2))
            make = lambda: nn.Sequential(*layers())
            if sys.argv[1:]:
                net = Net.from_document(json.load(sys.stdin))
                trunk = nn.Sequential(*(factory() for factory in net.chain().blocks))
                trunk(torch.zeros(2, 3, 8, 8)).sum().backward()
                print(sorted({"torch._dynamo", "sympy", "torchvision", "timm"} & set(sys.modules)))
            else:
                print(json.dumps(cut(make, name="mine", input_shape=(3, 8, 8), num_classes=2).document()))
        """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        document = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        loaded = subprocess.run([*command, "build"], input=document, capture_output=True, text=True, check=True)
        assert loaded.stdout.strip() == "[]"
