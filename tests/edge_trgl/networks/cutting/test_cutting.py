"""Any model as a chain of blocks: where it is cut, that the chain computes the same, and how it trains."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest
import torch
from cutting_zoo import CLASSES, IMAGE, MODELS, Gated, Residual, Tokens
from nearness import assert_near
from torch import nn
from torch.nn import functional

from edge_trgl.config.sources import resolve
from edge_trgl.export.graph.stage import Stage
from edge_trgl.export.graph.trace import trace
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.transport import Transport, marks_of, penalised
from edge_trgl.networks.catalogue import build_chain
from edge_trgl.networks.chain import Pieces
from edge_trgl.networks.cutting.cut import cut
from edge_trgl.networks.cutting.first_weights import copy_by_name, tensors_of
from edge_trgl.networks.cutting.net import Net
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.planning import count
from edge_trgl.run.folder import Run


def cut_up(model, shape=IMAGE):
    """The net, after a round trip through the JSON of a run."""
    net = cut(model, name="mine", input_shape=shape, num_classes=CLASSES)
    return Net.from_document(json.loads(json.dumps(net.document())))


def filled(net, model):
    """The blocks of `net` with the tensors of `model`."""
    values = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    blocks = [factory() for factory in net.chain().blocks]
    for number, block in enumerate(blocks):
        tensors = tensors_of(block)
        names = net.names(number, tensors)
        assert set(names.values()) <= values.keys() | {"constant0"}
        copy_by_name(values, tensors, names)
    return nn.Sequential(*blocks)


def logits(net, trunk, model, x):
    features = trunk(x)
    features = features.flatten(2).mean(2) if features.dim() > 2 else features
    return model.get_submodule(net.classifier)(features)


def disturbed(model, seed=0):
    """The model with other weights: a weight that is initialised with zeros would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def images(size, shape=IMAGE, seed=1):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed))


class TestTheChainIsTheModel:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("size", [1, 4])
    def test_in_evaluation(self, name, size):
        kind, shape = MODELS[name]
        net, model = cut_up(kind, shape), disturbed(kind()).eval()
        x = images(size, shape)
        with torch.no_grad():
            found = logits(net, filled(net, model).eval(), model, x)
            assert_near(found, model(x))

    def test_in_training_with_the_same_draws(self):
        """Outputs and running statistics are equal bit for bit, without the dropout before the classifier."""
        net, model = cut_up(Residual), disturbed(Residual())
        model.drop.p, trunk = 0.0, filled(net, model)
        x = images(4)
        out, expected = trunk(x), model.blocks(model.pool(model.stem(x)))
        assert torch.equal(out, expected)
        assert torch.equal(trunk[-1].net.bn2.running_var, model.blocks[-1].bn2.running_var)
        assert trunk[-1].net.bn2.num_batches_tracked == 1

    def test_dropout_draws_in_training_alone(self):
        net, model = cut_up(Tokens), disturbed(Tokens())
        trunk = filled(net, model)
        torch.manual_seed(0)
        found = logits(net, trunk, model, images(3))
        torch.manual_seed(0)
        assert torch.equal(found, model(images(3)))
        assert not torch.equal(found, logits(net, trunk, model, images(3)))

    def test_gradients(self):
        net, model = cut_up(Residual), disturbed(Residual())
        model.drop.p, trunk = 0.0, filled(net, model)
        logits(net, trunk, model, images(4)).square().sum().backward()
        found = trunk[2].net.conv1.weight.grad.clone(), model.fc.weight.grad.clone()
        model.zero_grad()
        model(images(4)).square().sum().backward()
        assert torch.equal(found[0], model.blocks[1].conv1.weight.grad)
        assert torch.equal(found[1], model.fc.weight.grad)


@pytest.mark.parametrize("name", MODELS)
def test_every_block_can_be_written(name):
    kind, shape = MODELS[name]
    model, net, x = disturbed(kind()), cut_up(kind, shape), images(2, shape)
    for number, block in enumerate(filled(net, model).eval(), start=1):
        traced = trace(
            Stage(block, None, goes_on=True, normalisation=None), number, x.shape[1:], ["out"], opset=17
        )
        for node in traced.nodes:
            if node.op_type == "Transpose":
                axes = list(node.attribute[0].ints)
                assert sorted(axes) == list(range(len(axes))), (number, axes)
        with torch.no_grad():
            x = block(x)
        assert traced.exits == {"out": tuple(x.shape[1:])}


