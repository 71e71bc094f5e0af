"""Updates in the backward, each as soon as its gradient is complete, against updates after it: the same bits."""

from __future__ import annotations

import pytest

from edge_trgl.descent import Descent
from edge_trgl.local import StepConfig
from edge_trgl.transport import Multipliers, Transport

VANGL = Transport(tau=None)
TRGL = Transport(tau=0.4)
GROWING = Transport(tau=None, multipliers=Multipliers(first=0.5, growth=0.3, every=2))
TRANSPORTS = {"vangl": VANGL, "multipliers": GROWING}

WAYS = {
    "plain": {},
    "no-momentum": {"momentum": 0.0},
    "norms": {"recompute": "norms"},
    "blocks": {"recompute": "blocks"},
    "bfloat16": {"bfloat16": True},
    "micro-batch": {"micro_batch": 4},
    "all": {"recompute": "blocks", "bfloat16": True, "micro_batch": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("net", ["norm", "dropout", "plain", "km"])
def test_updates_in_the_backward_change_no_bit(nets, net, transport, way):
    early, late = (
        nets.trained(nets.CHAINS[net](), TRANSPORTS[transport], early_update=early, **WAYS[way])
        for early in (True, False)
    )
    nets.assert_same(early, late)


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_in_two_blocks_is_updated_once(nets, way):
    """And after both: the one below computes its backward, and its forward again, with what the one above saw."""

    def frozen():
        return nets.PlainBlock().requires_grad_(False)

    def chain():
        layer = nets.PlainBlock()
        return nets.chain_of(lambda: layer, nets.NormBlock, lambda: layer, frozen)

    early, late = (nets.trained(chain(), TRGL, early_update=early, **WAYS[way]) for early in (True, False))
    nets.assert_same(early, late)
    assert "trunk.1.weight" in early[0]
    assert "trunk.3.weight" not in early[0]  # the same weight under another name


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_gradients_go_as_soon_as_they_are_complete(nets, monkeypatch, recompute, early):
    config = StepConfig(transport=VANGL, recompute=recompute, early_update=early)
    local = nets.built(nets.CHAINS["norm"](), 0, config)
    found, step = [], Descent.step

    def counted(descent, weights, lr):
        found.append(sum(weight.grad is not None for weight in local.parameters()))
        step(descent, weights, lr)

    monkeypatch.setattr(Descent, "step", counted)
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=0.1, seed=0)
    # A layer computes the gradients of its weight and bias together.
    assert max(found) <= 2 if early else max(found) == len(list(local.parameters()))
    assert all(weight.grad is None for weight in local.parameters())
