import json
from pathlib import Path

import numpy as np
import pytest

from keras_cxrgan.evaluation import frechet as blocks
from keras_cxrgan.evaluation import kernel_distance as module
from keras_cxrgan.evaluation.frechet import half_splits
from keras_cxrgan.evaluation.kernel_distance import (
    kid,
    kid_difference,
    kid_floor,
    kid_subsets,
    kid_test,
)

CASES = json.loads((Path(__file__).parent / "data" / "reference_metrics.json").read_text())["cases"]


def draw(n, dims, rng, scale=1.0, shift=0.0):
    return np.abs(rng.standard_normal((n, dims)) * scale + shift)


def by_definition(real, fake):
    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    n, m = len(real), len(fake)
    within = kernel(real, real), kernel(fake, fake)
    sums = [table.sum() - np.trace(table) for table in within]
    return sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * kernel(real, fake).mean()


def root_mean_square(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_kid_is_the_reference_value(case):
    rng = np.random.RandomState(case["seed"])
    real = rng.standard_normal((case["n_real"], case["dims"]))
    fake = rng.standard_normal((case["n_fake"], case["dims"])) * case["scale"] + case["shift"]
    assert kid(real, fake) == pytest.approx(case["kid"], abs=1e-12)
    tested = kid_test(real, fake, permutations=1, seed=0)
    assert tested["kid"] == pytest.approx(case["kid"], abs=1e-12)


@pytest.mark.parametrize("n, m", [(25, 25), (30, 17)])
def test_kid_is_its_definition_and_symmetric(n, m):
    rng = np.random.default_rng(0)
    real, fake = draw(n, 12, rng), draw(m, 12, rng, scale=1.5)
    assert kid(real, fake) == pytest.approx(by_definition(real, fake), abs=1e-10)
    assert kid(fake, real) == pytest.approx(kid(real, fake), abs=1e-12)


def test_constant_sets_have_the_value_of_the_formula():
    # k(2, 2) = 125, k(3, 3) = 1000, k(2, 3) = 343 in every dimension count
    real, fake = np.full((4, 7), 2.0), np.full((5, 7), 3.0)
    assert kid(real, fake) == pytest.approx(125 + 1000 - 2 * 343, rel=1e-12)


def test_kid_is_unbiased_and_not_clipped_for_unequal_counts():
    # The biased form, with i = j, would be above 0 by many standard errors.
    rng = np.random.default_rng(1)
    values = np.array([kid(draw(30, 8, rng), draw(45, 8, rng)) for _ in range(500)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(500)
    assert 0.3 < np.mean(values < 0) < 0.8


def test_blocks_and_float32_memory_maps_change_nothing(monkeypatch, tmp_path):
    rng = np.random.default_rng(2)
    real, fake = draw(40, 6, rng).astype(np.float32), draw(33, 6, rng).astype(np.float32)
    whole = kid_test(real, fake, permutations=9, seed=0)
    floor = kid_floor(real, splits=3, seed=0, fake=fake)
    np.save(tmp_path / "fake.npy", fake)
    mapped = np.load(tmp_path / "fake.npy", mmap_mode="r")
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 7)
    assert kid(real, mapped) == pytest.approx(kid(real.astype(float), fake.astype(float)))
    assert kid_test(real, mapped, permutations=9, seed=0) == pytest.approx(whole)
    assert kid_floor(real, splits=3, seed=0, fake=mapped) == pytest.approx(floor)


@pytest.mark.parametrize(
    "function, least",
    [
        (kid, 2),
        (lambda real, fake: kid_test(real, fake, seed=0), 4),
        (lambda real, fake: kid_difference(real, fake, fake, seed=0), 4),
        (lambda real, fake: kid_floor(real, fake=fake, seed=0), 2),
    ],
)
def test_what_has_no_kid_is_refused(function, least):
    good = np.eye(5)
    with pytest.raises(ValueError, match=f"{least - 1} fake.* at least {least}"):
        function(good, good[: least - 1])
    with pytest.raises(ValueError, match="differ in dims"):
        function(good, np.eye(4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        function(good, good * np.nan)


# The test and its error.


@pytest.mark.parametrize("n, m, scale", [(60, 60, 1.3), (40, 100, 0.6)])
def test_the_standard_error_is_the_spread_over_redraws(n, m, scale):
    rng = np.random.default_rng(3)
    results = [
        kid_test(draw(n, 16, rng), draw(m, 16, rng, scale), permutations=1, seed=0)
        for _ in range(300)
    ]
    errors = [result["standard_error"] for result in results]
    spread = np.std([result["kid"] for result in results])
    assert root_mean_square(errors) == pytest.approx(spread, rel=0.15)


def test_the_standard_error_holds_for_equal_distributions_too():
    # There the first-order terms vanish: their own variance alone would be twice too large.
    rng = np.random.default_rng(4)
    results = [
        kid_test(draw(50, 32, rng), draw(70, 32, rng), permutations=1, seed=0) for _ in range(300)
    ]
    errors = [result["standard_error"] for result in results]
    spread = np.std([result["kid"] for result in results])
    assert 0.85 * spread < root_mean_square(errors) < 1.45 * spread


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(5)
    p_values = np.sort(
        [
            kid_test(draw(12, 6, rng), draw(18, 6, rng), permutations=99, seed=seed)["p_value"]
            for seed in range(400)
        ]
    )
    # Kolmogorov-Smirnov at 1 %: 1.63 / sqrt(400)
    assert np.abs(p_values - np.arange(1, 401) / 400).max() < 0.0815
    assert p_values.min() >= 0.01


def test_p_is_small_where_the_sets_differ_and_one_where_they_are_constant():
    rng = np.random.default_rng(6)
    result = kid_test(draw(40, 8, rng), draw(40, 8, rng, shift=1.0), permutations=199, seed=0)
    assert result["p_value"] == 1 / 200
    json.dumps(result)
    constant = kid_test(np.ones((5, 3)), np.ones((6, 3)), permutations=99, seed=0)
    assert (constant["p_value"], constant["standard_error"]) == (1.0, 0.0)


def test_permutations_are_capped_and_say_so(monkeypatch):
    monkeypatch.setattr(module, "PERMUTATION_ROWS", 10)
    rng = np.random.default_rng(7)
    real, fake = draw(30, 8, rng), draw(8, 8, rng)
    result = kid_test(real, fake, permutations=19, seed=0)
    assert (result["n_real"], result["n_real_permuted"]) == (30, 10)
    assert (result["n_fake"], result["n_fake_permuted"]) == (8, 8)
    assert result["kid"] == pytest.approx(kid(real, fake))
    assert result == kid_test(real, fake, permutations=19, seed=0)
    with pytest.raises(ValueError, match="permutations is 0"):
        kid_test(real, fake, permutations=0, seed=0)


# Subsets.


def test_subsets_of_the_whole_sets_are_kid_without_spread():
    rng = np.random.default_rng(8)
    real, fake = draw(20, 5, rng), draw(20, 5, rng, scale=1.2)
    result = kid_subsets(real, fake, subsets=5, subset_size=20, seed=0)
    assert result["kid_mean"] == pytest.approx(kid(real, fake), abs=1e-12)
    assert result["kid_sd"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("subsets, size", [(400, 15), (10, 8)])  # in one pass, and one by one
def test_subsets_scatter_about_kid(subsets, size):
    rng = np.random.default_rng(9)
    real, fake = draw(60, 5, rng), draw(50, 5, rng, scale=1.2)
    result = kid_subsets(real, fake, subsets=subsets, subset_size=size, seed=1)
    error = result["kid_sd"] / np.sqrt(subsets)
    assert abs(result["kid_mean"] - kid(real, fake)) < 4 * error
    assert 0 < result["kid_sd"]
    json.dumps(result)


def test_subsets_larger_than_a_set_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="subsets of 1000 images .* 20 reals and 30 fakes.*kid"):
        kid_subsets(np.ones((20, 3)), np.ones((30, 3)), seed=0)
    with pytest.raises(ValueError, match="subsets is 1"):
        kid_subsets(np.ones((20, 3)), np.ones((30, 3)), subsets=1, subset_size=5, seed=0)


# Differences.


def test_the_nearer_set_has_the_negative_difference_and_a_small_p():
    rng = np.random.default_rng(10)
    real, near, far = draw(80, 8, rng), draw(60, 8, rng), draw(70, 8, rng, shift=0.7)
    result = kid_difference(real, near, far, permutations=199, seed=0)
    assert result["kid_a"] == pytest.approx(kid(real, near))
    assert result["difference"] == pytest.approx(kid(real, near) - kid(real, far))
    assert result["low"] < result["difference"] < result["high"] < 0
    assert result["p_value"] == 1 / 200
    swapped = kid_difference(real, far, near, permutations=199, seed=0)
    assert swapped["difference"] == pytest.approx(-result["difference"])
    assert swapped["low"] == pytest.approx(-result["high"])
    json.dumps(result)


@pytest.mark.parametrize(
    "count, count_a, count_b, scale_a, scale_b",
    [(60, 40, 60, 1.3, 1.3), (60, 50, 50, 1.3, 1.5), (15, 80, 80, 0.5, 1.0)],  # the reals' part
)
def test_the_interval_of_a_difference_holds_the_truth(count, count_a, count_b, scale_a, scale_b):
    rng = np.random.default_rng(11)
    results = [
        kid_difference(
            draw(count, 16, rng),
            draw(count_a, 16, rng, scale_a),
            draw(count_b, 16, rng, scale_b),
            permutations=1,
            seed=0,
        )
        for _ in range(200)
    ]
    differences = [result["difference"] for result in results]
    truth = 0.0 if scale_a == scale_b else np.mean(differences)
    held = np.mean([result["low"] <= truth <= result["high"] for result in results])
    assert 0.90 <= held
    errors = [result["standard_error"] for result in results]
    assert root_mean_square(errors) == pytest.approx(np.std(differences), rel=0.2)


def test_the_error_of_a_difference_holds_where_nothing_differs():
    rng = np.random.default_rng(14)
    results = [
        kid_difference(*(draw(n, 32, rng) for n in (50, 40, 60)), permutations=1, seed=0)
        for _ in range(300)
    ]
    errors = [result["standard_error"] for result in results]
    spread = np.std([result["difference"] for result in results])
    assert 0.85 * spread < root_mean_square(errors) < 1.45 * spread


def test_p_of_a_difference_is_uniform_where_nothing_differs():
    # The labels of a and b are exchangeable whatever the reals are, and at unequal counts.
    rng = np.random.default_rng(12)
    p_values = np.sort(
        [
            kid_difference(
                draw(15, 6, rng),
                draw(10, 6, rng, 1.4),
                draw(16, 6, rng, 1.4),
                permutations=99,
                seed=seed,
            )["p_value"]
            for seed in range(400)
        ]
    )
    assert np.abs(p_values - np.arange(1, 401) / 400).max() < 0.0815


# Floor.


def test_the_floor_is_kid_of_the_halves_and_of_as_many_fakes():
    rng = np.random.default_rng(13)
    real, fake = draw(40, 6, rng), draw(90, 6, rng, scale=1.5)
    floor = kid_floor(real, splits=4, seed=3, fake=fake)
    parts = half_splits(40, fake, 4, 3)
    floors = [kid(real[first], real[second]) for first, second, _ in parts]
    scores = [kid(real[first], fake[drawn]) for first, _, drawn in parts]
    assert (floor["n"], floor["splits"]) == (20, 4)
    assert floor["floor_mean"] == pytest.approx(np.mean(floors), abs=1e-12)
    assert floor["floor_sd"] == pytest.approx(np.std(floors, ddof=1), abs=1e-12)
    assert floor["fake_mean"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert floor["excess_mean"] == pytest.approx(np.mean(scores) - np.mean(floors), abs=1e-12)
    json.dumps(floor)
    assert "fake_mean" not in kid_floor(real, splits=4, seed=3)


def test_the_floor_needs_four_reals():
    with pytest.raises(ValueError, match="3 real images: at least 4"):
        kid_floor(np.eye(3), seed=0)
