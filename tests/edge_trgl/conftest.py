"""Small nets and batches that several tests train; verbs as processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.zoo import km_resnet

# More threads than one would wait for each other on tensors as small as these.
torch.set_num_threads(1)

IMAGE = (3, 8, 8)
CLASSES = 5


class NormBlock(nn.Module):
    """A residual block with batch norm, as the networks of the paper have it."""

    def __init__(self, channels=4):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.residue = Residue()

    def branch(self, x):
        return self.conv(functional.relu(self.norm(x)))

    def forward(self, x):
        return x + self.residue(self.branch(x))


class DropoutBlock(nn.Module):
    """A residual block that draws at random and has no batch norm."""

    def __init__(self, channels=4, rate=0.4):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(rate)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.residue = Residue()

    def branch(self, x):
        return self.conv2(self.dropout(torch.tanh(self.conv1(x))))

    def forward(self, x):
        return x + self.residue(self.branch(x))


class PlainBlock(nn.Conv2d):
    """A layer of equal shapes that marks no residue."""

    def __init__(self, channels=4):
        super().__init__(channels, channels, 3, padding=1)


class Stem(nn.Conv2d):
    """From images to the channels of the blocks."""

    def __init__(self, channels=4):
        super().__init__(IMAGE[0], channels, 3, padding=1)


def chain_of(*blocks, num_modules=1, head="conv", **options):
    """The blocks (factories) as a chain; a first one that reads images comes before them."""
    chain = Chain.from_blocks(
        [Stem, *blocks], input_shape=IMAGE, num_classes=CLASSES, num_modules=num_modules, head=head
    )
    return replace(chain, gain=0.7, **options)


CHAINS = {
    "norm": lambda: chain_of(NormBlock, NormBlock),
    "dropout": lambda: chain_of(DropoutBlock, DropoutBlock, head="linear"),
    "plain": lambda: chain_of(PlainBlock, NormBlock, DropoutBlock),
    "km": lambda: km_resnet(2, 2, input_shape=IMAGE, num_classes=CLASSES, width=4),
}


def built(chain, module, config, *, shape=(4, 8, 8), seed=0):
    """Module `module` with its first weights."""
    local = LocalModule(chain, module, shape, config)
    chain.initialise(module, local.trunk, local.readers(), seed)
    return local.materialise("cpu")


def batches(num, size=6, shape=IMAGE, seed=0):
    """`num` batches of noise, channels-last, with labels."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(num):
        x = torch.randn(size, *shape, generator=generator).contiguous(memory_format=torch.channels_last)
        pairs.append((x, torch.randint(CLASSES, (size,), generator=generator)))
    return pairs


def trained(chain, transport, *, steps=3, size=6, **options):
    """Everything that some steps leave behind: tensors, emitted outputs, totals."""
    config = StepConfig(transport=transport, label_smoothing=0.1, weight_decay=1e-3, **options)
    shape = (4, 4, 4) if chain.name.startswith("km") else (4, 8, 8)
    local, emitted = built(chain, 0, config, shape=shape), []
    for step, (x, y) in enumerate(batches(steps, size)):
        local.train_step(x, y, lr=0.1, seed=step, emit=lambda out: emitted.append(out.detach().clone()))
    return local.tensors(), emitted, local.take_totals()


def assert_same(first, second):
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]), name
    assert [part.shape for part in first[1]] == [part.shape for part in second[1]]
    assert all(map(torch.equal, first[1], second[1]))
    assert first[2][:3] == second[2][:3]
    assert first[2][3] == pytest.approx(second[2][3], rel=1e-6)


@pytest.fixture(autouse=True)
def _seeded():
    """What a test draws without a generator of its own is the same whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def nets():
    """The blocks, chains and helpers above, as one object."""
    return SimpleNamespace(
        CHAINS=CHAINS,
        DropoutBlock=DropoutBlock,
        NormBlock=NormBlock,
        PlainBlock=PlainBlock,
        assert_same=assert_same,
        batches=batches,
        built=built,
        chain_of=chain_of,
        trained=trained,
    )


@pytest.fixture
def start(tmp_path):
    """Starts a verb in the test's folder; returns its process as soon as it has said `until`."""
    processes = []

    def start(*arguments, until):
        command = [sys.executable, "-m", "edge_trgl", *arguments]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert any(until in line for line in process.stderr), f"it ended with code {process.wait()} before"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="session")
def joined():
    """Traces modules, pairs of a trunk and its head or None, and joins them, as `jobs.export` does.

    Gives the model and its weights. What is left out of the options suits images.
    """
    from edge_trgl.config.export_request import TARGETS, output_names
    from edge_trgl.export.graph.join import join
    from edge_trgl.export.graph.names import boundary_name
    from edge_trgl.export.graph.stage import Stage
    from edge_trgl.export.graph.trace import trace
    from edge_trgl.export.onnx_file.weights import Weight
    from edge_trgl.runtime.storage import safetensors_file

    def joined(folder, modules, normalisation, *, target="generic", batch=None, metadata=None):
        names = output_names([depth for depth, (_, head) in enumerate(modules, 1) if head is not None])
        parts, weights, shape = [], [], normalisation.input_shape
        for depth, (trunk, head) in enumerate(modules, 1):
            goes_on = depth < len(modules)
            stage = Stage(trunk, head, goes_on=goes_on, normalisation=normalisation if depth == 1 else None)
            exits = ([boundary_name(depth)] if goes_on else []) + ([names[depth]] if depth in names else [])
            parts.append(trace(stage, depth, shape, exits, opset=TARGETS[target].opset))
            shape = next(iter(parts[-1].exits.values()))
            path = folder / f"m{depth}.safetensors"
            safetensors_file.write(path, stage.tensors(), durable=False)
            infos = safetensors_file.read_header(path)
            for name, own in parts[-1].weights.items():
                info = infos[own]
                dtype = str(info.dtype).removeprefix("torch.")
                place = {"path": path, "start": info.start, "num_bytes": info.stop - info.start}
                weights.append(Weight(name=name, dtype=dtype, shape=info.shape, **place))
        model = join(
            parts,
            input_shape=normalisation.input_shape,
            outputs=list(names.values()),
            target=TARGETS[target],
            batch=batch,
            metadata=metadata or {},
        )
        return model, weights

    return joined


@pytest.fixture(scope="session")
def unpublished(joined):
    """Writes what `joined` gives: the files before they are published."""
    from edge_trgl.config.export_request import TARGETS
    from edge_trgl.export.onnx_file import onnx_file

    def write(folder, modules, normalisation, *, target="generic", batch=None, metadata=None, **options):
        model, weights = joined(folder, modules, normalisation, target=target, batch=batch, metadata=metadata)
        files = onnx_file.write(model, weights, folder / "model.onnx", **options)
        onnx_file.check(files, TARGETS[target])
        return files

    return write


@pytest.fixture(scope="session")
def exported(unpublished):
    """The same, published: the path of the model."""
    from edge_trgl.export.onnx_file import onnx_file

    def write(folder, modules, normalisation, **options):
        files = unpublished(folder, modules, normalisation, **options)
        onnx_file.publish(files)
        return files.model

    return write
