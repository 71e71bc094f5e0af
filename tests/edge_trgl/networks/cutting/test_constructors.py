"""What a constructor may do with its weights: they have no values if none is needed, else they are in a file."""

from __future__ import annotations

import copy
import textwrap

import own_process
import pytest
import torch
from nearness import assert_near
from torch import nn

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.cutting import weights_in_file as in_file
from edge_trgl.networks.cutting.cut import cut
from edge_trgl.networks.cutting.first_weights import FirstWeights, tensors_of
from edge_trgl.networks.cutting.weights_in_file import build_in_file
from edge_trgl.networks.cutting.without_weights import NeedsValuesError, build_without_weights
from edge_trgl.networks.open_net import open_net
from edge_trgl.random_keys import key

SHAPE, CLASSES = (3, 8, 8), 5

INITIALISERS = {
    "uniform_": (),
    "normal_": (),
    "trunc_normal_": (),
    "constant_": (0.25,),
    "ones_": (),
    "zeros_": (),
    "xavier_uniform_": (),
    "xavier_normal_": (),
    "kaiming_uniform_": (),
    "kaiming_normal_": (),
    "orthogonal_": (),
    "sparse_": (0.5,),
    "eye_": (),
    "dirac_": (),
}


def test_every_initialiser_is_here():
    here = {name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")}
    assert here == set(INITIALISERS)


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.out(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


def initialised(name):
    """A class whose constructor calls one initialiser."""

    class Initialised(Small):
        def __init__(self):
            super().__init__()
            wrong = {"sparse_": nn.Conv2d, "eye_": nn.Conv2d, "dirac_": nn.Linear}.get(name, nn.Identity)
            for part in self.children():
                if not isinstance(part, wrong):
                    getattr(nn.init, name)(part.weight, *INITIALISERS[name])

    return Initialised


class Copied(Small):
    def __init__(self):
        super().__init__()
        self.two = copy.deepcopy(nn.Conv2d(6, 6, 3))


class Read(Small):
    def __init__(self):
        super().__init__()
        self.factor = float(self.one.weight.abs().max())
        self.bias = self.two.weight.std().item()
        with torch.no_grad():
            self.two.weight.div_(self.factor)


class Derived(Small):
    """A weight of one layer decides that of another, which nothing refuses on tensors without values."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.two.weight[:, :3].copy_(self.one.weight)


class FromAnother(Small):
    def __init__(self):
        super().__init__()
        self.two.weight = nn.Parameter(self.two.weight.detach() * 2)


class Buffered(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", self.one.weight.abs().mean())

    def forward(self, x):
        return super().forward(x * self.scale)


class Encoder(nn.Module):
    def __init__(self, width=16, layers=2):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.stem, self.layers = nn.Conv2d(3, width, 4, 4), nn.TransformerEncoder(layer, layers)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.out(self.layers(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


NEED_VALUES = (Copied, Read, Derived, FromAnother, Buffered, Encoder)


def filled(make, seed=3):
    """The blocks of a model with their first weights, and its net."""
    net = cut(make, name="mine", input_shape=SHAPE, num_classes=CLASSES)
    first_weights, blocks = FirstWeights(net, make, seed), [factory() for factory in net.chain().blocks]
    for number, block in enumerate(blocks):
        first_weights.fill(number, block)
    return net, blocks


class TestInitialisers:
    @pytest.mark.parametrize("name", sorted({*INITIALISERS} - {"eye_"}))  # its `out` must be where the default is
    def test_are_run_without_values(self, name):
        build_without_weights(initialised(name))

    @pytest.mark.parametrize("name", INITIALISERS)
    def test_give_what_they_give_in_the_models_own_constructor(self, name):
        """Of one block the weights are drawn alone, so a constant shows which initialiser they came from."""
        make = initialised(name)
        net, blocks = filled(make)
        torch.manual_seed(0)
        expected = dict(make().named_parameters())
        for number, block in enumerate(blocks):
            tensors = tensors_of(block)
            for own, model_name in net.names(number, tensors).items():
                found, wanted = tensors[own], expected[model_name].detach()
                assert not found.is_meta
                assert found.isfinite().all()
                if wanted.unique().numel() < 4:
                    assert torch.equal(found, wanted)
                else:
                    assert found.std().item() == pytest.approx(wanted.std().item(), rel=0.5, abs=1e-6)


class TestInAFile:
    @pytest.mark.parametrize("make", NEED_VALUES)
    def test_what_needs_values_is_found_out(self, make):
        with pytest.raises((NeedsValuesError, RuntimeError, NotImplementedError)):
            build_without_weights(make)

    def test_what_needs_none_is_built_without(self):
        _, positions = build_without_weights(Small)
        assert len(positions) == 6

    @pytest.mark.parametrize("make", NEED_VALUES)
    def test_first_weights_are_the_constructors_under_the_same_seed(self, make):
        net, blocks = filled(make, seed=3)
        torch.manual_seed(key(3, "build"))
        expected = make().state_dict()
        for number, block in enumerate(blocks):
            tensors = tensors_of(block)
            for own, name in net.names(number, tensors).items():
                assert torch.equal(tensors[own], expected[name]), name

    @pytest.mark.parametrize("make", NEED_VALUES)
    def test_the_chain_is_the_model(self, make):
        net, blocks = filled(make, seed=3)
        torch.manual_seed(key(3, "build"))
        model, x = make().eval(), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            features = nn.Sequential(*blocks).eval()(x)
            features = features.flatten(2).mean(2) if features.dim() > 2 else features
            assert_near(model.get_submodule(net.classifier)(features), model(x))

    @pytest.mark.parametrize("folder", [None, "here"])
    def test_values_come_back_from_the_file(self, tmp_path, monkeypatch, folder):
        monkeypatch.setattr(in_file, "_IN_MEMORY_BYTES", 1)
        monkeypatch.setattr(in_file, "_TOUCHED_BYTES", 64)
        model, weights = build_in_file(Encoder, tmp_path if folder else None, seed=5)
        torch.manual_seed(5)
        expected = Encoder().state_dict()
        weights.drop_pages()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_a_fraction_of_the_weights_is_in_memory(self, tmp_path):
        """Also while the constructor goes through all of them once more."""
        code = """
            import json, sys, torch
            from pathlib import Path
            from torch import nn
            from edge_trgl.networks.cutting.weights_in_file import build_in_file
            from edge_trgl.runtime.memory import high_water

            def make(width):
                layer = nn.TransformerEncoderLayer(width, 4, 4 * width)
                model = nn.TransformerEncoder(layer, 8)
                for weight in model.parameters():
                    nn.init.normal_(weight)
                return model

            build_in_file(lambda: make(16), Path(sys.argv[1]))  # loads the kernels
            before = high_water.peak_mb()
            model, _ = build_in_file(lambda: make(512), Path(sys.argv[1]))
            size = sum(weight.nbytes for weight in model.parameters()) / 2**20
            print(json.dumps([size, high_water.peak_mb() - before]))
        """
        size, grown = own_process.result_of("-c", textwrap.dedent(code), tmp_path)
        assert size > 90
        assert grown < size / 2

    def test_an_error_leaves_torch_as_it_was(self):
        before = nn.Module.register_parameter, nn.Parameter.__deepcopy__
        with pytest.raises(ZeroDivisionError):
            build_in_file(lambda: 1 / 0, None)
        assert before == (nn.Module.register_parameter, nn.Parameter.__deepcopy__)

    def test_shared_weights_stay_shared(self, monkeypatch):
        monkeypatch.setattr(in_file, "_IN_MEMORY_BYTES", 1)

        def tied():
            one, other = nn.Linear(3, 3), nn.Linear(3, 3)
            other.weight = one.weight
            return copy.deepcopy(nn.Sequential(one, other))

        model, _ = build_in_file(tied, None)
        assert model[0].weight is model[1].weight


class Doubled(nn.Module):
    """A block of a chain that looks at its own weight, and has a table that no file of weights holds."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.factor = 1 + 0 * self.conv.weight.std().item()
        self.register_buffer("table", torch.full((1,), 2.0), persistent=False)

    def forward(self, x):
        return self.conv(x) * self.factor * self.table


class TestChains:
    def chain(self):
        return Chain.from_blocks([Doubled, Doubled], input_shape=SHAPE, num_classes=CLASSES)

    def test_a_block_that_needs_values_is_built_on_the_device_meta(self):
        with torch.device("meta"):
            trunk = self.chain().trunk(0)
        assert all(weight.is_meta for weight in trunk.parameters())
        assert trunk[0].table.item() == 2

    def test_its_module_keeps_its_table(self):
        with torch.device("meta"):
            local = LocalModule(self.chain(), 0, SHAPE, StepConfig(transport=Transport(tau=None)))
        assert local.materialise("cpu").trunk[0].table.item() == 2

    def test_an_error_is_still_one(self):
        chain = Chain.from_blocks([lambda: 1 / 0], input_shape=SHAPE, num_classes=CLASSES)
        with pytest.raises(ZeroDivisionError), torch.device("meta"):
            chain.trunk(0)

    def test_a_factory_of_a_chain_may_read_weights(self, tmp_path, monkeypatch):
        code = "from torch import nn\nfrom edge_trgl.networks.chain import Chain\n"
        code += "def net(input_shape, num_classes):\n    conv = nn.Conv2d(3, 3, 1)\n    float(conv.weight.sum())\n"
        code += "    return Chain.from_blocks([conv], input_shape=input_shape, num_classes=num_classes)\n"
        (tmp_path / "my_reading_chain.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        assert open_net("my_reading_chain:net", input_shape=SHAPE, num_classes=CLASSES) is None
