import numpy as np
import pytest

from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.evaluation import appearance
from keras_cxrgan.evaluation.appearance import (
    grey_histogram,
    histogram_distance,
    power_spectrum,
    spectral_comparison,
)


@pytest.fixture(scope="module")
def films():
    return phantoms(60, 64, seed=11)[0]


def alternating(side, name):
    rows, columns = np.mgrid[:side, :side]
    step = {"horizontal": columns, "vertical": rows, "diagonal": rows + columns}[name]
    return 1 - 2.0 * (step % 2)


@pytest.mark.parametrize("side", [32, 64, 63])
def test_white_noise_has_its_variance_as_power_at_every_frequency(side):
    noise = np.random.default_rng(0).normal(128, 20, size=(300, side, side))
    frequencies, power = power_spectrum(np.rint(noise).astype(np.uint8))
    assert frequencies[0] == pytest.approx(1 / side)
    assert 0.68 < frequencies[-1] < 0.72
    # The first ring loses some power with the mean.
    np.testing.assert_allclose(power[1:], np.log10(400 + 1 / 12), atol=0.06)


def test_a_wave_peaks_at_its_own_frequency():
    columns = np.arange(64)
    wave = 128 + 50 * np.cos(2 * np.pi * 12 / 64 * columns)
    image = np.rint(np.tile(wave, (64, 1))).astype(np.uint8)[None]
    frequencies, power = power_spectrum(image)
    assert frequencies[np.argmax(power)] == pytest.approx(12 / 64)


def test_an_edge_at_the_border_does_not_leak_into_high_frequencies():
    # A ramp is smooth inside but jumps where a plain transform wraps around.
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))[None]
    frequencies, power = power_spectrum(ramp)
    assert power[frequencies > 0.3].max() < -1


def test_spectrum_does_not_depend_on_blocks(films, monkeypatch):
    _, whole = power_spectrum(films)
    monkeypatch.setattr(appearance, "_BLOCK_PIXELS", 7 * 64 * 64)
    np.testing.assert_allclose(power_spectrum(films)[1], whole, atol=1e-10)


@pytest.mark.parametrize("name", ["horizontal", "vertical", "diagonal"])
def test_a_planted_checkerboard_rises_in_its_own_corner(films, name):
    decibels = []
    for amplitude in (0, 2, 4, 8):
        planted = films[30:] + amplitude * alternating(64, name)
        result = spectral_comparison(films[:30], np.clip(np.rint(planted), 0, 255).astype(np.uint8))
        decibels.append(result["corners_db"][name])
        if amplitude:
            assert max(result["corners_db"], key=result["corners_db"].get) == name
            assert result["checkerboard_db"] == result["corners_db"][name]
    assert decibels == sorted(decibels)
    assert decibels[1] > 3
    assert decibels[3] > 12


def test_two_halves_of_one_law_show_no_checkerboard(films):
    result = spectral_comparison(films[:30], films[30:])
    assert max(abs(value) for value in result["corners_db"].values()) < 2
    assert result["rms_log10_difference"] < 0.15


def test_noise_is_no_checkerboard_but_shows_in_the_curve(films):
    noisy = films[30:] + np.random.default_rng(1).normal(0, 12, films[30:].shape)
    result = spectral_comparison(films[:30], np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    assert result["checkerboard_db"] < 2
    assert result["rms_log10_difference"] > 0.3


def test_flat_images_have_a_spectrum_of_numbers():
    flat = np.zeros((3, 32, 32), np.uint8)
    result = spectral_comparison(flat, flat)
    assert np.isfinite(result["real_log10_power"]).all()
    assert result["checkerboard_db"] == 0


def test_histogram_distance_is_how_far_grey_levels_moved():
    dark = np.random.default_rng(2).integers(0, 200, (5, 16, 16), dtype=np.uint8)
    assert histogram_distance(dark, dark + np.uint8(10)) == pytest.approx(10, abs=1e-9)
    assert histogram_distance(dark + np.uint8(10), dark) == pytest.approx(10, abs=1e-9)
    assert histogram_distance(dark, dark[:, ::-1]) == 0
    black, white = np.zeros((2, 4, 4), np.uint8), np.full((3, 8, 8), 255, np.uint8)
    assert histogram_distance(black, white) == pytest.approx(255)
    half = np.concatenate([np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 4, np.uint8)])
    assert histogram_distance(black, half) == pytest.approx(2)


def test_grey_histogram_is_shares_of_pixels():
    image = np.array([[[0, 0], [255, 7]]], np.uint8)
    histogram = grey_histogram(image)
    assert histogram.shape == (256,)
    assert (histogram[0], histogram[7], histogram[255]) == (0.5, 0.25, 0.25)


def test_what_is_not_square_or_not_grey_levels_is_refused(films):
    with pytest.raises(ValueError, match="64 x 60"):
        power_spectrum(films[:, :, :60])
    with pytest.raises(ValueError, match="resize one side"):
        spectral_comparison(films, films[:, :32, :32])
    with pytest.raises(ValueError, match="float32"):
        grey_histogram(films.astype(np.float32))
    with pytest.raises(ValueError, match="at least one"):
        grey_histogram(films[:0])
