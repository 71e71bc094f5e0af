"""End-to-end training paged, one module at a time, against the same net trained whole: the same bits."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from torch import nn

from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.trainer import EngineContext, walk
from edge_trgl.engine.visits import JobSize
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain, split_by_depth
from edge_trgl.networks.zoo import km_resnet, resnet110
from edge_trgl.random_keys import key
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.module_store import ModuleStore

NUM_SAMPLES, BATCH, EPOCHS, CLASSES, IMAGE = 15, 5, 2, 5, (3, 8, 8)
CONFIG = StepConfig(transport=Transport(tau=None), label_smoothing=0.1, weight_decay=1e-3)


class Noise:
    """A data set of noise, drawn anew for every batch of every epoch."""

    def samples(self, span, batch):
        return self._order(span)[batch * BATCH : (batch + 1) * BATCH]

    def upcoming(self, span, batch, count):
        return self._order(span)[(batch + 1) * BATCH :][:count]

    def _order(self, span):
        return np.random.default_rng(span.epoch).permutation(NUM_SAMPLES).astype(np.int64)

    def labels(self, samples):
        return torch.from_numpy(samples) % CLASSES

    def images(self, span, batch, samples):
        generator = torch.Generator().manual_seed(key(span.epoch, batch))
        images = torch.randn(len(samples), *IMAGE, generator=generator)
        return images.contiguous(memory_format=torch.channels_last)

    def to_device(self, values):
        return values


class Training:
    """A chain trained by the engine in a folder, as far as it was committed there."""

    def __init__(self, folder, chain, config, *, in_memory=True, resident=1, prefetch=False):
        self.folder, self.chain, self.config, self.in_memory = folder, chain, config, in_memory
        self.resident, self.prefetch = resident, prefetch
        self.position, self.files, self.boundaries = 0, {}, []

    def shape_of(self, module):
        return _outputs(self.chain, self.config.bfloat16)[self.chain.module_blocks(module)[-1]]

    def _local(self, chain, module):
        return LocalModule(chain, module, self.shape_of(module)[0], self.config)

    def _build(self, module):
        with torch.device("meta"):
            local = self._local(self.chain, module)
        return local.materialise("cpu")

    def _initialise(self, module):
        local = self._local(self.chain.seeded(3), module)
        self.chain.initialise(module, local.trunk, local.head, 3)
        return local.materialise("cpu")

    def _spec_of(self, boundary):
        shape, dtype = self.shape_of(boundary.module - 1)
        return BoundarySpec(
            name=boundary.name, shape=shape, dtype=dtype, records=boundary.records, in_memory=self.in_memory
        )

    def open(self):
        """The rooms, as the last commit left them."""
        largest = max(map(_bytes, map(self._initialise, range(len(self.chain)))))
        activations = ActivationStore(self.folder / "boundaries", NUM_SAMPLES, BATCH)
        activations.restore(self.boundaries)
        return EngineContext(
            modules=ModuleStore(
                self.folder / "modules",
                build=self._build,
                initialise=self._initialise,
                limits=[self.resident * largest] * len(self.chain),
                committed=self.files,
            ),
            activations=activations,
            feed=Noise(),
            meter=Meter(),
            learning_rate=lambda visit, batch: 0.1 / (1 + visit.span.epoch + batch),
            spec_of=self._spec_of,
            seed=7,
            prefetch=self.prefetch,
            work_mb=lambda visit, num_samples: 0.0,
            headroom=Headroom(None),
        )

    def visits(self):
        paged = len(self.chain) > 1
        schedule = Schedule(regime="end-to-end", epochs=(EPOCHS,) * len(self.chain), paged=paged)
        return list(schedule.visits(_shape(len(self.chain))))

    def run(self, *, commit_at=(), stop_at=None):
        """Train from the last commit to the end, or to a crash in the visit after position `stop_at`."""
        rooms = self.open()
        losses = []

        def after(position, visit, local):
            losses.append((visit.kind, local.take_totals()))
            if position in commit_at:
                self._commit(rooms, position)
            if position == stop_at:
                raise InterruptedError

        try:
            walk(self.visits(), rooms, after, start=self.position)
        except InterruptedError:
            rooms.activations.close()
            return losses
        assert rooms.activations.names == ()
        self._commit(rooms, len(self.visits()))
        return losses

    def _commit(self, rooms, position):
        files, self.boundaries = rooms.modules.commit(), rooms.activations.commit()
        self.position, self.files = position, files
        rooms.activations.sweep()
        rooms.modules.committed(files)

    def tensors(self):
        """Every tensor by the number of its block in the chain, whatever module that is in."""
        store, found = self.open().modules, {}
        for module in range(len(self.chain)):
            for name, tensor in store.open(module).tensors().items():
                before, of_trunk, rest = name.partition("trunk.")
                if of_trunk:
                    block, _, rest = rest.partition(".")
                    before += f"block {self.chain.starts[module] + int(block)} "
                found[before + rest] = tensor.clone()
        return found


def _shape(num_modules):
    return JobSize(num_modules=num_modules, num_samples=NUM_SAMPLES, batch_size=BATCH, augmented=True)


def _bytes(local):
    return sum(tensor.nbytes for tensor in local.tensors().values())


@lru_cache(maxsize=100)
def _outputs(chain, bfloat16):
    """JobSize and dtype of a sample at the output of each block."""
    x, found = torch.zeros(2, *IMAGE), []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for block in chain.blocks:
            x = block()(x)
            found.append((tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")))
    return found


class Turned(nn.Module):
    """Gives its output, and so its gradient takes, another layout than channels-last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).transpose(2, 3).contiguous()


