"""Evaluation against the modules stacked up by hand, the choice of a depth, the digest of a network."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.config.sources import resolve
from edge_trgl.data import RecordReader
from edge_trgl.data.prepare import prepare
from edge_trgl.engine import from_config
from edge_trgl.engine.batches import Feed
from edge_trgl.engine.evaluation import choose_depth, evaluate, weights_sha256
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.storage.activation_store import BoundarySpec
from edge_trgl.runtime.storage.module_store import ModuleStore

SHAPES = [(4, 4, 4), (8, 2, 2), (8, 2, 2)]
CONFIG = resolve({"train": {"batch_size": 4}})


@pytest.mark.parametrize(
    ("accuracies", "depth"), [([0.3], 1), ([0.1, 0.5, 0.4], 2), ([0.5, 0.7, 0.7, 0.6], 2), ([0.2, 0.2], 1)]
)
def test_the_first_of_the_best_depths(accuracies, depth):
    assert choose_depth(accuracies) == depth


@given(st.lists(st.integers(0, 9), min_size=1))
def test_no_depth_is_better_than_the_chosen_one(accuracies):
    depth = choose_depth(accuracies)
    assert accuracies[depth - 1] == max(accuracies)
    assert all(accuracy < accuracies[depth - 1] for accuracy in accuracies[: depth - 1])


CHAIN = km_resnet(3, 1, input_shape=(3, 8, 8), num_classes=3, width=4)


def _initialise(module, chain=CHAIN):
    """A module with weights that make its head disagree with the others'."""
    local = LocalModule(chain, module, SHAPES[module], StepConfig(transport=Transport(tau=None)))
    generator = torch.Generator().manual_seed(module)
    for tensor in [*local.parameters(), *local.buffers()]:
        if tensor.dtype == torch.float32:
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
    for name, buffer in local.named_buffers():
        if name.endswith("running_var"):
            buffer.add_(1)
    return local.materialise("cpu")


def _build(module, chain=CHAIN):
    local = LocalModule(chain, module, SHAPES[module], StepConfig(transport=Transport(tau=None)))
    return local.materialise("cpu")


@pytest.fixture
def opened(tmp_path):
    """A function that makes what evaluation needs of an opened run."""

    def make(*, chunk=2, chain=CHAIN):
        generator = np.random.default_rng(0)
        images, labels = generator.integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
        np.savez(
            tmp_path / "set.npz",
            x_train=images[:37],
            y_train=labels[:37],
            x_test=images[37:],
            y_test=labels[37:],
        )
        info = prepare(str(tmp_path / "set.npz"), tmp_path / "data", seed=0, validation=0.3)
        return _Opened(tmp_path, info, chunk, chain)

    return make


