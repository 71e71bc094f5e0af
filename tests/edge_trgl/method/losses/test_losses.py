"""Local losses against their formulas written out, sample by sample and pair by pair."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edge_trgl.method.losses import (
    Contrast,
    CrossEntropy,
    InfoPro,
    Mix,
    Place,
    PredSim,
    Reconstruction,
    Similarity,
    damped,
)

CLASSES = 3
IMAGE = (3, 8, 9)
SHAPES = {"map": (4, 4, 5), "pixel": (4, 1, 1), "sequence": (4, 6), "vector": (5,)}
Y = torch.tensor([0, 2, 0, 1, 1, 0])
SIZE = len(Y)


def place(shape=(4, 4, 5)):
    return Place(output_shape=shape, image_shape=IMAGE, num_classes=CLASSES)


def part(kind, shape=(4, 4, 5)):
    torch.manual_seed(5)
    return kind(place(shape)).double().train()


def outputs(shape, *, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *shape, generator=generator, dtype=torch.float64)


def images(size=SIZE):
    return torch.rand(size, *IMAGE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def cosine(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / (a.norm() * b.norm())


def plain_similarity(term, out, y):
    mixed = term.layer(out)
    features = [
        sample.flatten(1).std(1) if mixed.dim() > 2 and sample[0].numel() > 1 else sample.flatten()
        for sample in mixed
    ]
    labels = [torch.eye(CLASSES, dtype=out.dtype)[int(label)] for label in y]
    pairs = [(i, j) for i in range(len(y)) for j in range(len(y))]
    errors = [(cosine(features[i], features[j]) - cosine(labels[i], labels[j])) ** 2 for i, j in pairs]
    return torch.stack(errors).mean()


def plain_contrast(term, out, y):
    inner = torch.relu(term.norm(term.layer(out)))
    pooled = inner.flatten(2).mean(2) if inner.dim() > 2 else inner
    rows = [row / row.norm() for row in term.last(torch.relu(term.hidden(pooled)))]
    found = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        alike = [j for j in others if y[j] == y[i]]
        if alike:
            total = sum(torch.exp(rows[i] @ rows[j] / 0.07) for j in others)
            found.append(-sum(torch.log(torch.exp(rows[i] @ rows[j] / 0.07) / total) for j in alike) / len(alike))
    return torch.stack(found).mean() if found else 0 * out.sum()


def plain_reconstruction(term, out, image):
    large = functional.interpolate(out, IMAGE[1:], mode="bilinear", align_corners=True)
    pixels = torch.sigmoid(term.last(torch.relu(term.norm(term.first(large)))))
    return -(image * pixels.log() + (1 - image) * (1 - pixels).log()).mean()


def assert_equal(term, found, expected, out):
    """Values, and gradients of the output and of every weight."""
    assert found.item() == pytest.approx(expected.item(), rel=2e-6)
    wanted = [out, *term.parameters()]
    pairs = zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True)
    for mine, plain in pairs:
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_similarity_is_that_of_every_pair(shape):
    term, out = part(Similarity, shape), outputs(shape).requires_grad_()
    assert_equal(term, term(out, Y, None), plain_similarity(term, out, Y), out)


@pytest.mark.parametrize("labels", [Y, torch.tensor([0, 0, 1, 2])], ids=["pairs", "lone"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_contrast_is_that_of_every_pair(shape, labels):
    term, out = part(Contrast, shape), outputs(shape, size=len(labels)).requires_grad_()
    assert_equal(term, term(out, labels, None), plain_contrast(term, out, labels), out)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1]], ids=["no-pair", "one-sample"])
def test_contrast_of_strangers_asks_for_nothing(labels):
    term, y = Contrast(place()).eval(), torch.tensor(labels)
    out = outputs((4, 4, 5), size=len(y)).float().requires_grad_()
    found = term(out, y, None)
    found.backward()
    assert found.item() == 0
    assert out.grad is not None
    assert not out.grad.any()


@pytest.mark.parametrize("shape", [(4, 4, 5), (2, 8, 9)])
def test_reconstruction_is_the_cross_entropy_of_every_pixel(shape):
    term, out, image = part(Reconstruction, shape), outputs(shape).requires_grad_(), images()
    assert_equal(term, term(out, Y, image), plain_reconstruction(term, out, image), out)


@pytest.mark.parametrize("kind", [Similarity, Contrast])
def test_what_compares_samples_says_so(kind):
    """The parts of a batch give another loss than the batch."""
    term, out = part(kind).eval(), outputs((4, 4, 5))
    halves = (term(out[:3], Y[:3], None) + term(out[3:], Y[3:], None)) / 2
    assert kind.compares_samples
    assert halves.item() != pytest.approx(term(out, Y, None).item(), rel=1e-3)


def test_a_shape_that_a_part_cannot_read_is_named():
    with pytest.raises(ValueError, match=r"the local loss reads .*; this module's output is \[2, 3, 4, 5\]"):
        Similarity(place((2, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"makes images \[C, H, W\] from maps .*; here \[3, 8, 9\] from \[5\]"):
        Reconstruction(place((5,)))


@pytest.mark.parametrize("factor", [0.25, 0.0, 1.0])
def test_damping_changes_the_way_back_alone(factor):
    x = torch.randn(3, 4, requires_grad=True)
    out = x * 2
    through = damped(out, factor)
    assert torch.equal(through, out)
    (through.square().sum() + out.sum()).backward()
    torch.testing.assert_close(x.grad, 2 + factor * 8 * x.detach())
    assert (through is out) == (factor == 1)


def test_cross_entropy_adds_nothing():
    assert CrossEntropy().of(0, 3) == Mix() == Mix(cross_entropy=1.0, parts=())


def test_predsim_mixes_by_beta():
    assert PredSim(beta=0.75).of(2, 3) == Mix(cross_entropy=0.25, parts=((0.75, Similarity),))


@pytest.mark.parametrize("num_modules", [1, 2, 3, 4])
def test_infopro_changes_with_depth(num_modules):
    loss = InfoPro(lambda1=(4.0, 1.0), lambda2=(0.5, 2.0))
    mixes = [loss.of(module, num_modules) for module in range(num_modules)]
    assert mixes[-1] == Mix()
    expected = {
        1: [],
        2: [(4.0, 0.5)],
        3: [(4.0, 0.5), (1.0, 2.0)],
        4: [(4.0, 0.5), (2.5, 1.25), (1.0, 2.0)],
    }
    assert [(mix.parts[0][0], mix.cross_entropy) for mix in mixes[:-1]] == expected[num_modules]
    assert all(mix.kinds == (Reconstruction,) and mix.wants_image for mix in mixes[:-1])
    assert not any(mix.compares_samples for mix in mixes)


def test_infopro_with_contrast_asks_nothing_of_the_head():
    loss = InfoPro(contrast=True, lambda1=(4.0, 0.0), lambda2=(0.0, 2.0))
    assert [loss.of(module, 4) for module in range(4)] == [
        Mix(cross_entropy=0.0, parts=((4.0, Reconstruction),)),
        Mix(cross_entropy=0.0, parts=((2.0, Reconstruction), (1.0, Contrast))),
        Mix(cross_entropy=0.0, parts=((2.0, Contrast),)),
        Mix(),
    ]
