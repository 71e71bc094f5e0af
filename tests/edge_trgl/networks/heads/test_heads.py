"""Heads: parameters, the forward pass written out, and memory with and without recomputing."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.heads import HEADS, build_head, to_two_by_two
from edge_trgl.planning.count import chain_costs

MAPS = [(6, 8, 8), (6, 7, 7), (6, 4, 8), (6, 1, 1), (6, 9, 5), (6, 2, 3)]
WINDOWS = [(6, 8), (6, 7), (6, 1), (6, 17)]


def _num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---- parameters and multiplications


def test_the_papers_head_has_its_parameters():
    assert _num_parameters(build_head("conv", (256, 16, 16), 100, to_two_by_two)) == 692_836
    assert _num_parameters(build_head("conv", (256, 16, 16), 100, lambda side: 8)) == 692_836
    # conv 64·64·9, BN 2·64, linear 64·1·10 + 10: one position of 8 pixels.
    assert _num_parameters(build_head("conv", (64, 8, 8), 10, lambda side: 8)) == 36_864 + 128 + 650


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("linear", (7, 4, 4), 7 * 5 + 5),
        ("tokens", (7, 4, 4), 2 * 7 + 7 * 5 + 5),
        ("deep", (7, 4, 4), 2 * (7 * 7 * 9 + 2 * 7) + 2 * 7 + 7 * 4 * 5 + 5),
        ("pooled", (7, 16, 16), 3 * (7 * 7 + 2 * 7) + (7 * 4 * 7 + 7) + 2 * 7 + 7 * 5 + 5),
        ("conv", (7, 8), 7 * 7 * 3 + 2 * 7 + 7 * 2 * 5 + 5),
        ("deep", (7, 8), 2 * (7 * 7 * 3 + 2 * 7) + 2 * 7 + 7 * 2 * 5 + 5),
        ("pooled", (7, 8), 3 * (7 * 7 + 2 * 7) + (7 * 2 * 7 + 7) + 2 * 7 + 7 * 5 + 5),
        ("tokens", (7,), 2 * 7 + 7 * 5 + 5),
        ("lite", (7, 16, 16), 2 * 7 + 7 * 16 * 5 + 5),
        ("lite", (7, 3, 8), 2 * 7 + 7 * 3 * 4 * 5 + 5),
        ("lite", (7, 100), 2 * 7 + 7 * 4 * 5 + 5),
        ("lite", (7,), 2 * 7 + 7 * 5 + 5),
        ("mlp", (32, 14, 14), 6272 * 100 + 100 + 2 * 100 + 100 * 5 + 5),
        ("mlp", (7,), 7 * 100 + 100 + 2 * 100 + 100 * 5 + 5),
    ],
)
def test_every_weight_is_accounted_for(name, shape, expected):
    assert _num_parameters(build_head(name, shape, 5, to_two_by_two)) == expected


def _multiplications(head, shape):
    """Multiplications of the convolutions and linear layers for one sample."""
    counted = []

    def count(layer, inputs, output):
        counted.append(layer.weight[0].numel() * output[0].numel())

    for layer in head.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    head(torch.zeros(2, *shape))
    return sum(counted)


@pytest.mark.parametrize("shape", [(256, 16, 16), (512, 8, 8), (16, 96, 96), (64, 24, 24)])
def test_the_pooled_head_takes_less_than_five_hundredths_of_the_papers_multiplications(shape):
    heads = (build_head(name, shape, 10, to_two_by_two) for name in ("conv", "pooled"))
    conv, pooled = (_multiplications(head, shape) for head in heads)
    assert conv > shape[0] ** 2 * 9 * shape[1] * shape[2]
    assert 0.02 < pooled / conv < 0.05


# ---- the forward


@pytest.mark.parametrize(("side", "kernel"), [(1, 1), (2, 1), (3, 1), (7, 3), (8, 4), (14, 7), (16, 8)])
def test_two_by_two_positions(side, kernel):
    assert to_two_by_two(side) == kernel
    assert side // kernel == (2 if side not in (1, 3) else side)


def _convolved(x, conv):
    convolve = functional.conv2d if x.dim() == 4 else functional.conv1d
    return convolve(x, conv.weight, padding=conv.kernel_size[0] // 2)


def _averaged(x, size):
    return (functional.avg_pool2d if x.dim() == 4 else functional.avg_pool1d)(x, size)


def _normed(x, norm, mean, variance):
    """(x − mean)/deviation · γ + β; of the batch in training, else the running ones."""
    dims = [d for d in range(x.dim()) if d != 1]
    if norm.training:
        mean, variance = x.mean(dims), x.var(dims, unbiased=False)
    shape = (-1, *[1] * (x.dim() - 2))
    scaled = (x - mean.view(shape)) / (variance.view(shape) + norm.eps).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def _linear(x, layer):
    return x @ layer.weight.T + layer.bias


def _layer_normed(x, norm):
    deviation = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


def _window_means(x, side, dim):
    """Means over kernels of `side`; the last one may cover fewer pixels."""
    return torch.stack([part.mean(dim) for part in x.split(side, dim)], dim)


def _conv(head, x, normed):
    kernel = max(min(x.shape[2:]) // 2, 1)
    inner = _averaged(torch.relu(_convolved(x, head.conv)), kernel)
    return _linear(normed(inner, "norm").flatten(1), head.linear)


def _deep(head, x, normed):
    kernel = max(min(x.shape[2:]) // 2, 1)
    inner = torch.relu(normed(_convolved(x, head.conv1), "norm1"))
    inner = torch.relu(normed(_convolved(inner, head.conv2), "norm2"))
    return _linear(normed(_averaged(inner, kernel), "norm3").flatten(1), head.linear)


def _pooled(head, x, normed):
    for dim in range(2, x.dim()):
        # A fourth of the side; of sides up to 8, two positions.
        x = _window_means(x, 4 if x.shape[dim] > 8 else -(-x.shape[dim] // 2), dim)
    for number in (0, 3, 6):
        x = torch.relu(normed(_convolved(x, head.mixing[number]), f"mixing.{number + 1}"))
    for dim in range(2, x.dim()):
        x = _window_means(x, -(-x.shape[dim] // 2), dim)
    hidden = torch.relu(_layer_normed(_linear(x.flatten(1), head.hidden), head.norm))
    return _linear(hidden, head.linear)


def _lite(head, x, normed):
    x = x.flatten(2) if x.dim() > 4 else x
    for dim in range(2, x.dim()):
        windows = x.split(-(-x.shape[dim] // 4), dim)  # at most four
        x = torch.stack([window.amax(dim) for window in windows], dim)
    return _linear(normed(x, "norm").flatten(1), head.linear)


def _mlp(head, x, normed):
    hidden = torch.relu(normed(_linear(x.flatten(1), head.layers[1]), "layers.2"))
    return _linear(hidden, head.layers[4])


def _mean(head, x, normed):
    return _linear(x.reshape(*x.shape[:2], -1).mean(2), head.linear)


def _tokens(head, x, normed):
    positions = x.reshape(*x.shape[:2], -1).unbind(2)
    return _linear(sum(_layer_normed(position, head.norm) for position in positions) / len(positions), head.linear)


NAIVE = {
    "conv": _conv,
    "deep": _deep,
    "linear": _mean,
    "lite": _lite,
    "mlp": _mlp,
    "pooled": _pooled,
    "tokens": _tokens,
}
READ = [
    *itertools.product(NAIVE, [*MAPS, *WINDOWS]),
    *itertools.product(("linear", "lite", "mlp", "tokens"), [(6,), (6, 2, 3, 2)]),
]


def _randomised(head):
    generator = torch.Generator().manual_seed(3)
    for name, values in [*head.named_parameters(), *head.named_buffers()]:
        if values.is_floating_point():
            values.data = torch.rand(values.shape, generator=generator) - (0 if "running_var" in name else 0.4)
    return head


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "shape"), READ)
def test_a_head_step_by_step(name, shape, training):
    head = _randomised(build_head(name, shape, 3, to_two_by_two)).train(training)
    running = copy.deepcopy(dict(head.named_buffers()))

    def normed(values, norm):
        mean, variance = (running[f"{norm}.running_{name}"] for name in ("mean", "var"))
        return _normed(values, head.get_submodule(norm), mean, variance)

    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(head(x), NAIVE[name](head, x, normed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [*MAPS[:2], WINDOWS[0]])
@pytest.mark.parametrize("name", [name for name in HEADS if name != "mlp"])
def test_a_head_reads_a_single_sample_in_training_where_there_are_positions(name, shape):
    head = build_head(name, shape, 3, to_two_by_two).train()
    assert head(torch.randn(1, *shape)).shape == (1, 3)


def test_shapes_that_do_not_suit_are_named():
    for name, shape in itertools.product(("conv", "deep", "pooled"), [(6,), (6, 5, 4, 3)]):
        with pytest.raises(
            ValueError, match=rf"the {name} head reads maps \[C, H, W\] or windows \[C, L\]"
        ) as caught:
            build_head(name, shape, 3, to_two_by_two)
        assert str(caught.value).endswith(f"this module's output is {list(shape)}")
    with pytest.raises(ValueError, match=r"output \[6, 0, 4\] is empty: the input is too small"):
        build_head("linear", (6, 0, 4), 3, to_two_by_two)
    with pytest.raises(
        ValueError, match=r"there is no head 'round'; known: conv, deep, linear, lite, mlp, pooled, tokens"
    ):
        build_head("round", (6, 4, 4), 3, to_two_by_two)


# ---- in a step


def _all_of(name, shape, recompute, *, bfloat16=False):
    """All tensors of a block with this head after some training steps."""
    chain = Chain.from_blocks([_Scale], input_shape=shape, num_classes=3, head=name)
    config = StepConfig(transport=Transport(tau=None), recompute=recompute, bfloat16=bfloat16)
    torch.manual_seed(0)
    local = LocalModule(chain, 0, shape, config)
    _randomised(local.head)
    local.materialise("cpu")
    generator = torch.Generator().manual_seed(5)
    for step in range(3):
        x, y = torch.randn(6, *shape, generator=generator), torch.randint(3, (6,), generator=generator)
        local.train_step(x, y, lr=0.1, seed=step)
    return local.tensors()


class _Scale(nn.Module):
    """A weight for each channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.weight.view(-1, *(1,) * (x.dim() - 2))


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, s in READ if s != (6, 1, 1)])
def test_a_head_gives_the_same_bits_however_little_is_kept(name, shape, bfloat16):
    expected = _all_of(name, shape, "none", bfloat16=bfloat16)
    for recompute in ("norms", "blocks"):
        found = _all_of(name, shape, recompute, bfloat16=bfloat16)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert not torch.equal(expected["trunk.0.weight"], torch.ones(6))


def _maps(name, recompute):
    """The peak of a step on 64 samples, in maps of the block's size."""
    shape = (6, 16, 16)
    chain = Chain.from_blocks([_Scale], input_shape=shape, num_classes=3, head=name)
    (cost,) = chain_costs(chain, StepConfig(transport=Transport(tau=None)))
    return cost.steps[recompute].peak_tensors(64) / (64 * 6 * 16 * 16 * 4)


@pytest.mark.parametrize("name", ["conv", "deep"])
def test_a_head_that_keeps_less_takes_a_map_less(name):
    assert _maps(name, "none") - _maps(name, "norms") > 0.9
