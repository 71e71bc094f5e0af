"""Each test computes in a process of its own: torch is loaded once in a process."""

import json
import os
import subprocess
import sys

import pytest

from edge_trgl.runtime.memory.without import WITHOUT

BEGIN = """
import json, sys
from pathlib import Path
from edge_trgl.runtime.memory import file_pages, high_water
from edge_trgl.runtime.processes import light_torch
told = []
light_torch.install(told.append)
import torch
from torch import nn
from torch.nn import functional
torch.set_num_threads(1)
"""

STEPS = """
import hashlib
torch.manual_seed(0)
class Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x / 2
    @staticmethod
    def backward(ctx, gradient): return gradient / 2
net = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(2, 8), nn.GELU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
    nn.LayerNorm(72), nn.Unflatten(1, (9, 8)), nn.MultiheadAttention(8, 2, batch_first=True)
)
def out(x):
    *layers, attention = net
    for layer in layers: x = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return Halves.apply(attention(x, x, x)[0].float().flatten(1))
for size in (2, 16, 16):
    x = torch.rand(size, 3, 12, 12, generator=torch.Generator().manual_seed(size)).contiguous(
        memory_format=torch.channels_last
    )
    loss = functional.cross_entropy(out(x), torch.arange(size) % 72, label_smoothing=0.1)
    loss.backward()
    weights = [weight for weight in net.parameters() if weight.grad is not None]
    torch._fused_sgd_(weights, [weight.grad for weight in weights], [torch.zeros_like(w) for w in weights],
        weight_decay=1e-4, momentum=0.9, lr=0.1, dampening=0, nesterov=False, maximize=False, is_first_step=False)
    for weight in weights: weight.grad = None
    file_pages.give_back()
content = b"".join(tensor.detach().numpy().tobytes() for tensor in net.state_dict().values())
result = {"sha": hashlib.sha256(content).hexdigest(), "loss": loss.item()}
"""

END = """
print(json.dumps({"result": result, "told": told, "peak_mb": high_water.peak_mb(), "modules": len(sys.modules)}))
"""


def done(code, without=""):
    environment = {**os.environ, WITHOUT: without, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BEGIN + code + END]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.slow
def test_the_same_weights_in_less_memory():
    ways = {without: done(STEPS, without) for without in ("", "diet", "file-pages", "diet,file-pages")}
    assert len({json.dumps(way["result"]) for way in ways.values()}) == 1
    assert all(way["told"] == [] for way in ways.values())
    peaks = {without: way["peak_mb"] for without, way in ways.items()}
    assert peaks[""] < min(peaks["diet"], peaks["file-pages"]) < peaks["diet,file-pages"]
    assert ways[""]["modules"] < ways["diet"]["modules"] == ways["diet,file-pages"]["modules"]


USES = {
    "optim": "torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1).step(); result = 1",
    "distributions": "from torch.distributions.normal import Normal; result = Normal(0., 1.).sample().dim()",
    "fx": "from torch.fx import symbolic_trace; result = len(symbolic_trace(nn.ReLU()).code)",
    "functional": "from torch.func import vmap; result = vmap(torch.sum)(torch.ones(2, 3)).tolist()",
    "hub": "result = isinstance(torch.hub.get_dir(), str)",
    "data": "from torch.utils.data import DataLoader; result = [len(x) for x in DataLoader([1, 2, 3], 2)]",
    "masked": "result = isinstance(torch.masked.masked_tensor, object) and torch.masked.__name__",
    "profiler": "from torch.profiler import profile\nwith profile(): torch.ones(2).sum()\nresult = 1",
    "ao": "from torch.ao.nn.quantized import Linear; result = Linear(2, 2).in_features",
    "testing": "torch.testing.assert_close(torch.ones(2), torch.ones(2)); result = 1",
    "distributed": "from torch.distributed.algorithms.join import Join; result = Join.__name__",
    "parallel": "result = isinstance(nn.ReLU(), nn.parallel.DistributedDataParallel)",
    "fake tensors": """
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode(): result = list(nn.Conv2d(3, 4, 3)(torch.empty(2, 3, 8, 8)).shape)
""",
    "dynamo": "import torch._dynamo; result = torch._dynamo.is_compiling()",
}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_what_was_left_out_comes_when_it_is_used(use):
    with_diet = done(use)
    assert with_diet["result"] == done(use, "diet")["result"]
    assert len(with_diet["told"]) <= 1


def test_a_process_that_has_torch():
    code = "result = [type(finder).__name__ for finder in sys.meta_path]"
    before = "import torch\n"
    command = [sys.executable, "-c", before + BEGIN + code + END]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "StandIns" not in found["result"]
