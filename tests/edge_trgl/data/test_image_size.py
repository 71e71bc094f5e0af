"""The size and the way of resizing that are chosen where the user does not say."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.data.sources.image_size import choose_fitting, sizes_of
from edge_trgl.runtime.errors import UsageError


def _chosen(*sizes, image_size=None, resize=None):
    return choose_fitting(np.array(sizes, np.int64), image_size=image_size, resize=resize, channels=3)


def test_small_images_of_one_size_keep_it():
    fitting = _chosen((224, 800), (224, 800))
    assert (fitting.size, fitting.size_from) == ((224, 800), "files")


def test_photos_of_one_size_keep_it_only_on_request():
    photos = (480, 640), (480, 640)
    assert (_chosen(*photos).size, _chosen(*photos).size_from) == ((224, 224), "choice")
    assert (_chosen(*photos, resize="none").size, _chosen(*photos, resize="none").size_from) == (
        (480, 640),
        "files",
    )


def test_photos_of_several_sizes_cannot_keep_them():
    with pytest.raises(UsageError, match="have 2 sizes"):
        _chosen((30, 40), (40, 30), (30, 40), resize="none")
    with pytest.raises(UsageError, match="at most"):
        _chosen((6000, 8000), (6000, 8000), resize="none")


@pytest.mark.parametrize(
    ("sides", "side"),
    [((3000, 4000, 480), 224), ((100, 90, 130), 96), ((30, 33, 40), 32), ((21, 20, 22), 24), ((1, 2, 3), 8)],
)
def test_images_of_several_sizes_become_squares(sides, side):
    fitting = _chosen(*((value, value + 9) for value in sides))
    assert (fitting.size, fitting.size_from) == ((side, side), "choice")


def test_more_is_given_only_on_request():
    fitting = _chosen((3000, 4000), (4000, 3000), image_size=512)
    assert (fitting.size, fitting.size_from) == ((512, 512), "option")


def test_squashed_where_proportions_are_mild_padded_elsewhere():
    mild, long = [(300, 400), (3024, 4032), (400, 300)] * 3, (100, 300)
    assert _chosen(*mild, long).resize == "squash"
    assert _chosen(*mild[:8], long).resize == "pad"
    assert _chosen(*mild, resize="crop").resize == "crop"


def test_sizes_are_described():
    found = sizes_of(np.array([(30, 40), (20, 10), (20, 10), (300, 10)], np.int64))
    assert (found.smallest, found.median, found.largest, found.distinct) == ((20, 10), (25, 10), (300, 10), 3)
