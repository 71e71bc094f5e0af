"""Parallel training in any order of its grid gives the same bits: the loop nest may be interchanged."""

from __future__ import annotations

import itertools

import pytest

PLAIN_NET = '''
from torch import nn

from edge_trgl.chain import Chain


def head_to_tail(blocks, input_shape, num_classes):
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, num_modules=3)


def dropout(input_shape, num_classes):
    """No batch norm; plain nn.Dropout, which draws from the default generator."""
    block = lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Dropout(0.3))
    first = lambda: nn.Sequential(nn.Conv2d(input_shape[0], 4, 3, stride=2), nn.Tanh())
    return head_to_tail([first, block, block, block], input_shape, num_classes)


def built(input_shape, num_classes):
    """Blocks that carry weights of their own, with batch norm and dropout."""
    import torch

    torch.manual_seed(7)
    first = nn.Sequential(nn.Conv2d(input_shape[0], 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2))
    last = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(36, 20), nn.ReLU())
    return head_to_tail(nn.Sequential(first, block, last), input_shape, num_classes)
'''

LAYOUTS = [
    {"budget__chunk": chunk, "budget__resident": resident, "budget__prefetch": prefetch}
    for chunk, (resident, prefetch) in itertools.product(
        ("1", "8", "epoch"), (("3", False), ("1", False), ("1", True))
    )
]


@pytest.fixture(autouse=True)
def _user_nets(tmp_path, monkeypatch):
    (tmp_path / "user_nets.py").write_text(PLAIN_NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "user_nets", raising=False)


@pytest.mark.parametrize("net", ["km-3-1", "km-3-2", "user_nets:dropout", "user_nets:built"])
def test_every_layout_gives_the_same_weights(train_run, net):
    hashes = {
        str(number): train_run(f"layout{number}", model__name=net, **layout).sha256
        for number, layout in enumerate(LAYOUTS)
    }
    assert len(set(hashes.values())) == 1, hashes


def test_weights_depend_on_the_seed(train_run):
    assert train_run("a", train__seed=0).sha256 != train_run("b", train__seed=1).sha256


@pytest.mark.parametrize("placement", ["memory", "disk"])
@pytest.mark.parametrize("recompute", [False, True])
def test_placement_and_recompute_change_nothing(plan_run, placement, recompute):
    from edge_trgl.jobs import work
    from edge_trgl.opening import open_run

    def trained(name, **changes):
        run = plan_run(name, model__name="km-2-2", budget__chunk="2")
        state = run.state()
        state.set_meta("plan", {**state.meta("plan"), **changes})
        state.close()
        return work.train(open_run(run), budget_mb=1e5, others_mb=0.0, stop=[])["weights_sha256"]

    reference = trained("reference", placement="memory", recompute=False)
    assert trained("other", placement=placement, recompute=recompute) == reference


def test_cached_sequential_in_memory_and_on_disk(plan_run):
    from edge_trgl.jobs import work
    from edge_trgl.opening import open_run

    hashes = set()
    for placement in ("memory", "disk"):
        run = plan_run(placement, train__regime="multi-lap", train__laps=2, train__views=2)
        state = run.state()
        state.set_meta("plan", {**state.meta("plan"), "placement": placement})
        state.close()
        hashes.add(work.train(open_run(run), budget_mb=1e5, others_mb=0.0, stop=[])["weights_sha256"])
    assert len(hashes) == 1


def test_without_augmentation_a_cache_and_streaming_the_prefix_agree(train_run):
    settings = {"train__regime": "sequential", "data__augment": False, "train__views": 1}
    cached = train_run("cached", **settings)
    streamed = train_run("streamed", **settings, train__cache=False)
    assert cached.sha256 == streamed.sha256
