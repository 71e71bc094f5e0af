"""Local losses in the local step and in whole runs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from plans import PLENTY
from torch.nn import functional

from edge_trgl.engine import training
from edge_trgl.engine.open_run import open_run
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.losses import CrossEntropy, InfoPro, Mix, PredSim
from edge_trgl.method.transport import Transport
from edge_trgl.planning.count import chain_costs
from edge_trgl.random_keys import key
from edge_trgl.runtime.errors import StoppedError, UsageError

TRGL = Transport(tau=0.4)
LOSSES = {
    "predsim": PredSim(beta=0.8),
    "infopro": InfoPro(lambda1=(3.0, 1.0), lambda2=(0.5, 1.0)),
    "contrast": InfoPro(contrast=True, lambda1=(3.0, 1.0), lambda2=(0.5, 1.0)),
}
STEPS = 4


def first_of_two(nets, config, *, seed=0):
    chain = nets.chain_of(nets.NormBlock, nets.NormBlock, num_modules=2)
    return nets.built(chain, 0, config, seed=seed)


def seen(size=6):
    images = torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return images.contiguous(memory_format=torch.channels_last)


def trained(nets, loss, **options):
    """What some steps leave behind: tensors, outputs, totals."""
    config = StepConfig(transport=TRGL, loss=loss, label_smoothing=0.1, weight_decay=1e-3, **options)
    local, emitted = first_of_two(nets, config), []
    for step, (x, y) in enumerate(nets.batches(STEPS)):
        local.train_step(x, y, lr=0.1, seed=step, image=seen(), emit=lambda out: emitted.append(out.clone()))
    return local.tensors(), emitted, local.take_totals()


def plain_step(local, optimizer, x, y, image, step):
    """One step written out: what the trunk, the head and the other parts each learn from."""
    kinetic, value = [], x
    for number, block in enumerate(local.trunk):
        torch.manual_seed(key(key(step, 0), number, 0))
        if hasattr(block, "branch"):
            kinetic.append(block.branch(value))
            value = value + kinetic[-1]
        else:
            value = block(value)
    transport = sum(r.square().mean() for r in kinetic) / (2 * 0.4)
    entropy = functional.cross_entropy(local.head(value), y, label_smoothing=0.1)
    parts = sum(
        weight * part(value, y, image) for (weight, _), part in zip(local.mix.parts, local.aux, strict=True)
    )
    shares = (
        (local.trunk, local.mix.cross_entropy * entropy + parts + transport),
        (local.head, entropy),
        (local.aux, parts),
    )
    for room, loss in shares:
        weights = list(room.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, retain_graph=True), strict=True):
            weight.grad = gradient
    optimizer.step()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_steps_are_those_of_a_plain_loop(nets, loss):
    config = StepConfig(transport=TRGL, loss=loss, label_smoothing=0.1, weight_decay=0.01)
    local = first_of_two(nets, config)
    plain = copy.deepcopy(local).train()
    before = {name: tensor.clone() for name, tensor in local.tensors().items()}
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step, (x, y) in enumerate(nets.batches(STEPS)):
        local.train_step(x, y, lr=0.1, seed=step, image=seen())
        plain_step(plain, optimizer, x, y, seen(), step)
    assert any(name.startswith("aux.") for name, _ in plain.named_parameters())
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(local.tensors()[name], weight.detach(), rtol=1e-4, atol=1e-5)
        assert not torch.equal(local.tensors()[name], before[name]), name


@pytest.mark.parametrize("options", [{}, {"bfloat16": True}], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_recompute_and_late_updates_change_no_bit(nets, loss, options):
    plain = trained(nets, loss, early_update=False, **options)
    for recompute in ("none", "norms", "blocks"):
        nets.assert_same(plain, trained(nets, loss, recompute=recompute, **options))


def test_reconstruction_takes_micro_batches(nets):
    ends = [
        trained(nets, LOSSES["infopro"], micro_batch=4, recompute=recompute) for recompute in ("none", "blocks")
    ]
    nets.assert_same(*ends)


@pytest.mark.parametrize("name", ["predsim", "contrast"])
def test_what_compares_samples_takes_no_micro_batches(nets, name):
    with pytest.raises(ValueError, match=r"compares the samples of a batch, which micro-batches take apart"):
        trained(nets, LOSSES[name], micro_batch=4)


def test_every_loss_trains_another_network(nets):
    losses = [CrossEntropy(), *LOSSES.values()]
    ends = [trained(nets, loss)[0]["trunk.1.conv.weight"] for loss in losses]
    assert all(not torch.equal(a, b) for number, a in enumerate(ends) for b in ends[:number])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_auxiliary_parts_are_state_but_not_network(nets, loss):
    config = StepConfig(transport=TRGL, loss=loss)
    local, alone = first_of_two(nets, config), first_of_two(nets, StepConfig(transport=TRGL))
    # The network's own first weights are those that it has without them.
    assert local.final_tensors().keys() == alone.final_tensors().keys()
    assert all(torch.equal(tensor, alone.final_tensors()[name]) for name, tensor in local.final_tensors().items())
    added = set(local.tensors()) - set(alone.tensors())
    names = [name for name, _ in local.named_parameters() if name.startswith("aux.")]
    assert added == {*names, *(f"momentum.{name}" for name in names)}
    assert names


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_first_auxiliary_weights_depend_on_seed_and_module_alone(nets, loss):
    def weights(seed):
        torch.rand(7)
        local = first_of_two(nets, StepConfig(transport=TRGL, loss=loss), seed=seed)
        return {
            name: weight for name, weight in local.aux.named_parameters() if "weight" in name and weight.dim() > 1
        }

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not any(torch.equal(weight, other[name]) for name, weight in first.items())


def test_a_loss_of_ones_own(nets):
    """Any frozen dataclass that mixes parts by depth."""

    @dataclass(frozen=True)
    class Halved:
        def of(self, module, num_modules):
            return Mix(cross_entropy=0.5)

    assert not torch.equal(
        trained(nets, Halved())[0]["trunk.1.conv.weight"], trained(nets, CrossEntropy())[0]["trunk.1.conv.weight"]
    )


# ---- whole runs

WATCHED_NET = """
from torch import nn
from edge_trgl.networks.chain import Chain
from plans import PLENTY


