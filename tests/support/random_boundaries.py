"""Boundaries to be made, and random records for them."""

from __future__ import annotations

import numpy as np
import torch

from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

NUM_SAMPLES, BATCH_SIZE = 40, 8
SHAPES = [(3, 4, 5), (1, 2, 3), (4, 1, 1), (6,), (2, 5)]


def spec_of(name="b1", *, shape=(3, 4, 5), dtype="float32", records=NUM_SAMPLES, copies=1, in_memory=False):
    return BoundarySpec(name=name, shape=shape, dtype=dtype, records=records, copies=copies, in_memory=in_memory)


def batch(spec, seed, num_records):
    """[B, *shape] of float32 that tell records, and the places in a record, apart."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_records, *spec.shape, generator=generator)


def numbers(*samples):
    return np.array(samples, dtype=np.int64)


def same(found, expected):
    return found.dtype == expected.dtype and torch.equal(found, expected)
