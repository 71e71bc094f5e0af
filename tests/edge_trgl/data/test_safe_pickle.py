"""A pickle that names anything but arrays is refused, and nothing in it is run."""

from __future__ import annotations

import collections
import os
import pickle
import random
import subprocess

import numpy as np
import pytest

from edge_trgl.data.sources.safe_pickle import SPAN_BYTES, ArrayLocation, load_pickle
from edge_trgl.runtime.errors import InputError


class Calls:
    """Is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.mkdir, os.system, eval, subprocess.call, np.load])
def test_a_malicious_pickle_is_refused(tmp_path, function, protocol):
    victim = tmp_path / "victim"
    argument = {os.mkdir: str(victim), eval: f"__import__('os').mkdir({str(victim)!r})"}.get(
        function, f"mkdir {victim}"
    )
    (tmp_path / "bad").write_bytes(pickle.dumps({b"labels": Calls(function, argument)}, protocol=protocol))
    with pytest.raises(InputError, match="bad is not a CIFAR pickle: it asks for"):
        load_pickle(tmp_path / "bad")
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        collections.OrderedDict(),
        {b"data": np.array([{}], object)},
        {b"data": np.float64(1)},
        {b"data": Calls(np.ndarray, (3,))},
        {1, 2},
        b"text",
    ],
)
def test_other_objects_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(InputError, match="is not a CIFAR pickle"):
        load_pickle(tmp_path / "file")


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\nndarray\n}(X\x08\x00\x00\x00__code__K\x01ub.",
        b"cnumpy\ndtype\n(N}X\x08\x00\x00\x00__init__K\x01stb.",
        b"cnumpy.core.multiarray\n_reconstruct\n}b.",
        b"cnumpy\ndtype\n)\x81}b.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00",
        b"\x82\x01.",
        b"Pevil\n.",
        b"h\x05.",
        b"",
    ],
)
def test_hand_made_opcodes(tmp_path, code):
    (tmp_path / "file").write_bytes(code)
    with pytest.raises(InputError, match="is not a CIFAR pickle"):
        load_pickle(tmp_path / "file")


@pytest.mark.parametrize("num_rows", [2, 10 * SPAN_BYTES // 3072])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_are_found_not_loaded(tmp_path, num_rows, protocol):
    pixels = np.random.default_rng(0).integers(0, 256, (num_rows, 3072), np.uint8)
    packed = pickle.dumps({b"data": pixels, b"after": [1, 2]}, protocol=protocol)
    # Python 2 wrote byte strings as such; today's protocol 2 would call a codec for them.
    (tmp_path / "file").write_bytes(_python2(pixels) if protocol == 2 else packed)
    found = load_pickle(tmp_path / "file")
    location = found[b"data"]
    assert isinstance(location, ArrayLocation)
    assert location.shape == pixels.shape
    assert location.num_bytes == pixels.size
    whole = (tmp_path / "file").read_bytes()
    kept = location.content or whole[location.start : location.start + location.num_bytes]
    assert kept == pixels.tobytes()
    assert bool(location.content) == (pixels.size < SPAN_BYTES)
    assert found[b"after"] == [1, 2]


def _python2(pixels):
    rows, columns = (b"M" + size.to_bytes(2, "little") for size in pixels.shape)
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
        b"K\x01" + rows + columns + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T"
        + pixels.size.to_bytes(4, "little")
        + pixels.tobytes()
        + b"tbU\x05after](K\x01K\x02eu."
    )


def test_damage_anywhere_is_an_input_error_or_harmless(tmp_path):
    generator = random.Random(0)
    whole = pickle.dumps({b"labels": [1, 2, 3], b"data": np.zeros((3, 8), np.uint8)}, protocol=3)
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "file").write_bytes(damaged)
        try:
            found = load_pickle(tmp_path / "file")
        except InputError:
            continue
        assert isinstance(found, dict)