class _Opened:
    def __init__(self, folder, info, chunk, chain):
        self.folder, self.info, self.config, self.chain = folder, info, CONFIG, chain
        self.plan = SimpleNamespace(layout=SimpleNamespace(chunk=chunk, prefetch=False))
        self.run = SimpleNamespace(scratch=folder / "scratch")
        self.factory = SimpleNamespace(spec_of=self.spec_of)

    def __len__(self):
        return len(SHAPES)

    @property
    def depth(self):
        return len(self)

    def work_mb(self):
        return lambda visit, num_samples: 0.0

    def spec_of(self, boundary):
        shape = SHAPES[boundary.module - 1]
        return BoundarySpec(name=boundary.name, shape=shape, dtype="float32", records=boundary.records)

    def feed(self, split):
        augment = from_config.augmentation(self.config, self.info)
        options = {"batch_size": 4, "seed": 0, "device": "cpu"}
        return Feed(self.folder / "data", self.info, split, augment=augment, **options)

    def modules(self, limit_bytes):
        return ModuleStore(
            self.folder / f"modules{limit_bytes}",
            build=partial(_build, chain=self.chain),
            initialise=partial(_initialise, chain=self.chain),
            limits=[limit_bytes] * len(self),
            committed={},
        )

    def accuracies(self, split):
        """At every depth that has a head, on the whole split at once."""
        reader = RecordReader(self.folder / "data", split, self.info)
        pixels = reader.read(np.arange(len(reader))).transpose(0, 3, 1, 2) / 255
        mean, std = (np.array(values)[:, None, None] for values in (self.info.mean, self.info.std))
        x = torch.from_numpy((pixels - mean) / std).float()
        found = []
        with torch.no_grad():
            for module in range(len(self)):
                local = _initialise(module, self.chain).eval()
                x = local.trunk(x)
                if local.has_head:
                    found.append(float((local.head(x).argmax(1).numpy() == reader.labels).mean()))
        reader.close()
        return found


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("limit_bytes", [0, 1 << 30])
def test_every_depth_is_scored_on_every_image(opened, chunk, limit_bytes):
    run, visits = opened(chunk=chunk), []
    modules = run.modules(limit_bytes)
    found = evaluate(run, modules, Meter(), Headroom(None), visits.append)
    validation, test = run.accuracies("val"), run.accuracies("test")
    assert len(set(validation + test)) > 3  # else one depth could stand in for another
    assert found.per_depth == pytest.approx(validation)
    assert found.test_per_depth == pytest.approx(test)
    assert found.chosen_depth == choose_depth(validation)
    assert found.chosen == pytest.approx(test[found.chosen_depth - 1])
    assert found.last == pytest.approx(test[-1])
    assert found.chosen_on == "validation"
    assert {visit.kind for visit in visits} == {"forward"}
    assert not list((run.folder / "scratch").iterdir())


def test_end_to_end_the_last_depth_alone_is_scored(opened):
    run = opened(chain=replace(CHAIN, end_to_end=True))
    found = evaluate(run, run.modules(0), Meter(), Headroom(None), lambda visit: None)
    last, on_test = run.accuracies("val")[-1], run.accuracies("test")[-1]
    assert found.per_depth == (pytest.approx(last),)
    assert found.test_per_depth == (pytest.approx(on_test),)
    assert found.chosen_depth == 3
    assert found.chosen == found.last == pytest.approx(on_test)


def test_the_check_after_a_visit_may_stop_it(opened):
    run = opened()
    modules = run.modules(1 << 30)

    def stop(visit):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(run, modules, Meter(), Headroom(None), stop)
    # What the stopped one left behind is in nobody's way.
    again = evaluate(run, modules, Meter(), Headroom(None), lambda visit: None)
    assert again.per_depth == pytest.approx(run.accuracies("val"))


def test_the_digest_covers_weights_and_buffers_of_every_module_in_order():
    locals_ = [_initialise(module) for module in range(2)]
    digest = hashlib.sha256()
    for module, local in enumerate(locals_):
        named = {**dict(local.named_parameters()), **dict(local.named_buffers())}
        for name, tensor in named.items():
            dtype, form = {torch.float32: ("float32", "f"), torch.int64: ("int64", "q")}[tensor.dtype]
            digest.update(f"{module} {name} {dtype} {list(tensor.shape)}\n".encode())
            values = np.ascontiguousarray(tensor.detach().numpy()).reshape(-1).tolist()
            digest.update(struct.pack(f"<{len(values)}{form}", *values))
    store = SimpleNamespace(open=lambda module: locals_[module])
    assert weights_sha256(store, 2) == digest.hexdigest()


def test_the_heap_is_trimmed_before_the_digest_opens_a_module(monkeypatch):
    did = []
    monkeypatch.setattr(allocator, "trim", lambda: did.append("trim"))
    local = _initialise(0)
    weights_sha256(SimpleNamespace(open=lambda module: did.append(module) or local), 2)
    assert did == ["trim", 0, "trim", 1]


@pytest.mark.parametrize(
    "name", ["trunk.0.conv1.weight", "head.norm.running_mean", "head.norm.num_batches_tracked"]
)
def test_the_digest_changes_with_every_tensor(name):
    local = _initialise(2)
    store = SimpleNamespace(open=lambda module: local)
    before = weights_sha256(store, 1)
    tensor = local.final_tensors()[name]
    tensor[(0,) * tensor.dim()] += 1
    after = weights_sha256(store, 1)
    assert before != after != weights_sha256(store, 2)
