"""Classic augmentation: what must move moves there, what must not change does not."""

import dataclasses

import numpy as np
import pytest

from keras_cxrgan.data.augmentation import ClassicAugmentation, augment, crop, expose, move

STILL = ClassicAugmentation(
    rotation=0.0, scale=(1.0, 1.0), translation=0.0, brightness=0.0, contrast=0.0, probability=1.0
)


def noise(height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def spot(row, column, height=41, width=41):
    """A black film with one white 3 x 3 spot."""
    film = np.zeros((height, width), np.uint8)
    film[row - 1 : row + 2, column - 1 : column + 2] = 255
    return film


def centre(film):
    """Row and column of the centre of mass."""
    weights = film / film.sum(dtype=float)
    rows, columns = np.indices(film.shape)
    return (weights * rows).sum(), (weights * columns).sum()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_ranges_of_nothing_change_nothing():
    film = noise(30, 44)
    for seed in range(5):
        assert np.array_equal(augment(film, STILL, rng(seed)), film)


def test_a_probability_of_zero_changes_nothing_whatever_the_ranges():
    settings = dataclasses.replace(ClassicAugmentation(flip=True, crop=0.5), probability=0.0)
    assert np.array_equal(augment(noise(), settings, rng()), noise())


def test_the_film_given_is_left_as_it_was():
    film = noise()
    for settings in (STILL, ClassicAugmentation(probability=1.0)):
        made = augment(film, settings, rng())
        made[:] = 0
        assert np.array_equal(film, noise())


def test_the_same_seed_makes_the_same_film_and_another_seed_another():
    settings = ClassicAugmentation(crop=0.8, probability=1.0)
    assert np.array_equal(augment(noise(), settings, rng(4)), augment(noise(), settings, rng(4)))
    assert not np.array_equal(
        augment(noise(), settings, rng(4)), augment(noise(), settings, rng(5))
    )


def test_a_shift_moves_every_pixel_exactly_and_lets_black_in():
    film = noise(20, 30) | 1
    moved = move(film, right=4, down=-3)
    assert np.array_equal(moved[:-3, 4:], film[3:, :-4])
    assert not moved[-3:].any() and not moved[:, :4].any()


def test_a_turn_is_counterclockwise_about_the_centre():
    # From right of the centre to above it.
    assert centre(move(spot(20, 32), degrees=90)) == pytest.approx((8, 20), abs=0.02)
    assert centre(move(spot(20, 32), degrees=-90)) == pytest.approx((32, 20), abs=0.02)
    turned = centre(move(spot(20, 32), degrees=30))
    assert turned == pytest.approx((20 - 12 * 0.5, 20 + 12 * np.sqrt(3) / 2), abs=0.1)


def test_a_turn_of_a_wide_film_keeps_its_shape_and_its_centre():
    film = spot(15, 30, 31, 61)
    turned = move(film, degrees=45)
    assert turned.shape == (31, 61)
    assert centre(turned) == pytest.approx((15, 30), abs=0.05)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_scale_keeps_the_centre_and_moves_the_rest_in_proportion(factor):
    assert centre(move(spot(20, 20), factor=factor)) == pytest.approx((20, 20), abs=0.05)
    moved = centre(move(spot(20, 28), factor=factor))
    assert moved == pytest.approx((20, 20 + 8 * factor), abs=0.3)


def test_a_scale_below_one_is_framed_in_black():
    scaled = move(np.full((40, 40), 200, np.uint8), factor=0.5)
    assert (scaled[15:25, 15:25] == 200).all() and not scaled[:8].any() and not scaled[:, 32:].any()


def test_the_turn_comes_before_the_shift():
    both = move(spot(20, 26), degrees=90, right=5)
    assert centre(both) == pytest.approx((14, 25), abs=0.02)


def test_a_crop_shows_the_part_it_is_placed_at():
    film = np.zeros((40, 40), np.uint8)
    film[:20, :20], film[20:, 20:] = 100, 200
    assert (crop(film, 0.5, 0, 0) == 100).all()
    assert (crop(film, 0.5, 1, 1) == 200).all()
    assert crop(film, 0.5, 1, 0).max() == 0
    assert np.array_equal(crop(film, 1.0), film)


def test_contrast_is_about_the_mean_and_brightness_multiplies():
    film = np.array([[40, 60], [100, 200]], np.uint8)  # mean 100
    assert expose(film, contrast=0.5).tolist() == [[70, 80], [100, 150]]
    assert expose(film, contrast=1.5).tolist() == [[10, 40], [100, 250]]
    assert expose(film, brightness=0.5).tolist() == [[20, 30], [50, 100]]
    assert expose(film, brightness=1.5).tolist() == [[60, 90], [150, 255]]
    assert np.array_equal(expose(film), film)


def test_no_film_is_mirrored_unless_flips_are_asked_for():
    left = spot(20, 8)
    for seed in range(40):
        assert centre(augment(left, STILL, rng(seed)))[1] == pytest.approx(8)
        made = augment(left, ClassicAugmentation(brightness=0.0, contrast=0.0), rng(seed))
        assert centre(made)[1] < 18


def test_a_flip_changes_nothing_but_the_side():
    settings = ClassicAugmentation(probability=0.5)
    film, flips = noise(), 0
    for seed in range(40):
        plain = augment(
            film, dataclasses.replace(settings, translation=0.0, rotation=0.0), rng(seed)
        )
        flipped = augment(
            film, dataclasses.replace(settings, translation=0.0, rotation=0.0, flip=True), rng(seed)
        )
        if not np.array_equal(plain, flipped):
            flips += 1
            assert np.abs(plain[:, ::-1].astype(int) - flipped).max() <= 2
    assert 10 <= flips <= 30


def test_shifts_stay_in_their_range_and_reach_it():
    settings = dataclasses.replace(STILL, translation=0.1)
    shifts = np.array(
        [np.subtract(centre(augment(spot(30, 50, 60, 100), settings, rng(s))), (30, 50))
         for s in range(300)]
    )  # fmt: skip
    assert np.abs(shifts).max(axis=0) == pytest.approx((6, 10), abs=1e-6)
    assert np.allclose(shifts, np.rint(shifts))


def test_turns_and_scales_stay_in_their_ranges():
    turn = dataclasses.replace(STILL, rotation=30.0)
    angles = []
    for seed in range(200):
        row, column = centre(augment(spot(20, 34), turn, rng(seed)))
        angles.append(np.degrees(np.arctan2(20 - row, column - 20)))
    assert -30.5 < min(angles) < -27 and 27 < max(angles) < 30.5
    size = dataclasses.replace(STILL, scale=(0.8, 1.2))
    factors = [(centre(augment(spot(20, 32), size, rng(seed)))[1] - 20) / 12 for seed in range(200)]
    assert 0.78 < min(factors) < 0.82 and 1.18 < max(factors) < 1.22


def test_exposure_stays_in_its_range():
    film = np.full((8, 8), 100, np.uint8)
    brighter = dataclasses.replace(STILL, brightness=0.5)
    levels = [int(augment(film, brighter, rng(seed))[0, 0]) for seed in range(300)]
    assert 50 <= min(levels) <= 54 and 146 <= max(levels) <= 150


def test_each_change_happens_as_often_as_its_probability_says():
    film = np.full((8, 8), 100, np.uint8)
    settings = dataclasses.replace(STILL, brightness=0.5, probability=0.25)
    changed = sum(int(augment(film, settings, rng(seed))[0, 0]) != 100 for seed in range(400))
    assert 70 <= changed <= 130


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rotation": -1.0}, "rotation must be from 0 to 180, got -1.0"),
        ({"scale": (1.1, 0.9)}, r"scale \(to\) must be from 1.1 to 10, got 0.9"),
        ({"translation": 1.5}, "translation must be from 0 to 1, got 1.5"),
        ({"scale": (1.0,)}, "scale needs from,to such as 0.9,1.1"),
        ({"crop": 0.0}, "crop must be from 0.05 to 1, got 0.0"),
        ({"probability": float("nan")}, "probability must be from 0 to 1, got nan"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        ClassicAugmentation(**wrong).check()


def test_ranges_are_read_from_text_and_a_misspelt_one_is_told():
    settings = ClassicAugmentation().override(rotation="30", scale="0.8,1.2", flip="true")
    assert (settings.rotation, settings.scale, settings.flip) == (30.0, (0.8, 1.2), True)
    with pytest.raises(ValueError, match="no 'rotate' .did you mean rotation.*--set"):
        ClassicAugmentation().override(rotate="30")
    with pytest.raises(ValueError, match="crop must be a number, got 'half'"):
        ClassicAugmentation().override(crop="half")


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 1), np.uint8)])
def test_what_is_no_grey_film_is_refused(wrong):
    with pytest.raises(ValueError, match="uint8"):
        augment(wrong, ClassicAugmentation(), rng())
