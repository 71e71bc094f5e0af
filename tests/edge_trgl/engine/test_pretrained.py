"""Pretrained weights: read from files of several kinds, module by module, under several names."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from edge_trgl.config.sources import resolve
from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.pretrained import Pretrained
from edge_trgl.engine.weight_files import open_weights
from edge_trgl.jobs import match
from edge_trgl.jobs.requests import MatchRequest
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.cutting.libraries import model_factory
from edge_trgl.networks.open_net import open_net
from edge_trgl.run.facts import PretrainedFile, PretrainedFit
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.memory.limits import Limits

MODELS = """
    from torch import nn

    def small(*, input_shape, num_classes):
        layers = [nn.Conv2d(input_shape[0], 4, 5, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes))
"""
NAME = "my_models:small"


@pytest.fixture(autouse=True)
def user_models(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_models", None)


def state_dict(num_classes=10):
    """A state dict of the user's model, filled with noise."""
    model = model_factory(NAME, (1, 28, 28), num_classes)()
    torch.manual_seed(5)
    return {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}


def first_tensors(run):
    """The tensors of the run's modules before training, by `module.name`."""
    opened = open_run(run)
    modules = opened.modules()
    return {
        f"{module}.{name}": tensor.clone()
        for module in range(len(opened))
        for name, tensor in modules.open(module).final_tensors().items()
    }


def check_taken_over(found, state):
    assert torch.equal(found["0.trunk.0.net.0.weight"], state["0.weight"])
    assert torch.equal(found["0.trunk.0.net.1.running_var"], state["1.running_var"])
    assert torch.equal(found["1.trunk.0.net.3.weight"], state["3.weight"])
    assert torch.equal(found["1.trunk.0.net.4.bias"], state["4.bias"])