def _normed(channels=4):
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())


def _norm_first():
    return nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))


def _pooled():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))


def _drawn():
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.1))


def _vectors():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.LayerNorm(7), nn.GELU(), nn.Dropout(0.2))


def _resnet():
    """The first block with its stem, two plain ones, a widening one, and one after it."""
    chain = resnet110(input_shape=IMAGE, num_classes=CLASSES, num_modules=54)
    return replace(chain, blocks=(*chain.blocks[:3], *chain.blocks[18:20]), starts=(0, 1, 2, 3, 4), gain=0.7)


def _chain_of(*blocks, head="linear"):
    chain = Chain.from_blocks(
        [partial(nn.Conv2d, 3, 4, 3, padding=1), *blocks], input_shape=IMAGE, num_classes=CLASSES, head=head
    )
    return replace(chain, gain=0.7)


NETS = {
    "km": lambda: replace(km_resnet(3, 2, input_shape=IMAGE, num_classes=CLASSES, width=4), gain=0.7),
    "resnet": _resnet,
    "dropout": lambda: _chain_of(_drawn, _normed, _drawn, head="conv"),
    "layouts": lambda: _chain_of(Turned, _norm_first, Turned, _norm_first),
    "vectors": lambda: replace(_chain_of(_normed, _pooled, _vectors, partial(nn.Linear, 7, 7)), gain=None),
}


def _end_to_end(name, starts):
    chain = NETS[name]()
    return replace(chain, end_to_end=True, starts=starts or tuple(range(len(chain.blocks))))


def _assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture
def trained(tmp_path):
    """A function that trains a chain to its end and returns its tensors and what was counted."""
    folders = (tmp_path / str(number) for number in range(100))

    def train(chain, config=CONFIG, **options):
        folder = next(folders)
        folder.mkdir()
        training = Training(folder, chain, config, **options)
        losses = training.run()
        return training.tensors(), [counted for kind, counted in losses if kind == "train"]

    return train


WAYS = {
    "plain": {},
    "norms": {"recompute": "norms"},
    "blocks": {"recompute": "blocks"},
    "late": {"early_update": False},
    "adamw": {"optimizer": "adamw"},
    "bfloat16": {"bfloat16": True},
    "micro-batch": {"micro_batch": 3},
    "all": {"bfloat16": True, "micro_batch": 3, "recompute": "blocks"},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETS)
def test_paged_is_whole(trained, name, way):
    config = replace(CONFIG, **WAYS[way])
    whole = trained(_end_to_end(name, (0,)), config)
    assert all(torch.isfinite(tensor).all() for tensor in whole[0].values())
    for starts in (None, (0, 2)):
        paged = trained(_end_to_end(name, starts), config)
        _assert_same(whole[0], paged[0])
        assert whole[1] == paged[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_recompute_in_a_paged_module_changes_no_bit(trained, name):
    ends = [
        trained(_end_to_end(name, (0, 2)), replace(CONFIG, recompute=recompute))[0]
        for recompute in ("none", "blocks")
    ]
    _assert_same(*ends)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"in_memory": False}, {"resident": 2}, {"resident": 3, "prefetch": True}])
