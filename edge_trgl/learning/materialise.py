"""Memory for modules that were built on the meta device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def made_real(module: nn.Module, device: str) -> None:
    """Put each tensor of `module` on `device`, with real memory: the values of those that have any, else none."""
    made: dict[int, Tensor] = {}  # a weight that stands in two places stays one weight
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, old in table.items():
                if old is not None:
                    new = made.setdefault(id(old), _made_real(old, device))
                    table[name] = new  # type: ignore[assignment]


def _made_real(old: Tensor, device: str) -> Tensor:
    """A tensor like `old`, in the one layout that a weight of its shape has in every run.

    The layout decides which kernels run and so the bits of the result.
    """
    layout = torch.channels_last if old.dim() == 4 else torch.contiguous_format
    new = torch.empty(old.shape, dtype=old.dtype, device=device, memory_format=layout)
    if not old.is_meta:
        new.copy_(old.detach())
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