class TestBlocks:
    def test_a_residual_net_is_cut_at_its_blocks(self):
        net = cut_up(Residual)
        blocks = [factory() for factory in net.chain().blocks]
        assert [type(block).__name__ for block in blocks] == ["Pieces", *["Basic"] * 4]
        assert isinstance(blocks[0], Pieces)
        assert [type(piece).__name__ for piece in blocks[0]] == ["Conv2d", "MaxPool2d"]
        assert net.classifier == "fc"
        assert net.outside == ("fc.weight", "fc.bias")

    def test_equal_blocks_have_one_text_and_equal_factories(self):
        net = cut_up(Residual)
        factories = net.chain().blocks
        assert len(net.pieces) == 5
        assert factories[3].args == factories[4].args
        assert factories[2].args != factories[3].args
        assert net.names(4, ["net.bn2.weight"]) == {"net.bn2.weight": "blocks.3.bn2.weight"}

    def test_weights_have_the_models_names(self):
        net, model = cut_up(Residual), Residual()
        names = [
            name
            for number, factory in enumerate(net.chain().blocks)
            for name in net.names(number, tensors_of(factory())).values()
        ]
        assert sorted((*names, *net.outside)) == sorted(model.state_dict())

    def test_boundaries_have_their_channels_first(self):
        net = cut_up(Tokens)
        x, shapes = images(2), []
        for factory in net.chain().blocks:
            x = factory()(x)
            shapes.append(tuple(x.shape[1:]))
        assert shapes == [(8, 17), (8, 17), (8, 17), (8,)]

    def test_gates_and_poolings_belong_to_the_layer_before(self):
        blocks = [factory() for factory in cut_up(Gated).chain().blocks]
        names = [[type(piece).__name__ for piece in block] for block in blocks]
        assert names == [["Conv2d", "Piece"]] * 2 + [["Conv2d", "Linear"]]

    def test_layers_that_share_weights_are_one_block(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.middle, self.out = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, CLASSES)
                self.last = nn.Conv2d(3, 3, 1)

            def forward(self, x):
                x = self.last(self.first(self.middle(self.first(x))))
                return self.out(x.mean((2, 3)))

        blocks = [factory() for factory in cut_up(Shared).chain().blocks]
        assert [len(list(block.parameters())) for block in blocks] == [4, 2]

    def test_num_modules_and_heads(self):
        chain = cut_up(Residual).chain(num_modules=2)
        assert (chain.starts, chain.head, chain.gain, chain.built) == ((0, 3), "linear", None, True)

    def test_a_classifier_that_is_no_mean_and_linear_is_left_out(self):
        class Strange(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, CLASSES, 1)

            def forward(self, x):
                return self.last(self.conv(x)).amax((2, 3))

        net = cut_up(Strange)
        assert net.classifier is None
        assert net.outside == ("last.weight", "last.bias")
        assert len(net.blocks) == 1


class TestResidues:
    def energies(self, block, x):
        block.train()
        if getattr(block, "residue", None) is not None:
            block.residue.measure = Measure()
        out = block(x)
        return penalised(marks_of(block), x, out, Measure())[1]

    def calls(self, net, number):
        return [call["target"] for call in json.loads(net.pieces[number])["calls"]]

    def test_a_branch_that_ends_in_a_norm(self):
        net, model = cut_up(Residual), disturbed(Residual())
        assert "residue.norm bn2" in self.calls(net, 2)
        x = images(4, (8, 8, 8))
        (energy,) = self.energies(filled(net, model)[1], x)
        block = model.blocks[0]
        branch = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x)))))
        torch.testing.assert_close(energy.mean, branch.square().mean(), rtol=1e-5, atol=0)

    def test_two_branches_of_a_transformer(self):
        net, model = cut_up(Tokens), disturbed(Tokens())
        assert self.calls(net, 2).count("residue.add") == 2
        block, trunk, x = model.blocks[1], filled(net, model), images(4, (8, 17))
        torch.manual_seed(0)
        found = self.energies(trunk[2], x)
        torch.manual_seed(0)
        tokens = x.transpose(1, 2)
        y = block.norm1(tokens)
        attended = block.attention(y, y, y, need_weights=False)[0]
        mixed = block.mlp(block.norm2(tokens + attended))
        assert [energy.mean.item() for energy in found] == pytest.approx(
            [attended.square().mean().item(), mixed.square().mean().item()], rel=1e-5
        )

    def test_a_sum_that_is_changed_in_place_keeps_its_residue(self):
        class Kept(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.out = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, CLASSES)

            def forward(self, x):
                x = self.one(x)
                x = x + self.two(x)
                return self.out(torch.relu_(x).mean((2, 3)))

        net, model = cut_up(Kept), Kept()
        assert self.calls(net, 1)[:3] == ["layer two", "residue", "torch.add"]
        x = images(4)
        (energy,) = self.energies(filled(net, model)[1], x)
        torch.testing.assert_close(energy.mean, model.two(x).square().mean(), rtol=1e-5, atol=0)

    def test_a_plain_layer_has_none_of_its_own(self):
        net = cut_up(Gated)
        assert not any("residue" in call for number in range(len(net.pieces)) for call in self.calls(net, number))


