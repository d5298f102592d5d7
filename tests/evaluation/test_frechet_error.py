import json

import numpy as np
import pytest

from keras_cxrgan.evaluation import frechet as blocks
from keras_cxrgan.evaluation import frechet_error as module
from keras_cxrgan.evaluation.frechet import frechet
from keras_cxrgan.evaluation.frechet_error import (
    frechet_difference,
    frechet_influence,
    frechet_standard_error,
)


def draw(n, dims, rng, scale=1.0, shift=0.0):
    return rng.standard_normal((n, dims)) * np.arange(1, dims + 1) ** -0.5 * scale + shift


def leave_one_out(real, fake):
    for_real = np.array([frechet(np.delete(real, i, axis=0), fake) for i in range(len(real))])
    for_fake = np.array([frechet(real, np.delete(fake, i, axis=0)) for i in range(len(fake))])
    return [(len(part) - 1) * (part.mean() - part) for part in (for_real, for_fake)]


def root_mean_square(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.parametrize(
    "n, m, dims", [(3, 4, 10), (30, 24, 50), (20, 70, 40), (70, 20, 40), (50, 60, 20)]
)
def test_influences_are_those_of_the_brute_force_jackknife(n, m, dims):
    rng = np.random.default_rng(0)
    real, fake = draw(n, dims, rng, shift=5.0), draw(m, dims, rng, scale=1.2, shift=5.1)
    real[:, -1] = fake[:, -1] = 2.0  # a dead feature
    for got, expected in zip(frechet_influence(real, fake), leave_one_out(real, fake)):
        np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())


def test_interactions_are_the_second_differences_of_the_distance():
    # T - T_i - T_j + T_ij, with images i and j left out, agree up to terms of order D / n.
    rng = np.random.default_rng(11)
    real, fake = draw(40, 3, rng), draw(36, 3, rng, scale=1.2, shift=0.1)

    def without(i=(), j=()):
        return frechet(np.delete(real, i, axis=0), np.delete(fake, j, axis=0))

    whole = without()
    for_real = np.array([without([i]) for i in range(40)])
    for_fake = np.array([without((), [j]) for j in range(36)])
    mixed = np.array([[without([i], [j]) for j in range(36)] for i in range(40)])
    mixed += whole - for_real[:, None] - for_fake
    within = np.array([[without([i, j]) for j in range(40)] for i in range(40)])
    within += whole - for_real[:, None] - for_real
    tables = module._View(real, fake).interactions()
    apart = ~np.eye(40, dtype=bool)
    for got, expected in ((tables[0], within * apart), (-tables[2], mixed)):
        # Row and column means hold first-order terms, which differences of counts leave behind.
        expected = expected - expected.mean(axis=0) - expected.mean(axis=1, keepdims=True)
        mask = apart if got is tables[0] else np.ones_like(got, bool)
        assert np.corrcoef(got[mask], expected[mask])[0, 1] > 0.98
        assert 0.75 < np.std(got[mask]) / np.std(expected[mask]) < 1.1


def test_an_outlier_among_the_fakes_has_the_largest_influence():
    rng = np.random.default_rng(1)
    real, fake = draw(40, 30, rng), draw(40, 30, rng)
    fake[17] += 10.0
    influence = frechet_influence(real, fake)[1]
    assert np.argmax(influence) == 17 and influence[17] > 0


def test_influences_do_not_depend_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    real, fake = draw(50, 20, rng), draw(30, 20, rng)
    whole = frechet_influence(real, fake)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 7)
    for got, expected in zip(frechet_influence(real, fake), whole):
        np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("n, dims, redraws", [(100, 768, 120), (300, 32, 200)])
def test_the_standard_error_is_the_spread_over_redraws(n, dims, redraws):
    # The plain jackknife is 35 % too wide here: each interaction of two images counts twice.
    rng = np.random.default_rng(3)
    distances, errors = [], []
    for number in range(redraws):
        real, fake = draw(n, dims, rng), draw(n, dims, rng, scale=1.1)
        distances.append(frechet(real, fake))
        if number < 25:
            errors.append(frechet_standard_error(real, fake))
    assert root_mean_square(errors) == pytest.approx(np.std(distances), rel=0.25)


