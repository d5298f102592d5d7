from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from keras_cxrgan.data.anatomy import (
    half_chord,
    lung_length,
    sample_anatomy,
    tube_chords,
    uncovered_length,
)
from keras_cxrgan.data.phantom import LABELS, phantom, phantoms


def block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    n = len(image) // factor
    return image.astype(np.float64).reshape(n, factor, n, factor).mean(axis=(1, 3))


def added_density(index: int, label: str, size: int = 64) -> np.ndarray:
    return phantom(index, size, label).astype(float) - phantom(index, size).astype(float)


# --- Physics --------------------------------------------------------------------------------


def test_central_ray_crosses_an_ellipsoid_along_its_depth_axis():
    centre = np.array([1.5])
    assert 2 * half_chord(centre, centre, (1.5, 1.5), (2, 3, 5), tilt=0.7)[0] == 10.0
    assert half_chord(centre + 9, centre, (1.5, 1.5), (2, 3, 5))[0] == 0.0


@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_projection_of_an_ellipsoid_integrates_to_its_volume(tilt):
    axis = np.arange(-5, 5, 0.02) + 0.01
    chords = 2 * half_chord(axis[None, :], axis[:, None], (0.3, -0.2), (2, 3, 4), tilt=tilt)
    assert chords.sum() * 0.02**2 == pytest.approx(4 / 3 * np.pi * 2 * 3 * 4, rel=1e-3)


def test_dome_goes_on_downward_as_a_column():
    x, y = np.zeros(3), np.array([-2.0, 0.0, 50.0])
    np.testing.assert_allclose(half_chord(x, y, (0, 0), (3, 2, 4), column=True), [0, 4, 4])


def test_tube_seen_side_on_has_its_diameter_and_keeps_its_volume_when_thinner_than_the_grid():
    along = np.array([[2.0, 5.0, 8.0, 5.0, 1.0, 1.0]])
    chords = tube_chords(along, 200, 0.05)
    assert chords[:, 100].max() == pytest.approx(2.0, abs=0.01)
    for radius in (1.0, 0.02):
        along[:, 4:] = radius
        # Over many sub-grid positions, as a single one samples a thin tube at three points.
        shifted = along + np.outer(np.linspace(0, 0.05, 9)[:-1], [0, 1, 0, 1, 0, 0])
        areas = [tube_chords(tube[None], 200, 0.05)[:, 100].sum() * 0.05 for tube in shifted]
        assert np.mean(areas) == pytest.approx(np.pi * radius**2, rel=0.05)


def test_organ_removes_only_the_lung_it_covers():
    half, cover = np.array([5.0, 5.0, 5.0, 0.0]), np.array([0.0, 2.0, 9.0, 2.0])
    np.testing.assert_allclose(uncovered_length(half, cover, 1.0), [10.0, 6.0, 0.0, 0.0])
    # Reaching past the front of the lung, an organ covers no more than the lung has.
    np.testing.assert_allclose(uncovered_length(np.array([2.0]), np.array([2.0]), 1.0), [1.0])


# --- One film -------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_film_does_not_depend_on_the_batch_or_the_order_it_is_made_in(label):
    batch, names = phantoms(5, 48, labels=(label,), seed=3, start=10)
    assert names == [label] * 5
    for index in (14, 10, 12):
        np.testing.assert_array_equal(phantom(index, 48, label, seed=3), batch[index - 10])


def test_seed_and_index_each_give_another_patient():
    film = phantom(1, 64, seed=2).astype(float)
    for other in (phantom(2, 64, seed=1), phantom(1, 64, seed=3), phantom(2, 64, seed=2)):
        assert np.abs(film - other).mean() > 5


@pytest.mark.parametrize("size", [32, 50, 101, 300])
def test_any_size_is_a_uint8_film_with_tonal_range(size):
    film = phantom(0, size)
    assert film.dtype == np.uint8 and film.shape == (size, size)
    assert np.ptp(np.percentile(film, [5, 95])) > 60


