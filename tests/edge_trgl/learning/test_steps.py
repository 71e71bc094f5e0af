"""Steps as training takes them are those that planning counts and measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edge_trgl.engine.regimes import end_to_end, parallel
from edge_trgl.engine.visits import JobSize
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.learning.step_kinds import trains
from edge_trgl.learning.steps import (
    Batch,
    StepOptions,
    discard,
    forward_kinds,
    sends_back,
    take_step,
    training_kind,
)
from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import km_resnet

NUM_MODULES, SHAPE = 3, (4, 4, 4)
CONFIG = StepConfig(transport=Transport(tau=None))


def _chain(*, whole):
    chain = km_resnet(NUM_MODULES, 1, input_shape=(3, 8, 8), num_classes=10, width=4, downsample=())
    return replace(chain, end_to_end=whole)


def _local(chain, module):
    return LocalModule(chain, module, SHAPE, CONFIG).materialise("cpu")


@pytest.mark.parametrize("whole", [False, True])
def test_planning_takes_the_steps_that_training_visits(whole):
    job = JobSize(num_modules=NUM_MODULES, num_samples=8, batch_size=4, augmented=False)
    visits = list(end_to_end(job, 1) if whole else parallel(job, 1, 2))
    chain = _chain(whole=whole)
    for module in range(NUM_MODULES):
        own = [visit for visit in visits if visit.module == module]
        assert {visit.kind for visit in own if trains(visit.kind)} == {training_kind(_local(chain, module))}
        passing = {visit.kind for visit in own if not trains(visit.kind)}
        assert passing == set(forward_kinds(chain, module, CONFIG)) - {"forward"}
        assert any(written.module == module for visit in own for written in visit.writes) == sends_back(
            chain, module
        )


def test_each_kind_of_step_is_that_method():
    local, x, y = _local(_chain(whole=False), 1), torch.randn(4, *SHAPE), torch.zeros(4, dtype=torch.int64)
    before, emitted = {name: weight.detach().clone() for name, weight in local.trunk[0].named_parameters()}, []
    batch = Batch(x=x, y=y, gradient=torch.ones(4, *SHAPE))
    take_step(local, "forward", batch, StepOptions(emit=emitted.append))
    assert local.take_totals().num_images == len(emitted[0]) == 4
    take_step(local, "ascend", batch, StepOptions(emit=emitted.append))
    assert len(emitted) == 2
    assert all(torch.equal(before[name], weight) for name, weight in local.trunk[0].named_parameters())
    for kind in ("train", "backward"):
        sent = []
        take_step(local, kind, batch, StepOptions(lr=0.1, send_back=sent.append))
        assert sent[0].shape == x.shape
    take_step(local, "train", batch, StepOptions(send_back=discard))