def test_where_modules_and_boundaries_are_changes_no_bit(trained, options):
    chain = _end_to_end("resnet", None)
    _assert_same(trained(chain)[0], trained(chain, **options)[0])


def test_training_goes_somewhere(trained, tmp_path):
    """Every weight of every module has moved, and batch norm has counted each batch once."""
    chain = _end_to_end("km", None)
    first = Training(tmp_path, chain, CONFIG)
    first._commit(rooms := first.open(), 0)
    for module in range(len(chain)):
        rooms.modules.open(module)
    first._commit(rooms, 0)
    begun, (ended, counted) = first.tensors(), trained(chain)
    assert begun.keys() == ended.keys()
    for name, tensor in ended.items():
        if name.endswith("num_batches_tracked"):
            assert int(tensor) == len(counted) == EPOCHS * (NUM_SAMPLES // BATCH)
        else:
            assert not torch.equal(tensor, begun[name]), name


def test_only_the_last_module_has_a_head():
    chain = _end_to_end("km", None)
    assert [chain.has_head(module) for module in range(6)] == [False] * 5 + [True]
    assert all(_local_head(chain, module) == [] for module in range(5))
    assert _local_head(chain, 5)
    assert all(replace(chain, end_to_end=False).has_head(module) for module in range(6))


def _local_head(chain, module):
    return list(LocalModule(chain, module, (8, 2, 2), CONFIG).head.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_crash_after_any_visit_changes_no_bit(tmp_path, trained, in_memory):
    chain = _end_to_end("dropout", None)
    whole = trained(chain)[0]
    num_visits = len(Training(tmp_path, chain, CONFIG).visits())
    # Two rounds of four modules, and the first visits of the next.
    for position in range(1, 2 * 7 + 2):
        assert position + 2 < num_visits
        folder = tmp_path / f"crash{position}"
        folder.mkdir()
        training = Training(folder, chain, CONFIG, in_memory=in_memory)
        training.run(commit_at=[position], stop_at=position + 2)
        assert training.position == position
        training.run()
        _assert_same(whole, training.tensors())


def test_grouping_leaves_the_first_weights(tmp_path):
    """Those that constructors draw as well as those that are drawn again."""
    for name, number in (("km", 0), ("vectors", 1)):
        found = []
        for starts in ((0,), None, split_by_depth(len(NETS[name]().blocks), 2)):
            folder = tmp_path / f"{number}-{len(found)}"
            folder.mkdir()
            training = Training(folder, _end_to_end(name, starts), CONFIG)
            rooms = training.open()
            for module in range(len(training.chain)):
                rooms.modules.open(module)
            training._commit(rooms, 0)
            found.append(training.tensors())
        for other in found[1:]:
            _assert_same(found[0], other)


def test_a_run_trains_paged_what_it_trains_whole(plan_run, follow, finish):
    from edge_trgl.engine.open_run import open_run

    found = {}
    for order, num_modules in (("stream", 1), ("rounds", 3)):
        run = plan_run(order, train__regime="end-to-end")
        follow(run, order)
        result = finish(run).result
        opened = open_run(run)
        assert len(opened) == result.scores.chosen_depth == num_modules
        assert len(result.scores.per_depth) == len(result.scores.test_per_depth) == 1
        found[order] = result.scores.test_per_depth, _final(opened)
    assert found["stream"][0] == found["rounds"][0]
    _assert_same(found["stream"][1], found["rounds"][1])


def _final(opened):
    """Weights and buffers by block."""
    chain, store = opened.factory.chain, opened.modules()
    return {
        (chain.starts[module] + number, name): tensor.clone()
        for module in range(len(chain))
        for number, block in enumerate(store.open(module).trunk)
        for name, tensor in block.state_dict().items()
    } | {("head", name): tensor for name, tensor in store.open(len(chain) - 1).head.state_dict().items()}