@pytest.mark.parametrize("label", ["normal", "covid"])
@pytest.mark.parametrize("small", [32, 64, 128])
def test_small_and_large_films_show_the_same_patient(label, small):
    for index in range(3):
        large = block_mean(phantom(index, 256, label), 256 // small)
        film = phantom(index, small, label)
        assert np.corrcoef(large.ravel(), film.ravel())[0, 1] > 0.99
        assert np.abs(large - film).mean() < 4


def test_finer_pixels_count_fewer_photons_and_average_to_the_same_noise(monkeypatch):
    module = sys.modules[phantom.__module__]
    draw = module.sample_exposure

    def noise(size):
        films = []
        for photons in (1e6, 1e15):
            dim = lambda rng: replace(draw(rng), photons=photons)  # noqa: B023, E731
            monkeypatch.setattr(module, "sample_exposure", dim)
            films.append(phantom(5, size).astype(float))
        return films[0] - films[1]

    fine, coarse = noise(512), noise(128)
    assert fine.std() > 2.5 * coarse.std()
    assert block_mean(fine, 4).std() == pytest.approx(coarse.std(), rel=0.2)


# --- Anatomy --------------------------------------------------------------------------------


def test_lungs_are_dark_beside_a_bright_mediastinum_and_abdomen():
    mean = phantoms(24, 64)[0].mean(axis=0)
    right_lung, middle, left_lung = mean[24:32, 14:24], mean[24:44, 30:34], mean[20:28, 42:50]
    assert max(right_lung.mean(), left_lung.mean()) + 50 < middle.mean()
    assert right_lung.mean() + 50 < mean[58:, 24:40].mean()


def test_every_heart_bulges_to_the_left_of_the_patient():
    across = np.arange(0.05, 9, 0.2)[None, :]
    for index in range(40):
        patient = sample_anatomy(np.random.default_rng(index))
        # Above both domes: the liver's stands higher and would hide the difference.
        top, bottom = patient.heart[1] - patient.heart[3], patient.dome_right - 0.3
        down = np.arange(top, bottom, 0.2)[:, None] + 0 * across
        right, left = (lung_length(patient, side * across, down).mean() for side in (-1, 1))
        assert left < right - 0.5


def test_film_shows_the_heart_on_its_right_so_it_is_not_mirrored():
    # Averaged over patients: the placing of one may hide it from a fixed pair of windows.
    mean = phantoms(32, 64)[0].mean(axis=0)
    assert mean[36:42, 38:44].mean() > mean[36:42, 20:26].mean() + 10


def test_films_vary_between_patients():
    films = phantoms(16, 64)[0].astype(float)
    pairs = [np.abs(a - b).mean() for i, a in enumerate(films) for b in films[:i]]
    assert np.mean(pairs) > 20 and np.min(pairs) > 5


# --- Labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["pneumonia", "covid"])
def test_disease_brightens_the_lungs_and_leaves_the_rest_of_the_film_alone(label):
    for index in range(6):
        added = added_density(index, label)
        assert added.max() > 8
        assert np.abs(added[:, :3]).max() <= 6 and np.abs(added[-2:]).max() <= 6


def test_pneumonia_is_in_one_lung_and_covid_in_both():
    def shares(label):
        result = []
        for index in range(10):
            added = np.maximum(added_density(index, label) - 4, 0)
            left, right = added[:, :30].sum(), added[:, 34:].sum()
            result.append(min(left, right) / (left + right))
        return np.array(result)

    assert np.median(shares("pneumonia")) < 0.05
    assert np.median(shares("covid")) > 0.2


def test_covid_favours_the_lower_zones():
    added = np.mean([np.maximum(added_density(i, "covid"), 0) for i in range(16)], axis=0)
    rows = np.average(np.arange(64), weights=added.sum(axis=1))
    lungs = 170 - phantoms(16, 64)[0].mean(axis=0)
    lungs = np.maximum(lungs[8:, 10:54], 0)
    assert rows > np.average(np.arange(8, 64), weights=lungs.sum(axis=1)) + 1


def test_labels_are_dealt_in_turn_by_film_number_not_by_place_in_the_batch():
    assert phantoms(4, 32, LABELS)[1] == ["normal", "pneumonia", "covid", "normal"]
    images, names = phantoms(2, 32, LABELS, start=2)
    assert names == ["covid", "normal"]
    np.testing.assert_array_equal(images[0], phantom(2, 32, "covid"))


# --- Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(index=0, image_size=31), "image_size is 31"),
        (dict(index=0, image_size=2049), "32 to 2048"),
        (dict(index=0, label="flu"), "label is 'flu'"),
        (dict(index=-1), "index is -1"),
        (dict(index=0, seed=-2), "seed -2"),
    ],
)
def test_bad_request_says_what_was_got_and_what_is_needed(arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom(**arguments)


@pytest.mark.parametrize("arguments", [dict(count=0), dict(count=1, labels="covid")])
def test_bad_batch_request_is_refused(arguments):
    with pytest.raises(ValueError, match="phantom (count|labels)"):
        phantoms(**arguments)
