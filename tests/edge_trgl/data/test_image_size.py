"""The size and the way of resizing that are chosen where the user does not say."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.data.sources.image_size import choose_fitting, sizes_of


def _chosen(*sizes, image_size=None, resize=None):
    return choose_fitting(np.array(sizes, np.int64), image_size=image_size, resize=resize, channels=3)


def test_images_of_one_size_keep_it():
    fitting = _chosen((600, 800), (600, 800))
    assert (fitting.size, fitting.size_from) == ((600, 800), "files")


def test_images_that_no_record_has_room_for_do_not_keep_it():
    fitting = _chosen((6000, 8000), (6000, 8000))
    assert (fitting.size, fitting.size_from) == ((224, 224), "choice")


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
