"""Large images: nothing is decoded before it is counted that they fit, and a size that would fit is proposed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from planner_demands import demand_of, shrunk
from preloaded import command

from edge_trgl.data import is_prepared, open_survey
from edge_trgl.data.prepare import prepare
from edge_trgl.planning.large_images import check_fit
from edge_trgl.runtime.errors import DoesNotFitError, UsageError

SIZE = (520, 560)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes of five photos, a little larger than is decoded at once."""
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((*SIZE, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


def _step_of_mb(mb):
    return demand_of(shrunk(mb))


def test_what_fits_is_not_refused():
    check_fit(_step_of_mb(10), 300, lambda side: pytest.fail("nothing need be smaller"), 3000)


def test_what_may_turn_out_to_fit_is_left_to_be_measured():
    check_fit(_step_of_mb(200), 300, lambda side: pytest.fail("nothing need be smaller"), 3000)


def test_the_largest_size_that_fits_is_proposed_with_its_peak():
    with pytest.raises(DoesNotFitError, match="this does not fit 300 MiB") as caught:
        check_fit(_step_of_mb(9000), 300, lambda side: _step_of_mb(side), 3000)
    assert caught.value.hint.startswith("Give --image-size 128 (peak ")
    assert "or give --budget-mb" in caught.value.hint


def test_a_size_that_the_net_cannot_read_is_passed_over():
    def at_side(side):
        if side == 128:
            raise UsageError("module 3: too small a map")
        return _step_of_mb(side)

    with pytest.raises(DoesNotFitError) as caught:
        check_fit(_step_of_mb(9000), 300, at_side, 3000)
    assert "--image-size 64" in caught.value.hint


def test_no_size_is_proposed_that_the_images_do_not_have():
    with pytest.raises(DoesNotFitError) as caught:
        check_fit(_step_of_mb(9000), 300, lambda side: _step_of_mb(1), 32)
    assert "--image-size" not in caught.value.hint


def test_a_survey_says_what_decoding_says(tmp_path, photos):
    surveyed = prepare(str(photos), tmp_path / "data", seed=0, resize="none", survey_large=True)
    assert not is_prepared(tmp_path / "data")
    assert open_survey(tmp_path / "data") == surveyed
    decoded = prepare(str(photos), tmp_path / "data", seed=0, resize="none")
    assert open_survey(tmp_path / "data") == decoded
    assert (surveyed.shape, surveyed.class_names) == (decoded.shape, decoded.class_names)
    counts = [{name: split.num_images for name, split in info.splits.items()} for info in (surveyed, decoded)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("options", [{"image_size": 16}, {}, {"resize": "none"}], ids=str)
def test_what_is_made_small_or_is_small_is_decoded_at_once(tmp_path, photos, options):
    if "resize" in options:
        for path in photos.glob("*/*.jpg"):
            Image.open(path).resize((512, 512)).save(path)
    prepare(str(photos), tmp_path / "data", seed=0, survey_large=True, **options)
    assert is_prepared(tmp_path / "data")


@pytest.mark.slow
def test_a_smaller_size_is_proposed_where_the_chosen_one_does_not_fit(tmp_path, photos):
    Image.new("RGB", (400, 300)).save(photos / "cat" / "more.png")
    options = ("--budget-mb", "700", "--width", "256", "--run", "run")
    result = command(tmp_path, "train", "--data", str(photos), *options)
    assert result.returncode == 3, result.stderr
    assert "each becomes 224x224, squashed to a square (chosen; see" in result.stderr
    assert "Give --image-size " in result.stderr


def test_a_plan_that_does_not_fit_decodes_nothing(tmp_path, photos):
    result = command(
        tmp_path, "train", "--data", str(photos), "--resize", "none", "--budget-mb", "700", "--run", "run"
    )
    assert result.returncode == 3
    assert f"warning: the images are large, {SIZE[1]}x{SIZE[0]} pixels" in result.stderr
    assert "Give --image-size" in result.stderr
    assert not list((tmp_path / "run" / "data").glob("*.images"))
