"""Small models to cut, of the kinds that users and libraries have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

IMAGE, CLASSES = (3, 16, 16), 5


class Basic(nn.Module):
    """A post-activation block as in torchvision: in-place layers, and a branch that ends in a norm."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.down = None
        if stride > 1:
            self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class Residual(nn.Module):
    """Stem, pooling, four blocks; pooling, a dropout and a linear layer.

    Of fewer than 8 channels, the gradient of a strided 1×1 convolution's weights overruns its memory (torch 2.13
    with oneDNN 3.12 on AVX2).
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(Basic(8, 8), Basic(8, 16, 2), Basic(16, 16), Basic(16, 16))
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.blocks(self.pool(self.stem(x)))
        return self.fc(self.drop(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)))


class Tokens(nn.Module):
    """A transformer over patches, with a class token that is expanded to the batch size."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))

        def forward(self, x):
            y = self.norm1(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.full((1, 1, 8), 0.5))
        self.register_buffer("places", torch.linspace(-1, 1, 17 * 8).view(1, 17, 8))
        self.blocks = nn.ModuleList(Tokens.Block() for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Mixed(nn.Module):
    """Splits images into patches, as tokens."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x):
            return x + self.mlp(x)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList(Mixed.Block() for _ in range(2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Gated(nn.Module):
    """Convolutions with a gate and a pooling after each, without shortcuts; functions in place of layers."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 6), (6, 6), (6, 6)))
        self.squeeze, self.excite = nn.Linear(6, 2), nn.Linear(2, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        for conv in self.convs:
            x = functional.max_pool2d(functional.relu(conv(x), inplace=True), 2)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return self.out((x * gate[:, :, None, None]).mean((2, 3)))


class Windows(nn.Module):
    """A network for windows [C, L]."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv1d(a, 6, 3, padding=1) for a in (2, 6, 6))
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = torch.relu(self.one(x))
        x = x + self.three(torch.relu(self.norm(self.two(x))))
        return self.out(x.mean(-1))


MODELS = {
    "residual": (Residual, IMAGE),
    "tokens": (Tokens, IMAGE),
    "mixed": (Mixed, IMAGE),
    "gated": (Gated, IMAGE),
    "windows": (Windows, (2, 12)),
}
