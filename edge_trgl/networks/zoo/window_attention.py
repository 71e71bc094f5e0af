"""Attention within windows of a map, with or without a shift (Liu et al., Swin Transformer, 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int]
"""Height and width of a map, in tokens."""


def padded(tokens: Tensor, multiple: int) -> Tensor:
    """Pad tokens [B, H, W, C] with zeros below and to the right, to sides that are multiples of `multiple`."""
    height, width = tokens.shape[1:3]
    below, right = -height % multiple, -width % multiple
    return functional.pad(tokens, (0, 0, 0, right, 0, below)) if below or right else tokens


class WindowAttention(nn.Module):
    """Attention within windows of window x window tokens, shifted down and right by `shift` tokens.

    A side that one window covers is not shifted. A map whose sides are not multiples of the window is padded with
    zeros.

    Args:
        channels: C.
        num_heads: attention heads.
        size: (H, W) of the map, in tokens.
        window: side of a window, in tokens.
        shift: in tokens.
    """

    def __init__(self, channels: int, num_heads: int, size: Size, window: int, shift: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.size = size
        self.window = window
        self.grid = -(-size[0] // window), -(-size[1] // window)
        self.shifts = tuple(shift if windows > 1 else 0 for windows in self.grid)  # down, across
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] → the same shape."""
        windows = self._windows(self._rolled(padded(tokens, self.window), -1))
        out = self._rolled(self._joined(self.proj(self._attended(self.qkv(windows)))), 1)
        return out[:, : self.size[0], : self.size[1]]

    def _rolled(self, tokens: Tensor, direction: int) -> Tensor:
        down, across = self.shifts
        return tokens.roll((direction * down, direction * across), (1, 2)) if down or across else tokens

    def _windows(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] → [B · windows, T, C]."""
        (down, across), window = self.grid, self.window
        parts = tokens.reshape(-1, down, window, across, window, tokens.shape[-1])
        return parts.transpose(2, 3).reshape(-1, window**2, tokens.shape[-1])

    def _joined(self, windows: Tensor) -> Tensor:
        """[B · windows, T, C] → [B, H, W, C]."""
        (down, across), window = self.grid, self.window
        parts = windows.reshape(-1, down, across, window, window, windows.shape[-1])
        return parts.transpose(2, 3).reshape(-1, down * window, across * window, windows.shape[-1])

    def _attended(self, qkv: Tensor) -> Tensor:
        """[B · windows, T, 3C] → [B · windows, T, C]."""
        parts = qkv.reshape(*qkv.shape[:2], 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # [B · windows, heads, T, T]
        bias = self._bias()
        scores = (scores.reshape(-1, len(bias), *scores.shape[1:]) + bias).flatten(0, 1)
        out: Tensor = scores.softmax(-1) @ value
        return out.transpose(1, 2).flatten(2)

    def _bias(self) -> Tensor:
        """Return what is added to the scores: [windows or 1, heads, T, T]."""
        # Not by indexing: the order in which its gradient is summed depends on the number of threads.
        bias = functional.embedding(self._offsets(), self.position_bias).permute(2, 0, 1)[None]
        return bias + self._barrier()[:, None] if any(self.shifts) else bias

    def _offsets(self) -> Tensor:
        """Return the row of `position_bias` for each pair of tokens, by their distance: int64 [T, T]."""
        across = 2 * self.window - 1
        places = torch.arange(self.window, device=self.position_bias.device)
        numbers = (places[:, None] * across + places).flatten()
        return numbers[:, None] - numbers + (across**2 - 1) // 2

    def _barrier(self) -> Tensor:
        """Return −∞ between tokens that share a window only because the map was rolled: [windows, T, T]."""
        down, across = (self._regions(side) for side in (0, 1))
        regions = self._windows((3 * down[:, None] + across)[None, :, :, None])[..., 0]
        apart = regions[:, :, None] != regions[:, None, :]
        return torch.zeros(apart.shape, device=apart.device).masked_fill(apart, -torch.inf)

    def _regions(self, side: int) -> Tensor:
        """Return the region, of three, of each position along a side of the rolled map: int64 [H or W]."""
        length, shift = self.grid[side] * self.window, self.shifts[side]
        places = torch.arange(length, device=self.position_bias.device)
        if not shift:
            return torch.zeros_like(places)
        return (places >= length - self.window).long() + (places >= length - shift).long()
