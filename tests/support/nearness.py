"""How near two computations of the same logits come on any processor.

One instruction set adds a sum's products in another order than the next, and fuses other multiplications. A
float32 sum of n products then differs by about √n roundings of what it adds, and L layers one after the other by
√(n·L):

* the small nets of these tests, at most 10 layers of at most 400 products: 60 roundings at worst, 3 measured;
* the deepest net of the catalogue, ResNet-110 with 9·64 products: 250 at worst; measured were 5 without vector
  instructions and 20 with AVX-512, whose many lanes make many short sums of a long one.

All are counted in units of the largest logit; of 1 where that is smaller, since behind a norm, logits that come
out small are sums of terms that are not.
"""

from __future__ import annotations

import numpy as np

EPS = 2.0**-23
"""A rounding of a float32 number, relative to it, at most twice."""

SMALL = 100 * EPS


def scale_of(logits) -> float:
    """What differences of these logits are relative to."""
    return max(1.0, float(np.abs(np.asarray(logits)).max()))


def assert_near(found, expected, share=SMALL):
    """All of `found` within this share of the size of `expected`."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * scale_of(expected))


def is_near(found, expected, share=SMALL) -> bool:
    """Whether it is within this share."""
    return np.allclose(found, expected, rtol=0, atol=share * scale_of(expected))
