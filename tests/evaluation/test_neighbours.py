import json
from pathlib import Path

import numpy as np
import pytest

from keras_cxrgan.evaluation.neighbours import expected_coverage, nearest, prdc

GOLDEN = json.loads((Path(__file__).parent / "data/reference_metrics.json").read_text())["cases"]


def by_hand(queries, references, same=False):
    """Every distance by subtraction, one at a time."""
    table = np.array(
        [[np.sqrt(((q - r) ** 2).sum()) for r in references] for q in queries.astype(np.float64)]
    )
    if same:
        np.fill_diagonal(table, np.inf)
    return table


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["centred", "far-from-origin"])
@pytest.mark.parametrize("same", [False, True])
def test_neighbours_equal_a_double_loop_even_where_the_matrix_trick_cancels(offset, same):
    random = np.random.default_rng(0)
    references = random.normal(size=(60, 5)) * 1e-2 + offset
    queries = references if same else random.normal(size=(40, 5)) * 1e-2 + offset
    table = by_hand(queries, references, same)
    indices, distances = nearest(queries, references, 3, same=same)
    np.testing.assert_array_equal(indices, np.argsort(table, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(table, axis=1)[:, :3], rtol=1e-14)


def test_neighbours_do_not_depend_on_how_rows_fall_into_tiles(monkeypatch):
    random = np.random.default_rng(1)
    real = random.normal(size=(50, 4)).astype(np.float32)
    fake = random.normal(size=(37, 4)).astype(np.float32)
    whole = nearest(fake, real, 6), nearest(real, real, 6, same=True), prdc(real, fake)
    from keras_cxrgan.evaluation import neighbours

    monkeypatch.setattr(neighbours.blocks, "__defaults__", (7,))
    tiled = nearest(fake, real, 6), nearest(real, real, 6, same=True), prdc(real, fake)
    for a, b in zip(whole[:2], tiled[:2]):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert whole[2] == tiled[2]


def test_copies_are_at_a_distance_of_exactly_zero():
    features = np.random.default_rng(2).normal(size=(30, 8)).astype(np.float32) * 100
    indices, distances = nearest(features[::-1], features)
    np.testing.assert_array_equal(indices[:, 0], np.arange(30)[::-1])
    np.testing.assert_array_equal(distances, 0)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}")
@pytest.mark.parametrize("k", [3, 5])
def test_prdc_equals_the_reference_code(case, k):
    random = np.random.RandomState(case["seed"])
    real = random.standard_normal((case["n_real"], case["dims"]))
    fake = random.standard_normal((case["n_fake"], case["dims"])) * case["scale"] + case["shift"]
    result = prdc(real, fake, k)
    assert {name: result[name] for name in case[f"prdc_k{k}"]} == case[f"prdc_k{k}"]


def test_precision_and_recall_are_not_swapped():
    random = np.random.default_rng(3)
    real, tight = random.normal(size=(200, 2)), random.normal(size=(200, 2)) * 0.05
    result = prdc(real, tight)
    assert result["precision"] == 1
    assert result["recall"] < 0.1


def test_a_set_against_itself_covers_itself_in_spite_of_ties():
    # Each k-th neighbour lies exactly on the ball of its point: strictly inside are k points.
    real = np.random.default_rng(4).normal(size=(120, 6)) + 50
    result = prdc(real, real.copy(), 4)
    numbers = [result[name] for name in ("precision", "recall", "density", "coverage")]
    assert numbers == [1, 1, 1, 1]
    assert result["warnings"] == []


@pytest.mark.parametrize(
    ("n_real", "n_fake", "k", "expected"), [(50, 50, 5, 0.97334), (100, 40, 3, 0.64189)]
)
def test_coverage_and_density_of_one_law_come_to_their_expected_values(n_real, n_fake, k, expected):
    assert expected_coverage(n_real, n_fake, k) == pytest.approx(expected, abs=5e-6)
    random = np.random.default_rng(5)
    draws = [
        prdc(random.normal(size=(n_real, 3)), random.normal(size=(n_fake, 3)), k)
        for _ in range(100)
    ]
    assert np.mean([draw["coverage"] for draw in draws]) == pytest.approx(expected, abs=0.02)
    assert np.mean([draw["density"] for draw in draws]) == pytest.approx(1, abs=0.05)


def test_duplicates_are_told_and_not_only_counted_as_empty_balls():
    real = np.random.default_rng(6).normal(size=(20, 3))
    duplicated = np.concatenate([real, np.repeat(real[:1], 5, axis=0)])
    (warning,) = prdc(duplicated, real, 5)["warnings"]
    assert warning.startswith("6 of 25 real images have 5 or more exact duplicates")
    collapsed = prdc(real, np.ones((20, 3)), 5)
    assert collapsed["recall"] == 0
    assert "20 of 20 generated images" in collapsed["warnings"][0]


def test_bad_features_are_refused_with_their_counts():
    good = np.random.default_rng(7).normal(size=(10, 3))
    with pytest.raises(ValueError, match="6 real images are too few for 5 neighbours.*7"):
        prdc(good[:6], good)
    with pytest.raises(ValueError, match="6 generated images"):
        prdc(good, good[:6])
    prdc(good[:7], good)
    with pytest.raises(ValueError, match="3 dims .* 2;"):
        prdc(good, good[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        prdc(good, np.where(good > 1, np.nan, good))
    with pytest.raises(ValueError, match="3 reference .* at least 4"):
        nearest(good, good[:3], 4)
    with pytest.raises(ValueError, match="shape"):
        nearest(good[0], good)