SMALL = """
    from torch import nn

    def small(*, input_shape, num_classes):
        layers = [nn.Conv2d(input_shape[0], 6, 5, 2), nn.BatchNorm2d(6), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True), nn.Dropout(0.1)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.fixture
def user_models(tmp_path, monkeypatch):
    """Write a user's module with a factory `small` to the current folder; yields the module's name."""
    (tmp_path / "my_models.py").write_text(textwrap.dedent(SMALL))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield "my_models"
    sys.modules.pop("my_models", None)


class TestTrained:
    CONFIG = StepConfig(transport=Transport(tau=0.5), weight_decay=1e-4)

    def modules(self, name, **options):
        kind, shape = MODELS[name]
        chain = cut_up(kind, shape).chain(**options)
        found = count.chain_costs(chain, self.CONFIG)
        made = [
            LocalModule(chain, k, cost.output_shape, self.CONFIG).materialise("cpu")
            for k, cost in enumerate(found)
        ]
        return made, images(6, shape)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", MODELS)
    def test_steps_in_every_form_give_the_same_bits(self, name):
        found = []
        for recompute in ("none", "norms", "blocks"):
            torch.manual_seed(0)
            modules, x = self.modules(name, num_modules=2)
            y, outputs, transport = torch.arange(6) % CLASSES, [], 0.0
            for module in modules:
                module.reconfigure(recompute=recompute, micro_batch=None)
                module.train_step(x, y, lr=0.1, seed=3, emit=outputs.append)
                transport += module.take_totals().transport
                x = outputs[-1]
            assert transport > 0
            found.append([tensor for module in modules for tensor in module.final_tensors().values()])
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", MODELS)
    def test_no_block_changes_its_input(self, name):
        kind, shape = MODELS[name]
        for cost in count.chain_costs(cut_up(kind, shape).chain(), self.CONFIG):  # counting checks each block
            assert cost.steps["none"].peak(8) > 0

    @pytest.mark.slow
    @pytest.mark.parametrize("regime", ["parallel", "sequential", "multi-lap", "end-to-end"])
    def test_whole_runs(self, train_run, user_models, regime):
        name = f"{user_models}:small"
        trained = [train_run(run, model__name=name, train__regime=regime) for run in ("one", "other")]
        assert len(trained[0].result.scores.per_depth) == (1 if regime == "end-to-end" else 3)
        assert trained[0].sha256 == trained[1].sha256

    def test_training_needs_the_model_no_more(self, plan_run, finish, user_models, tmp_path):
        run = plan_run("run", model__name=f"{user_models}:small")
        (tmp_path / f"{user_models}.py").unlink()
        sys.modules.pop(user_models)
        assert len(finish(run).result.scores.per_depth) == 3

    @pytest.mark.slow
    def test_the_jobs_cut_once(self, user_models, tmp_path, forked_jobs):
        model = {"model": {"name": f"{user_models}:small"}, "train": {"epochs": "1"}, "data": {"limit": 100}}
        # This process is the parent of the jobs, and its memory counts.
        config = resolve({**model, "budget": {"mb": "auto", "probe": False}})
        run = Run.create(tmp_path / "run", config)
        Pipeline(run.folder, lambda message: None).train()
        facts = run.facts()
        assert [phase.name for phase in facts.phases()].count("cut") == 1
        assert len(Net.from_document(facts.net).blocks) == 3

    def test_a_stored_net_is_read_in_place_of_the_library(self):
        net = cut_up(Residual)
        stored = Net.from_document(json.loads(json.dumps(net.document())))
        assert stored == net
        chain = build_chain(
            "no_such_module:factory", input_shape=IMAGE, num_classes=CLASSES, num_modules=2, net=stored
        )
        assert [factory.args for factory in chain.blocks] == [factory.args for factory in net.chain().blocks]
