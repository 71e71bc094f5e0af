"""Chains of real networks: their shapes, and steps of any of their modules."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import onnx
import onnxruntime
import pytest
import torch
from nearness import assert_near

from edge_trgl.export.compare.comparison import TOLERANCE
from edge_trgl.export.graph.stage import Normalisation
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Transport

TRGL = Transport(tau=0.4)


def num_parameters(*parts):
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def trunks(chain):
    with torch.device("meta"):
        return [chain.trunk(module) for module in range(len(chain))]


def shapes(chain):
    """The shapes of the input of every module, and of the output of the last."""
    found = [tuple(chain.input_shape)]
    with torch.device("meta"):
        for trunk in trunks(chain):
            found.append(tuple(trunk(torch.empty(2, *found[-1])).shape[1:]))
    return found


def distinct(chain):
    """A module for each block, without blocks that equal an earlier one; cheap heads and first weights."""
    blocks = tuple({(block.func, block.args): block for block in chain.blocks}.values())
    return replace(chain, blocks=blocks, starts=tuple(range(len(blocks))), head="linear", gain=None)


def step(nets, chain, module, recompute, *, transport=TRGL, size=4, **options):
    """All tensors of a module after two training steps, by name, and W over the batch."""
    before, after = shapes(chain)[module : module + 2]
    config = StepConfig(transport=transport, weight_decay=1e-3, recompute=recompute, **options)
    local, found = nets.built(chain.seeded(0), module, config, shape=after), {}
    outputs = []
    for number, (x, y) in enumerate(nets.batches(2, size, before)):
        local.train_step(x, y, lr=0.05, seed=number, emit=lambda out: outputs.append(out.detach().clone()))
    found = {name: tensor.clone() for name, tensor in local.tensors().items()}
    return found | {f"output {number}": out for number, out in enumerate(outputs)}, local.take_totals()[3]


def assert_recompute_changes_no_bit(nets, chain, module, **options):
    """Nor that training does nothing. W of the last step."""
    expected, transport = step(nets, chain, module, "none", **options)
    for recompute in get_args(Recompute)[1:]:
        found, _ = step(nets, chain, module, recompute, **options)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (recompute, name)
    moved = [tensor for name, tensor in expected.items() if name.startswith("momentum.trunk")]
    assert moved
    assert all(tensor.isfinite().all() and tensor.any() for tensor in moved)
    return transport


def assert_exported(chain, folder, exported):
    """Check that the exported exits give the chain's logits, for another batch size than the traced one."""
    found = shapes(chain)[1:]
    modules = [
        (chain.trunk(module).eval(), chain.classifier(module, shape).eval()) for module, shape in enumerate(found)
    ]
    normalisation = Normalisation(mean=(0.5,) * 3, std=(0.2,) * 3, scale=1.0, input_shape=chain.input_shape)
    path = exported(folder, modules, normalisation)
    onnx.checker.check_model(str(path), full_check=True)
    images = torch.rand(3, *chain.input_shape)
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    assert names == ([f"logits_{depth}" for depth in range(1, len(chain) + 1)] if len(chain) > 1 else ["logits"])
    x = normalisation(images)
    with torch.no_grad():
        for (trunk, head), logits in zip(modules, session.run(names, {"input": images.numpy()}), strict=True):
            x = trunk(x)
            assert_near(logits, head(x), TOLERANCE)


@pytest.fixture(scope="session")
def models():
    """The helpers above, as one object."""
    return SimpleNamespace(
        assert_exported=assert_exported,
        assert_recompute_changes_no_bit=assert_recompute_changes_no_bit,
        distinct=distinct,
        num_parameters=num_parameters,
        shapes=shapes,
        step=step,
        trunks=trunks,
    )