def test_the_standard_error_is_that_of_a_mean_where_only_the_mean_differs():
    # Tiny spread, far apart: FD ~ |m1 - m2|^2 = d^2, sd 2 d sqrt(s1^2 / n + s2^2 / m).
    rng = np.random.default_rng(4)
    real, fake = rng.normal(0.0, 0.01, (80, 1)), rng.normal(3.0, 0.02, (50, 1))
    expected = 2 * 3 * np.sqrt(real.var(ddof=1) / 80 + fake.var(ddof=1) / 50)
    assert frechet_standard_error(real, fake) == pytest.approx(expected, rel=0.01)


def test_pairs_of_some_images_stand_for_all(monkeypatch):
    rng = np.random.default_rng(5)
    real, fake = draw(200, 60, rng), draw(150, 60, rng)
    whole = frechet_standard_error(real, fake)
    monkeypatch.setattr(module, "PAIR_ROWS", 75)
    assert frechet_standard_error(real, fake) == pytest.approx(whole, rel=0.05)


def test_a_collapsed_generator_has_an_error_and_no_nan():
    real = draw(30, 8, np.random.default_rng(6))
    assert frechet_standard_error(real, np.zeros((20, 8))) > 0
    assert frechet_standard_error(np.ones((5, 8)), np.zeros((20, 8))) == 0


def test_errors_need_three_images_and_equal_dims():
    three, two = np.eye(3), np.eye(3)[:2]
    for function in (frechet_influence, frechet_standard_error):
        with pytest.raises(ValueError, match="2 fake images: at least 3"):
            function(three, two)
        with pytest.raises(ValueError, match="differ in dims"):
            function(three, np.eye(4))
    with pytest.raises(ValueError, match="2 fake_b images: at least 3"):
        frechet_difference(three, three, two)
    with pytest.raises(ValueError, match="NaN"):
        frechet_difference(three, three, three * np.nan)


def test_the_nearer_set_has_the_negative_difference_and_a_small_p():
    rng = np.random.default_rng(7)
    real, near, far = draw(150, 60, rng), draw(150, 60, rng), draw(150, 60, rng, shift=0.3)
    result = frechet_difference(real, near, far)
    assert result["frechet_a"] == pytest.approx(frechet(real, near))
    assert result["frechet_b"] == pytest.approx(frechet(real, far))
    assert result["difference"] == result["frechet_a"] - result["frechet_b"] < 0
    assert result["low"] < result["difference"] < result["high"] < 0
    assert result["p_value"] < 1e-4
    swapped = frechet_difference(real, far, near)
    assert swapped["difference"] == pytest.approx(-result["difference"])
    assert swapped["low"] == pytest.approx(-result["high"])
    json.dumps(result)


def test_sharing_the_reals_narrows_the_interval():
    rng = np.random.default_rng(8)
    real, first, second = draw(40, 20, rng), draw(400, 20, rng, 1.5), draw(400, 20, rng, 1.5)
    single = [frechet_standard_error(real, fake) for fake in (first, second)]
    joint = frechet_difference(real, first, second)["standard_error"]
    assert joint < 0.6 * np.hypot(*single)


def test_sets_of_unequal_counts_are_compared_at_the_smaller_one():
    # At N < D a set of twice the images looks nearer for its count alone.
    rng = np.random.default_rng(9)
    real, few, many = draw(60, 100, rng), draw(30, 100, rng), draw(60, 100, rng)
    assert frechet(real, few) - frechet(real, many) > 0.4
    result = frechet_difference(real, few, many, seed=1)
    assert (result["n_real"], result["n_fake"]) == (60, 30)
    assert result["low"] < 0 < result["high"]
    assert result == frechet_difference(real, few, many, seed=1)


@pytest.mark.parametrize("n, dims", [(40, 80), (120, 16)])
def test_the_interval_of_a_difference_holds_the_truth(n, dims):
    rng = np.random.default_rng(10)
    results = [
        frechet_difference(draw(n, dims, rng), draw(n, dims, rng, 1.2), draw(n, dims, rng, 1.25))
        for _ in range(120)
    ]
    differences = [result["difference"] for result in results]
    truth = np.mean(differences)
    held = np.mean([result["low"] <= truth <= result["high"] for result in results])
    assert 0.90 <= held
    errors = [result["standard_error"] for result in results]
    assert root_mean_square(errors) == pytest.approx(np.std(differences), rel=0.25)


def test_equal_constants_differ_by_nothing():
    result = frechet_difference(np.ones((4, 2)), np.zeros((4, 2)), np.zeros((4, 2)))
    assert (result["difference"], result["p_value"]) == (0.0, 1.0)