def net(input_shape, num_classes):
    '''Every boundary is the image that it came from.'''
    blocks = [nn.Identity, nn.Identity, lambda: nn.Conv2d(input_shape[0], 4, 3)]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, head="linear")
"""

REGIMES = {
    "parallel": {"train__regime": "parallel", "budget__chunk": "2"},
    "sequential": {"train__regime": "sequential", "train__views": 2},
    "plain": {"train__regime": "sequential", "data__augment": False},
    "streamed": {"train__regime": "sequential", "train__cache": "none"},
    "multi-lap": {"train__regime": "multi-lap", "train__laps": 2, "train__views": 3, "train__epochs": "8"},
    "frozen": {"train__regime": "parallel", "train__freeze": 1, "train__views": 2, "budget__chunk": "2"},
    "frozen-laps": {"train__regime": "multi-lap", "train__laps": 2, "train__freeze": 1, "train__views": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", REGIMES.values(), ids=REGIMES)
def test_the_image_is_the_one_that_the_boundary_came_from(plan_run, finish, tmp_path, monkeypatch, settings):
    (tmp_path / "watched_net.py").write_text(WATCHED_NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = plan_run("run", model__name="watched_net:net", loss__name="infopro", **settings)
    info = open_run(run).info
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    steps, step = [], LocalModule.train_step

    def watched(local, x, y, *, image=None, **options):
        steps.append((local.index, image is not None))
        if image is not None:
            assert 0 <= image.min() < image.max() <= 1
            assert torch.equal((image - mean) / std, x)
        step(local, x, y, image=image, **options)

    monkeypatch.setattr(LocalModule, "train_step", watched)
    finish(run)
    trained = range(settings.get("train__freeze", 0), 3)
    assert set(steps) == {(module, module < 2) for module in trained}


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_auxiliary_weights(plan_run, train_run, finish):
    settings = {"loss__name": "infopro-contrast", "train__regime": "multi-lap", "train__laps": 2}
    whole = train_run("whole", **settings)
    run = plan_run("stopped", **settings)
    for _ in range(3):
        with pytest.raises(StoppedError):
            training.train(open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda: True)
    assert finish(run).sha256 == whole.sha256


LAYOUTS = [("1", "3", False), ("3", "1", True), ("epoch", "1", False)]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["predsim", "infopro-contrast"])
def test_every_layout_gives_the_same_weights(train_run, loss):
    hashes = {
        train_run(
            f"layout{number}",
            loss__name=loss,
            budget__chunk=chunk,
            budget__resident=resident,
            budget__prefetch=prefetch,
        ).sha256
        for number, (chunk, resident, prefetch) in enumerate(LAYOUTS)
    }
    assert len(hashes) == 1


def test_floats_have_no_scale_to_reconstruct(plan_run, tmp_path):
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    with pytest.raises(UsageError, match=r"loss\.name infopro reconstructs pixels from 0 to 1"):
        plan_run("run", data__source=str(tmp_path / "set.npz"), data__limit=20, loss__name="infopro")


def test_no_plan_takes_apart_what_is_compared(plan_run):
    forms = {
        loss: {form.lossy for form in plan_run(loss, loss__name=loss).facts().counted.demand.forms}
        for loss in ("infopro", "predsim")
    }
    assert forms == {
        "infopro": {(), ("micro-batch",), ("fp16-boundaries",), ("int8-boundaries",)},
        "predsim": {(), ("fp16-boundaries",), ("int8-boundaries",)},
    }


def test_parts_and_the_images_they_compare_with_are_counted(nets):
    chain = nets.chain_of(nets.NormBlock, nets.NormBlock, num_modules=2)
    plain, *others = (
        chain_costs(chain, StepConfig(transport=TRGL, loss=loss)) for loss in (CrossEntropy(), *LOSSES.values())
    )
    for loss, costs in zip(LOSSES.values(), others, strict=True):
        for module, (cost, without) in enumerate(zip(costs, plain, strict=True)):
            config = StepConfig(transport=TRGL, loss=loss)
            added = sum(weight.nbytes for weight in LocalModule(chain, module, (4, 8, 8), config).aux.parameters())
            assert cost.momentum_bytes - without.momentum_bytes == added
            assert cost.weight_bytes - without.weight_bytes == added
            assert cost.forward == without.forward
            assert (cost.steps == without.steps) == (added == 0)
