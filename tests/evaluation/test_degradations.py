import subprocess
import sys

import numpy as np
import pytest

from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.evaluation.degradations import (
    DEGRADATIONS,
    REFERENCE,
    mode_dropping,
    wrong_class,
)

FILMS = phantoms(6, 64, seed=3)[0]
SPOILING = sorted(set(DEGRADATIONS) - {"mode_dropping"})


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_leaves_its_input_alone_and_repeats_itself(name):
    before = FILMS.copy()
    first, second = (DEGRADATIONS[name](FILMS, 0.5, seed=4) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == FILMS.shape
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(FILMS, before)
    assert not np.shares_memory(first, FILMS)


@pytest.mark.parametrize("name", SPOILING)
@pytest.mark.parametrize("size", [64, 128])
def test_films_differ_more_from_their_originals_the_more_severe(name, size):
    films = phantoms(4, size, seed=3)[0]
    errors = [
        np.abs(DEGRADATIONS[name](films, severity, seed=0).astype(float) - films).mean()
        for severity in (0.0625, 0.125, 0.25, 0.5, 1.0)
    ]
    assert errors == sorted(errors)
    assert errors[1] > 0.05 and errors[-1] > 4 * errors[1]


@pytest.mark.parametrize("name", ["noise", "rotation", "warp", "occlusion", "mode_dropping"])
def test_another_seed_draws_another_pattern(name):
    one, other = (DEGRADATIONS[name](FILMS, 0.5, seed=seed) for seed in (0, 1))
    assert (one != other).any()


def test_every_film_gets_its_own_noise():
    spoiled = DEGRADATIONS["noise"](np.full((2, 32, 32), 128, np.uint8), 0.5)
    assert (spoiled[0] != spoiled[1]).mean() > 0.9
    assert spoiled.std() == pytest.approx(20, rel=0.05)  # half of 40 grey levels


def test_the_checkerboard_has_the_stated_amplitudes_in_cells_of_one_and_two_pixels():
    (spoiled,) = DEGRADATIONS["checkerboard"](np.full((1, 4, 4), 100, np.uint8), 0.5)
    # 10 * (single + double), of cells that both start bright
    np.testing.assert_array_equal(
        spoiled,
        [[120, 100, 100, 80], [100, 120, 80, 100], [100, 80, 120, 100], [80, 100, 100, 120]],
    )


def test_borders_blacken_an_eighth_of_the_height_on_every_side():
    (spoiled,) = DEGRADATIONS["borders"](np.full((1, 64, 64), 200, np.uint8), 1.0)
    expected = np.zeros((64, 64), np.uint8)
    expected[8:-8, 8:-8] = 200
    np.testing.assert_array_equal(spoiled, expected)


def test_mode_dropping_repeats_the_few_films_it_keeps():
    films = np.arange(100, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    names, counts = np.unique(mode_dropping(films, 0.9, seed=2)[:, 0, 0], return_counts=True)
    assert len(names) == 10
    assert set(counts) == {10}
    assert len(np.unique(mode_dropping(films, 1.0))) == 1


def test_what_mild_dropping_loses_strong_dropping_loses_too():
    films = np.arange(50, dtype=np.uint8)[:, None, None]
    kept = [set(mode_dropping(films, severity, seed=5).ravel()) for severity in (0.3, 0.6, 0.9)]
    assert kept[0] > kept[1] > kept[2]


def test_wrong_class_replaces_the_stated_share_by_distinct_films():
    films = np.zeros((20, 2, 2), np.uint8)
    others = np.arange(1, 11, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    mixed = wrong_class(films, 0.25, seed=1, others=others)[:, 0, 0]
    strangers = mixed[mixed > 0]
    assert len(strangers) == 5 == len(set(strangers))


def test_wrong_class_refuses_to_repeat_the_others():
    with pytest.raises(ValueError, match="needs 20 other images"):
        wrong_class(np.zeros((20, 2, 2), np.uint8), 1.0, others=np.ones((10, 2, 2), np.uint8))


@pytest.mark.parametrize("severity", [0, -0.5, 1.5, float("nan")])
def test_severities_outside_0_to_1_are_refused(severity):
    with pytest.raises(ValueError, match="severity is"):
        DEGRADATIONS["blur"](FILMS, severity)


@pytest.mark.parametrize("images", [FILMS[0], FILMS[:0], FILMS.astype(float)])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_images_that_are_no_uint8_stack_are_refused(name, images):
    with pytest.raises(ValueError, match="uint8 images"):
        DEGRADATIONS[name](images, 0.5)


def test_reference_degradations_can_be_played():
    for name, severity in REFERENCE:
        assert DEGRADATIONS[name](FILMS, severity, seed=0).shape == FILMS.shape


def test_degradations_need_no_tensorflow():
    code = (
        "import sys, keras_cxrgan.evaluation.degradations;"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