class TestFiles:
    def save(self, path, state):
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save({"epoch": 3, "state_dict": state} if path.suffix == ".tar" else state, path)

    @pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.tar"])
    def test_the_models_own_names(self, plan_run, tmp_path, file):
        state = state_dict()
        self.save(tmp_path / file, state)
        run = plan_run("run", model__name=NAME, model__pretrained=file)
        found = first_tensors(run)
        check_taken_over(found, state)
        assert torch.equal(found["1.head.linear.weight"], state["8.weight"])
        assert torch.equal(found["1.head.linear.bias"], state["8.bias"])

    def test_the_run_keeps_the_checksum(self, plan_run, tmp_path):
        self.save(tmp_path / "w.safetensors", state_dict())
        facts = plan_run("run", model__name=NAME, model__pretrained="w.safetensors").facts()
        expected = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
        assert facts.pretrained == PretrainedFile(file="w.safetensors", sha256=expected)

    @pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "net", "ema"])
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
    def test_checkpoints_of_every_kind(self, tmp_path, key, legacy, prefix):
        state = {f"{prefix}{name}": tensor for name, tensor in state_dict().items()}
        more = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}
        content = state if key is None else {**more, key: state}
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        weights = open_weights(tmp_path / "w.pth")
        net = open_net(NAME, input_shape=(1, 28, 28), num_classes=10)
        source = Pretrained(weights, net.chain(), net)
        assert (source.fit.missing, source.fit.different, source.fit.unused) == ((), (), ())
        ((_, found),) = source._weights.read(["3.weight"])
        assert torch.equal(found, state[f"{prefix}3.weight"])

    def test_the_first_of_several_state_dicts(self, tmp_path):
        state = state_dict()
        torch.save({"ema": {}, "model": {"state_dict": state}}, tmp_path / "w.pth")
        assert open_weights(tmp_path / "w.pth").shapes.keys() == state.keys()

    def test_an_old_file_that_has_no_room(self, tmp_path):
        torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        assert open_weights(tmp_path / "w.pth", room_mb=5).shapes == {"a": (1 << 20,)}
        with pytest.raises(InputError, match="which is loaded whole: 4 MiB, and the budget leaves 3 MiB") as told:
            open_weights(tmp_path / "w.pth", room_mb=3)
        assert "Give 2 MiB more with --budget-mb" in told.value.hint
        torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "new.pth")
        open_weights(tmp_path / "new.pth", room_mb=0)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_whole_model_is_refused_in_a_few_words(self, tmp_path, legacy):
        torch.save({"model": nn.Linear(2, 2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InputError, match=r"it holds Python objects \(torch.nn.modules.linear.Linear\)"):
            open_weights(tmp_path / "w.pth")

    @pytest.mark.parametrize("content", [b"", b"not a file of torch", b"\x80\x02}q\x00."])
    def test_a_file_that_is_none(self, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"w.pth (cannot be read as weights|holds no state dict)"):
            open_weights(tmp_path / "w.pth")

    def test_how_it_fits_is_known_before_it_is_planned(self, plan_run, tmp_path):
        state = state_dict(num_classes=7)
        state["3.weight"] = torch.zeros(6, 9, 3, 3)
        self.save(tmp_path / "w.pth", state)
        run = plan_run("run", model__name=NAME, model__pretrained="w.pth")
        match.run(run, MatchRequest(limits=Limits(budget_mb=1e5)))
        expected = "3.weight [6, 9, 3, 3], expected [6, 4, 3, 3]"
        assert run.facts().pretrained_fit.different == (expected,)
        found = first_tensors(run)
        assert torch.equal(found["0.trunk.0.net.0.weight"], state["0.weight"])
        assert torch.equal(found["1.trunk.0.net.4.bias"], state["4.bias"])
        plain = first_tensors(plan_run("plain", model__name=NAME))
        assert torch.equal(found["1.trunk.0.net.3.weight"], plain["1.trunk.0.net.3.weight"])

    def test_another_number_of_classes(self, plan_run, tmp_path):
        state = state_dict(num_classes=7)
        self.save(tmp_path / "w.safetensors", state)
        run = plan_run("run", model__name=NAME, model__pretrained="w.safetensors")
        found = first_tensors(run)
        check_taken_over(found, state)
        assert found["1.head.linear.weight"].shape == (10, 6)
        assert any("random weights" in event.text for event in run.facts().events())

    def test_another_head(self, plan_run, tmp_path):
        state = state_dict()
        self.save(tmp_path / "w.safetensors", state)
        found = first_tensors(
            plan_run("run", model__name=NAME, model__pretrained="w.safetensors", model__head="conv")
        )
        check_taken_over(found, state)

    def test_half_precision_is_widened(self, plan_run, tmp_path):
        state = state_dict()
        halves = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
        self.save(tmp_path / "w.safetensors", halves)
        found = first_tensors(plan_run("run", model__name=NAME, model__pretrained="w.safetensors"))
        assert torch.equal(found["0.trunk.0.net.0.weight"], halves["0.weight"].float())


def by_block(found, starts):
    """The tensors of trunks, by `block.name`."""
    trunks = {}
    for key, tensor in found.items():
        module, part, *rest = key.split(".")
        if part == "trunk":
            trunks[".".join((str(starts[int(module)] + int(rest[0])), *rest[1:]))] = tensor
    return trunks


class TestOurOwn:
    def test_blocks_by_number(self, plan_run, tmp_path):
        first = by_block(first_tensors(plan_run("drawn")), (0, 1, 2))
        state = {f"blocks.{name}": (tensor + 1).contiguous() for name, tensor in first.items()}
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
        run = plan_run("run", model__pretrained="w.safetensors", model__modules=2)
        found = by_block(first_tensors(run), (0, 2))
        assert found.keys() == first.keys()
        assert all(torch.equal(tensor, state[f"blocks.{name}"]) for name, tensor in found.items())

    @pytest.mark.slow
    @pytest.mark.parametrize(("modules", "starts"), [(3, (0, 1, 2)), (2, (0, 2))])
    def test_a_runs_folder(self, plan_run, finish, modules, starts):
        """The last head is read too, if it has the same shape."""
        finish(plan_run("before", train__epochs="1"))
        last = first_tensors(Run.open(Path("before")))
        found = first_tensors(plan_run("run", model__pretrained="before", model__modules=modules))
        trunks = by_block(last, (0, 1, 2))
        assert all(torch.equal(tensor, trunks[name]) for name, tensor in by_block(found, starts).items())
        assert torch.equal(found[f"{modules - 1}.head.linear.weight"], last["2.head.linear.weight"])

    @pytest.mark.slow
    @pytest.mark.parametrize("planned", [False, True])
    def test_a_run_without_weights_is_refused(self, plan_run, planned):
        if planned:
            plan_run("before")
        else:
            Run.create(Path("before"), resolve({}))
        there = sorted(Path("before").iterdir())
        with pytest.raises(InputError, match="before has no weights yet"):
            plan_run("run", model__pretrained="before")
        assert sorted(Path("before").iterdir()) == there

    def test_a_cut_models_run(self, plan_run, finish):
        finish(plan_run("before", model__name=NAME, train__epochs="1"))
        last = first_tensors(Run.open(Path("before")))
        found = first_tensors(plan_run("run", model__name=NAME, model__pretrained="before"))
        assert all(torch.equal(found[key], last[key]) for key in found if not key.startswith("0.head"))


class TestFrozenBlocksAlone:
    """A file may hold the weights of the frozen modules alone; the others are as without a file."""

    def check(self, plan_run, name, state):
        safetensors.torch.save_file(state, "w.safetensors")
        run = plan_run("run", model__name=name, model__pretrained="w.safetensors", train__freeze=1)
        plain = plan_run("plain", model__name=name, train__freeze=1)
        found, opened = first_tensors(run), open_run(plain)
        modules = opened.modules()
        for module in range(1, len(opened)):
            for own, tensor in modules.open(module).final_tensors().items():
                assert torch.equal(found[f"{module}.{own}"], tensor), own
        assert any("what it lacks starts from random weights" in event.text for event in run.facts().events())
        return found

    @pytest.mark.slow
    def test_our_own(self, plan_run):
        first = by_block(first_tensors(plan_run("drawn")), (0, 1, 2))
        state = {f"blocks.{name}": (t + 1).contiguous() for name, t in first.items() if name.startswith("0.")}
        found = by_block(self.check(plan_run, "km-3-1", state), (0, 1, 2))
        assert all(torch.equal(found[name.removeprefix("blocks.")], tensor) for name, tensor in state.items())
        assert any(not name.startswith("0.") for name in found)

    def test_a_cut_models(self, plan_run):
        state = {name: tensor for name, tensor in state_dict().items() if name.startswith(("0.", "1."))}
        found = self.check(plan_run, NAME, state)
        assert torch.equal(found["0.trunk.0.net.0.weight"], state["0.weight"])
        assert torch.equal(found["0.trunk.0.net.1.running_var"], state["1.running_var"])

    def test_a_shorter_nets_run(self, plan_run, finish):
        """The head in the file belongs to a shorter net, and is not used."""
        finish(plan_run("before", model__name="km-2-1", model__downsample=(), train__epochs="1"))
        last = first_tensors(Run.open(Path("before")))
        longer = {"model__downsample": (), "train__freeze": 2}
        found = first_tensors(plan_run("run", **longer, model__pretrained="before"))
        plain = open_run(plan_run("plain", **longer)).modules().open(2).final_tensors()
        assert all(torch.equal(found[key], last[key]) for key in found if key.startswith(("0.", "1.")))
        assert all(torch.equal(found[f"2.{name}"], tensor) for name, tensor in plain.items())


class Recorded:
    """Weights that note which of them are read."""

    def __init__(self, tensors):
        self.tensors, self.reads, self.paths = tensors, [], ["a file"]
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(self, names):
        for name in names:
            self.reads.append(name)
            yield name, self.tensors[name]


def chain_of_linears(num=3, classes=4):
    return Chain.from_blocks(
        [lambda: nn.Linear(5, 5) for _ in range(num)], input_shape=(5,), num_classes=classes, head="linear"
    )


def linears(num=3):
    return {
        f"blocks.{k}.{n}": torch.full(s, k + 1.0)
        for k in range(num)
        for n, s in (("weight", (5, 5)), ("bias", (5,)))
    }


class TestChecks:
    def test_a_module_at_a_time_and_no_more(self, nets):
        weights, chain = Recorded(linears()), chain_of_linears()
        source = Pretrained(weights, chain, None)
        assert weights.reads == []
        local = nets.built(chain, 1, StepConfig(transport=Transport(tau=None)), shape=(5,))
        assert source.fill(1, local) is None
        assert weights.reads == ["blocks.1.weight", "blocks.1.bias"]
        assert local.trunk[0].weight.unique().tolist() == [2.0]

    def test_all_of_it(self):
        fit = Pretrained(Recorded(linears()), chain_of_linears(), None).fit
        assert fit == PretrainedFit(file="a file", fitting=6, wanted=6)
        assert fit.text == "6 of the 6 tensors of the network are in a file"

    @pytest.mark.parametrize(
        ("change", "fitting", "text", "held"),
        [
            (lambda t: t.pop("blocks.1.bias"), 5, "it lacks blocks.1.bias$", [True, False, True]),
            (
                lambda t: t.update({"blocks.2.bias": torch.zeros(4)}),
                5,
                r"of another shape: blocks.2.bias \[4\], expected \[5\]$",
                [True, True, False],
            ),
            (lambda t: t.update({"extra.weight": torch.zeros(4)}), 6, "not used: extra.weight$", [True] * 3),
            (
                lambda t: [t.pop(name) for name in list(t) if name != "blocks.2.bias"],
                1,
                "it lacks blocks.0.weight, blocks.0.bias, blocks.1.weight and 2 more$",
                [False] * 3,
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, fitting, text, held):
        tensors = linears()
        change(tensors)
        source = Pretrained(Recorded(tensors), chain_of_linears(), None)
        assert re.search(text, source.fit.text)
        assert (source.fit.fitting, source.fit.wanted) == (fitting, 6)
        assert [source.holds(module) for module in range(3)] == held

    @pytest.mark.parametrize(
        "tensors", [{}, {"weight": torch.zeros(5, 5)}, {"blocks.0.weight": torch.zeros(7, 5)}]
    )
    def test_a_file_of_which_nothing_fits_is_refused(self, tensors):
        with pytest.raises(InputError, match="none of the weights in a file fits blocks: 0 of the 6 tensors"):
            Pretrained(Recorded(tensors), chain_of_linears(), None)

    @pytest.mark.parametrize("frozen", [0, 1, 2])
    def test_the_frozen_blocks_must_all_be_there(self, frozen):
        chain = replace(chain_of_linears(), frozen=frozen)
        assert all(map(Pretrained(Recorded(linears()), chain, None).holds, range(3)))
        source = Pretrained(Recorded(linears(2)), chain, None)
        assert [source.holds(module) for module in range(3)] == [True, True, False]
        if frozen == 2:
            with pytest.raises(InputError, match="module 1 is frozen, and a file does not hold all of it"):
                Pretrained(Recorded(linears(1)), chain, None)

    def test_names_under_the_prefixes_of_wrappers(self):
        for prefix in ("module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.model."):
            weights = Recorded({f"{prefix}{name}": tensor for name, tensor in linears().items()})
            source = Pretrained(weights, chain_of_linears(), None)
            assert (source.fit.fitting, source.fit.unused) == (6, ())
            assert [name for name, _ in source._weights.read(["blocks.1.bias"])] == ["blocks.1.bias"]
            assert weights.reads == [f"{prefix}blocks.1.bias"]

    def test_counters_may_be_missing(self):
        chain = Chain.from_blocks([lambda: nn.BatchNorm1d(5)], input_shape=(5,), num_classes=2)
        names = ("weight", "bias", "running_mean", "running_var")
        Pretrained(Recorded({f"blocks.0.{name}": torch.ones(5) for name in names}), chain, None)
