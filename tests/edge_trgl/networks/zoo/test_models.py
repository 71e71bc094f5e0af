"""The networks of the paper: parameters, shapes, order of layers, splits and names."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_trgl.networks.catalogue import build_chain
from edge_trgl.networks.chain import Chain
from edge_trgl.networks.open_net import open_net
from edge_trgl.networks.zoo import km_resnet, resnet110
from edge_trgl.networks.zoo.km_resnet import PreActivationBlock
from edge_trgl.networks.zoo.resnet110 import PostActivationBlock, Stem
from edge_trgl.runtime.errors import InputError, UsageError

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 10}


def _num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _trunks(chain):
    with torch.device("meta"):
        return [chain.trunk(module) for module in range(len(chain))]


def _shapes(chain, batch_size=2):
    """Output shape of every module, from a forward pass on meta tensors."""
    shapes = []
    with torch.device("meta"):
        x = torch.empty(batch_size, *chain.input_shape)
        for trunk in _trunks(chain):
            x = trunk(x)
            shapes.append(tuple(x.shape[1:]))
    return shapes


def test_km_10_1_has_the_papers_parameters():
    trunks = _trunks(km_resnet(10, 1, **CIFAR))
    counts = [_num_parameters(trunk) for trunk in trunks]
    assert counts == [2_003_968, *[1_180_672] * 4, 4_850_688, *[4_720_640] * 4]
    assert sum(counts) == 30_459_904
    encoder, first = trunks[0][0].children()
    assert _num_parameters(encoder) == 823_808
    assert _num_parameters(first) == 1_180_160


def test_km_2_7_with_heads_has_the_papers_parameters():
    chain = km_resnet(2, 7, **CIFAR)
    shapes = _shapes(chain)
    with torch.device("meta"):
        heads = [chain.classifier(module, shape) for module, shape in enumerate(shapes)]
    total = sum(_num_parameters(part) for part in [*_trunks(chain), *heads])
    assert round(total / 1e6, 1) == 45.2
    assert shapes == [(256, 16, 16), (512, 8, 8)]


@pytest.mark.parametrize("downsample", [None, (2,)])
def test_a_separate_encoder_is_one_module_more(downsample):
    options = {**CIFAR, "downsample": downsample, "width": 256}
    chain, joined = (build_chain(name, **options) for name in ("km-3-2-encoder", "km-3-2"))
    assert chain.starts == (0, 1, 3, 5)
    assert (chain.name, chain.exempt_blocks) == ("km-3-2-encoder", 2)
    counts, others = ([_num_parameters(trunk) for trunk in _trunks(net)] for net in (chain, joined))
    assert counts[0] == 823_808
    assert counts[1:] == [others[0] - 823_808, *others[1:]]
    assert _shapes(chain)[1:] == _shapes(joined)


def test_resnet110_has_its_parameters():
    chain = resnet110(**CIFAR)
    assert sum(map(_num_parameters, _trunks(chain))) == 1_727_312
    assert len(chain.blocks) == 54


@pytest.mark.parametrize(("num_modules", "downsample"), [(10, 5), (2, 1), (3, 1), (7, 3)])
@pytest.mark.parametrize("side", [32, 28])
def test_km_maps_are_halved_twice(num_modules, downsample, side):
    chain = km_resnet(num_modules, 2, input_shape=(3, side, side), num_classes=10, width=8)
    before, after = (8, side // 2, side // 2), (16, side // 4, side // 4)
    assert _shapes(chain) == [before] * downsample + [after] * (num_modules - downsample)


@pytest.mark.parametrize("num_modules", [1, 20])
def test_km_nets_that_do_not_downsample(num_modules):
    chain = km_resnet(num_modules, 1, input_shape=(1, 28, 28), num_classes=10, width=8)
    assert _shapes(chain) == [(8, 14, 14)] * num_modules


def test_downsampling_where_it_is_asked_for():
    chain = km_resnet(4, 1, **CIFAR, width=4, downsample=(1, 3))
    assert _shapes(chain) == [(4, 16, 16), (8, 8, 8), (8, 8, 8), (16, 4, 4)]
    assert _shapes(km_resnet(3, 1, **CIFAR, width=4, downsample=())) == [(4, 16, 16)] * 3


@pytest.mark.parametrize("num_modules", [1, 2, 5])
@pytest.mark.parametrize("blocks_per_module", [1, 3])
def test_any_number_of_modules_and_blocks(num_modules, blocks_per_module):
    chain = build_chain(f"km-{num_modules}-{blocks_per_module}", **CIFAR, width=4)
    trunks = _trunks(chain)
    assert [len(trunk) for trunk in trunks] == [blocks_per_module] * num_modules
    blocks = [part for trunk in trunks for part in trunk.modules() if isinstance(part, PreActivationBlock)]
    assert len(blocks) == num_modules * blocks_per_module
    # The first block, and the first after downsampling, have no leading norm.
    bare = {0, (num_modules // 2) * blocks_per_module}
    assert [block.norm1 is None for block in blocks] == [number in bare for number in range(len(blocks))]
    assert chain.exempt_blocks == 1
    assert chain.gain == 0.05


def _norm(x, norm):
    return functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def _randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.2, 0.3)
    return module.train()


def _conv(x, conv, **options):
    return functional.conv2d(x, conv.weight, conv.bias, **options)


@pytest.mark.parametrize("leading", [True, False])
def test_pre_activation_block_step_by_step(leading):
    block, x = _randomised(PreActivationBlock(4, leading=leading)), torch.randn(3, 4, 6, 6)
    inner = torch.relu(_norm(x, block.norm1)) if leading else x
    inner = torch.relu(_norm(_conv(inner, block.conv1, padding=1), block.norm2))
    torch.testing.assert_close(block(x), x + _conv(inner, block.conv2, padding=1))
    assert block.conv1.bias is None
    assert block.conv2.bias is None


def test_first_and_downsampling_modules_step_by_step():
    chain = km_resnet(2, 1, input_shape=(3, 8, 8), num_classes=2, width=4)
    x = torch.randn(3, 3, 8, 8)
    first, second = (_randomised(chain.trunk(module)) for module in range(2))
    encoder, block = first[0].children()
    inner = torch.relu(_norm(_conv(x, encoder.conv1, padding=1), encoder.norm1))
    inner = torch.relu(_norm(_conv(inner, encoder.conv2, padding=2, stride=2), encoder.norm2))
    out = first(x)
    torch.testing.assert_close(out, block(inner))
    halve, block = second[0].children()
    assert (halve.conv.kernel_size, halve.conv.bias) == ((1, 1), None)
    torch.testing.assert_close(second(out), block(_conv(out, halve.conv, stride=2)))


@pytest.mark.parametrize("channels", [4, 8])
def test_post_activation_block_step_by_step(channels):
    block, x = _randomised(PostActivationBlock(4, channels)), torch.randn(3, 4, 6, 6)
    widens = channels == 8
    inner = torch.relu(_norm(_conv(x, block.conv1, padding=1, stride=2 if widens else 1), block.norm1))
    branch = _norm(_conv(inner, block.conv2, padding=1), block.norm2)
    shortcut = torch.cat([x[:, :, ::2, ::2], torch.zeros(3, 4, 3, 3)], 1) if widens else x
    torch.testing.assert_close(block(x), torch.relu(shortcut + branch))
    (energy,) = block.residue.take()  # of the branch after its last norm, before the sum
    torch.testing.assert_close(energy.mean, branch.square().mean())


@pytest.mark.parametrize(
    ("name", "downsample", "module", "choice"),
    [
        ("km-3-1", (1, 3), 3, "modules 1 to 2 of km-3-1"),
        ("km-3-1", (0,), 0, "modules 1 to 2 of km-3-1"),
        ("km-3-1-encoder", (-1,), -1, "modules 1 to 2 of km-3-1-encoder"),
        ("km-1-2", (1,), 1, "no module of km-1-2"),
        ("resnet110", (1,), 1, "no module of resnet110"),
        ("torchvision:resnet18", (1,), 1, "no module of torchvision:resnet18"),
    ],
)
def test_modules_that_cannot_halve_the_map_are_refused(name, downsample, module, choice):
    with pytest.raises(UsageError, match=f"names module {module}; {choice} can halve the map"):
        build_chain(name, **CIFAR, downsample=downsample)


# The paper's splits: blocks x width of each module; d if the first block downsamples.
SPLITS = {
    (2, False): "18x16 9x32d / 9x32 18x64d",
    (4, False): "14x16 / 4x16 10x32d / 8x32 5x64d / 13x64",
    (8, False): "7x16 / 7x16 / 4x16 3x32d / 7x32 / 8x32 / 6x64d / 6x64 / 6x64",
    (16, False): "4x16 / 4x16 / 4x16 / 4x16 / 2x16 2x32d / 4x32 / 3x32 / 3x32 / 3x32 / 3x32 / 3x64d"
    + " / 3x64" * 5,
    (2, True): "14x16 / 4x16 18x32d 18x64d",
    (4, True): "6x16 / 8x16 / 4x16 8x32d / 10x32 18x64d",
}


def _described(trunk):
    runs = []
    for block in (part for part in trunk.modules() if isinstance(part, PostActivationBlock)):
        width = block.conv2.out_channels
        if runs and runs[-1][1] == width and not block.widens:
            runs[-1][0] += 1
        else:
            runs.append([1, width, block.widens])
    return " ".join(f"{number}x{width}{'d' * widens}" for number, width, widens in runs)


@pytest.mark.parametrize("split", SPLITS)
def test_resnet110_splits_are_the_papers(split):
    num_modules, heavy = split
    trunks = _trunks(resnet110(**CIFAR, num_modules=num_modules, heavy=heavy))
    assert " / ".join(map(_described, trunks)) == SPLITS[split]
    stems = [sum(isinstance(part, Stem) for part in trunk.modules()) for trunk in trunks]
    assert stems == [1] + [0] * (num_modules - 1)


@pytest.mark.slow
@pytest.mark.parametrize("num_modules", [1, 3, 54])
def test_resnet110_in_any_number_of_modules(num_modules):
    chain = build_chain("resnet110", **CIFAR, num_modules=num_modules)
    assert len(chain) == num_modules
    assert _shapes(chain)[-1] == (64, 8, 8)
    assert sum(map(_num_parameters, _trunks(chain))) == 1_727_312


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "kernels"), [(96, {96: 16, 48: 16, 24: 8}), (32, {32: 8, 16: 8, 8: 4}), (64, {64: 16, 32: 8, 16: 8})]
)
def test_resnet110_heads_pool_as_in_the_paper(side, kernels):
    chain = resnet110(input_shape=(3, side, side), num_classes=10, num_modules=4)
    shapes = _shapes(chain)
    assert {shape[1] for shape in shapes} <= kernels.keys()
    for module, shape in enumerate(shapes):
        with torch.device("meta"):
            assert chain.classifier(module, shape).pool.kernel_size == kernels[shape[1]]


def test_resnet110_has_the_paper_gain_and_no_exemption():
    chain = resnet110(**CIFAR)
    assert (chain.gain, chain.exempt_blocks) == (0.1, 0)


def test_names_of_the_command_line():
    assert len(build_chain("resnet110", **CIFAR)) == 16
    assert build_chain("resnet110-heavy", **CIFAR, num_modules=4).starts == (0, 6, 14, 26)
    assert build_chain("km-3-2", **CIFAR, width=8, num_modules=2).starts == (0, 3)
    chain = build_chain("km-3-2", **CIFAR, width=8, downsample=(2,))
    assert _shapes(chain) == [(8, 16, 16), (8, 16, 16), (16, 8, 8)]


@pytest.mark.parametrize("name", ["resnet50", "resnet110", "swin-tiny", "vgg19"])
def test_windows_are_no_images(name):
    with pytest.raises(
        UsageError, match=rf"--model {name} reads images .*; a sample of this data set is \[6, 128\]"
    ):
        build_chain(name, input_shape=(6, 128), num_classes=4)


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152", "swin-tiny", "vgg19"])
def test_networks_of_one_depth_have_four_modules_unless_told(name):
    assert len(build_chain(name, **CIFAR)) == 4
    assert len(build_chain(name, **CIFAR, num_modules=7)) == 7
    assert build_chain(name, **CIFAR).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet111", "did you mean resnet110?"),
        ("km10-1", "did you mean km-10-1?"),
        ("km-0-1", "did you mean km-"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, hint):
    with pytest.raises(UsageError, match=f"there is no model '{name}'") as caught:
        build_chain(name, **CIFAR)
    assert hint in caught.value.hint
    assert "module:factory" in caught.value.hint


def test_a_name_like_nothing_suggests_nothing():
    with pytest.raises(UsageError) as caught:
        build_chain("zzz", **CIFAR)
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize(
    ("name", "num_modules", "limit"),
    [("km-3-2", 7, 6), ("km-3-2", 0, 6), ("resnet110", 55, 54), ("resnet110", -1, 54), ("swin-tiny", 13, 12)],
)
def test_more_modules_than_blocks_are_refused(name, num_modules, limit):
    with pytest.raises(UsageError, match=f"has {limit} blocks and so 1 to {limit} modules"):
        build_chain(name, **CIFAR, width=4, num_modules=num_modules)


FACTORIES = """
    from torch import nn
    from edge_trgl.networks.chain import Chain

    def good(*, input_shape, num_classes):
        blocks = [nn.Flatten, nn.Identity, nn.Identity]
        return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes)

    def wrong(*, input_shape, num_classes):
        return {}
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """Write a module of factories to the current folder; yields its name."""
    (tmp_path / "my_factories.py").write_text(textwrap.dedent(FACTORIES))
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield "my_factories"
    sys.modules.pop("my_factories", None)


def test_a_factory_in_the_current_folder(factories):
    chain = build_chain(f"{factories}:good", **CIFAR)
    assert isinstance(chain, Chain)
    assert (chain.input_shape, chain.num_classes, len(chain)) == ((3, 32, 32), 10, 3)
    assert len(build_chain(f"{factories}:good", **CIFAR, num_modules=2)) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_factories:missing", "has no attribute 'missing'"),
        ("no_such_file:good", "No module named 'no_such_file'"),
        ("my_factories:wrong", "the factory returned dict, neither a Chain nor a module"),
    ],
)
def test_factories_that_do_not_work_are_named(factories, name, message):
    with pytest.raises(InputError, match=f"--model {name}: .*{message}"):
        open_net(name, **CIFAR)


def test_a_module_that_fails_is_told_as_the_users(factories):
    with pytest.raises(
        UsageError, match=r"^--model my_broken:good: your own code raised ModuleNotFoundError: "
    ) as told:
        open_net("my_broken:good", **CIFAR)
    assert "my_broken.py" in told.value.hint


def test_too_many_modules_for_a_factory(factories):
    with pytest.raises(UsageError, match="has 3 blocks and so 1 to 3 modules"):
        build_chain(f"{factories}:good", **CIFAR, num_modules=4)
