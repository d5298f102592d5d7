import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_cxrgan
from keras_cxrgan.evaluation import frechet as module
from keras_cxrgan.evaluation.frechet import (
    Moments,
    frechet,
    frechet_distance,
    frechet_floor,
    frechet_infinity,
    half_splits,
)

CASES = json.loads((Path(__file__).parent / "data" / "reference_metrics.json").read_text())["cases"]


def draw(n, dims, seed, scale=1.0, shift=0.0, decay=0.5):
    """Gaussian rows whose standard deviations fall off as those of real features do."""
    spread = np.arange(1, dims + 1) ** -decay
    return np.random.default_rng(seed).standard_normal((n, dims)) * spread * scale + shift


def by_moments(real, fake):
    parts = [(rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in (real, fake)]
    return frechet_distance(*parts[0], *parts[1])


def trace(*sets):
    return sum(rows.var(axis=0, ddof=1).sum() for rows in sets)


# Values.


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_the_distance_is_the_one_that_scipy_gives(case):
    rng = np.random.RandomState(case["seed"])
    real = rng.standard_normal((case["n_real"], case["dims"]))
    fake = rng.standard_normal((case["n_fake"], case["dims"])) * case["scale"] + case["shift"]
    assert frechet(real, fake) == pytest.approx(case["frechet"], rel=1e-12)


def test_a_shift_by_one_in_2048_dims_is_2048():
    rows = np.random.default_rng(0).standard_normal((20, 2048))
    assert frechet(rows, rows + 1.0) == pytest.approx(2048, rel=1e-12)
    mean, identity = np.zeros(512), np.eye(512)
    assert frechet_distance(mean, identity, mean + 2.0, identity) == pytest.approx(2048, rel=1e-12)


def test_spreads_a_and_b_give_dims_times_their_squared_difference():
    mean, identity = np.zeros(50), np.eye(50)
    assert frechet_distance(mean, 9 * identity, mean, 4 * identity) == pytest.approx(50, rel=1e-12)


def test_commuting_covariances_with_different_null_spaces_have_their_closed_form():
    first = np.array([4.0, 1.0, 0.0, 0.0, 9.0])
    second = np.array([1.0, 0.0, 16.0, 0.0, 4.0])
    # (2 - 1)^2 + 1 + 16 + 0 + (3 - 2)^2
    assert frechet_distance(np.zeros(5), np.diag(first), np.zeros(5), np.diag(second)) == (
        pytest.approx(19, rel=1e-14)
    )


def test_null_directions_do_not_leak_into_the_distance():
    # Without the truncation of null eigenvalues the D x D form is off by 1e-9 of the trace.
    real, fake = draw(60, 200, 0), draw(40, 200, 1, scale=1.3)
    difference = abs(frechet(real, fake) - by_moments(real, fake))
    assert difference <= 1e-12 * trace(real, fake)


@pytest.mark.parametrize("n, m", [(20, 300), (300, 20), (300, 200)])
def test_every_form_of_the_distance_is_the_same(n, m):
    real, fake = draw(n, 64, 0, shift=3.0), draw(m, 64, 1, scale=0.7)
    assert abs(frechet(real, fake) - by_moments(real, fake)) <= 1e-12 * trace(real, fake)


def test_the_distance_agrees_with_scipy_at_full_rank():
    linalg = pytest.importorskip("scipy.linalg")
    real, fake = draw(300, 40, 0), draw(250, 40, 1, scale=1.2, shift=0.1)
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    squared = np.square(real.mean(axis=0) - fake.mean(axis=0)).sum()
    spread = squared + np.trace(first) + np.trace(second)
    root = np.trace(linalg.sqrtm(first @ second)).real
    eigenvalues = np.sqrt(linalg.eigvals(first @ second).real).sum()
    assert frechet(real, fake) == pytest.approx(spread - 2 * root, rel=1e-6)
    assert frechet(real, fake) == pytest.approx(spread - 2 * eigenvalues, rel=1e-6)


# Axioms.


@pytest.mark.parametrize("n", [30, 200])
def test_the_distance_of_a_set_to_itself_is_zero(n):
    rows = draw(n, 100, 0, shift=5.0)
    assert 0.0 <= frechet(rows, rows) <= 1e-10 * trace(rows)
    assert 0.0 <= by_moments(rows, rows) <= 1e-10 * trace(rows)


@pytest.mark.parametrize("n, m", [(30, 25), (150, 120), (150, 30)])
def test_symmetric_and_unmoved_by_rotation_and_shift(n, m):
    real, fake = draw(n, 60, 0), draw(m, 60, 1, scale=1.4, shift=0.2)
    distance = frechet(real, fake)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((60, 60)))[0]
    assert frechet(fake, real) == pytest.approx(distance, rel=1e-11)
    assert frechet(real @ rotation, fake @ rotation) == pytest.approx(distance, rel=1e-10)
    assert frechet(real + 7.0, fake + 7.0) == pytest.approx(distance, rel=1e-10)
    assert frechet(3.0 * real, 3.0 * fake) == pytest.approx(9.0 * distance, rel=1e-11)


def test_dead_features_add_nothing():
    real, fake = draw(50, 20, 0), draw(50, 20, 1)
    dead = np.full((50, 10), 0.25)
    padded = frechet(np.hstack([real, dead]), np.hstack([fake, dead]))
    assert padded == pytest.approx(frechet(real, fake), rel=1e-11)


@pytest.mark.parametrize("n", [5, 40])
def test_collapse_to_one_image_leaves_the_spread_of_the_reals(n):
    real, fake = draw(n, 12, 0), np.full((n, 12), 2.0)
    expected = np.square(real.mean(axis=0) - 2.0).sum() + trace(real)
    assert frechet(real, fake) == pytest.approx(expected, rel=1e-12)
    assert frechet(fake, fake) == 0.0


# Streaming.


@pytest.mark.parametrize("chunk", [1, 7, 32, 500])
def test_moments_do_not_depend_on_the_blocks_and_keep_their_digits(chunk):
    # Sums of raw squares lose 1e-8 of the 1e4 that the squared offset makes of each.
    rows = np.random.default_rng(0).normal(100.0, 0.01, (500, 6))
    moments, second = Moments(), Moments()
    for start in range(0, 500, chunk):
        (moments if start < 250 else second).update(rows[start : start + chunk])
    moments.merge(second)
    moments.merge(Moments())
    assert moments.count == 500
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), atol=1e-15)


def test_merging_into_empty_moments_does_not_share_their_arrays():
    first, second = Moments(), Moments()
    second.update(np.array([[0.0], [2.0]]))
    first.merge(second)
    first.update(np.array([[10.0]]))
    assert second.covariance.tolist() == [[2.0]] and second.mean.tolist() == [1.0]


@pytest.mark.parametrize("dims", [5, 80])
def test_blocks_drop_no_row(monkeypatch, dims):
    real, fake = draw(50, dims, 0), draw(41, dims, 1)
    whole = frechet(real, fake)
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    assert frechet(real, fake) == pytest.approx(whole, rel=1e-12)


def test_float32_memory_maps_are_computed_in_float64(tmp_path):
    rows = (draw(60, 20, 0) + 50.0).astype(np.float32)
    np.save(tmp_path / "real.npy", rows)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    fake = draw(60, 20, 1) + 50.0
    assert frechet(mapped, fake) == frechet(rows.astype(np.float64), fake)


# Errors.


@pytest.mark.parametrize(
    "real, fake, message",
    [
        (draw(1, 4, 0), draw(5, 4, 1), "1 real images: at least 2"),
        (draw(5, 4, 0), draw(0, 4, 1), "0 fake images: at least 2"),
        (draw(5, 4, 0), draw(5, 3, 1), r"differ in dims \(real 4, fake 3\)"),
        (draw(5, 4, 0)[0], draw(5, 4, 1), r"shape \(4,\)"),
        (np.full((5, 4), np.nan), draw(5, 4, 1), "NaN or infinity"),
        (draw(9, 4, 0), np.full((9, 4), np.inf), "NaN or infinity"),
    ],
)
def test_what_has_no_distance_is_refused(real, fake, message):
    with pytest.raises(ValueError, match=message):
        frechet(real, fake)


@pytest.mark.parametrize(
    "covariance, message",
    [
        (np.full((2, 2), np.nan), "NaN"),
        (np.eye(3), r"\(3, 3\)"),
        (-np.eye(2), "negative eigenvalue"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), covariance)


def test_moments_of_too_few_or_other_rows_are_refused():
    moments = Moments()
    with pytest.raises(ValueError, match="at least 1 row"):
        moments.mean
    moments.update(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        moments.covariance
    with pytest.raises(ValueError, match="rows of 2 numbers after rows of 3"):
        moments.update(np.ones((1, 2)))
    with pytest.raises(ValueError, match="NaN"):
        moments.update(np.full((1, 3), np.nan))


# Independence of SciPy.


def test_no_matrix_square_root_anywhere_in_the_package():
    # It is complex and wrong for N < D, slow, and loses its signature in SciPy 1.18.
    named = []
    for path in Path(keras_cxrgan.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, key, None) for key in ("id", "attr", "name")]
            if "sqrtm" in names:
                named.append(f"{path}:{node.lineno}")
    assert named == []


def test_distances_run_without_scipy_and_tensorflow():
    program = (
        "import sys; sys.modules.update(scipy=None, tensorflow=None, keras=None)\n"
        "import numpy as np\n"
        "from keras_cxrgan.evaluation import frechet, frechet_error, kernel_distance\n"
        "x = np.eye(5); print(frechet.frechet(x, x + 1), kernel_distance.kid(x, x))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


# Floor.


def test_the_floor_scores_fakes_at_the_count_of_the_halves():
    # 40 reals make halves of 20; scoring all 40 fakes would lower their distance below the floor.
    real, fake = draw(40, 60, 0), draw(40, 60, 1, shift=0.3)
    floor = frechet_floor(real, splits=3, seed=5, fake=fake)
    parts = half_splits(40, fake, 3, 5)
    floors = [frechet(real[first], real[second]) for first, second, _ in parts]
    scores = [frechet(real[first], fake[drawn]) for first, _, drawn in parts]
    assert (floor["n"], floor["splits"]) == (20, 3)
    assert floor["floor_mean"] == pytest.approx(np.mean(floors))
    assert floor["floor_sd"] == pytest.approx(np.std(floors, ddof=1))
    assert floor["fake_mean"] == pytest.approx(np.mean(scores))
    assert floor["excess_mean"] == pytest.approx(np.mean(scores) - np.mean(floors))
    assert floor["excess_sd"] == pytest.approx(np.std(np.subtract(scores, floors), ddof=1))
    json.dumps(floor)


def test_halves_are_disjoint_and_of_the_smaller_count():
    for first, second, drawn in half_splits(21, np.zeros((7, 2)), 4, 0):
        assert len(first) == len(second) == len(drawn) == 7
        assert not set(first) & set(second) and len(set(drawn)) == 7
    assert [len(part) for part in half_splits(21, None, 2, 0)[0][:2]] == [10, 10]


def test_a_perfect_generator_has_no_excess_and_a_collapsed_one_has():
    real = draw(200, 80, 0)
    perfect = frechet_floor(real, seed=1, fake=draw(200, 80, 1))
    collapsed = frechet_floor(real, seed=1, fake=draw(200, 80, 1, scale=0.1))
    assert abs(perfect["excess_mean"]) < 2 * perfect["excess_sd"]
    assert collapsed["excess_mean"] > 10 * collapsed["excess_sd"]


def test_the_floor_is_the_same_for_the_same_seed_only():
    real = draw(30, 10, 0)
    assert frechet_floor(real, seed=1) == frechet_floor(real, seed=1)
    assert frechet_floor(real, seed=1) != frechet_floor(real, seed=2)


def test_a_floor_needs_four_reals_and_two_splits():
    with pytest.raises(ValueError, match="3 real images: at least 4"):
        frechet_floor(draw(3, 4, 0), seed=0)
    with pytest.raises(ValueError, match="1 fake images: at least 2"):
        frechet_floor(draw(8, 4, 0), seed=0, fake=draw(1, 4, 0))
    with pytest.raises(ValueError, match="splits is 1"):
        frechet_floor(draw(8, 4, 0), splits=1, seed=0)


# Extrapolation.


@pytest.mark.parametrize(
    "reals, fakes, dims", [(6000, 4999, 4), (6000, 6000, 1300), (90, 6000, 20)]
)
def test_extrapolation_is_refused_where_it_is_wrong(reals, fakes, dims):
    real, fake = (np.zeros((n, dims), np.float32) for n in (reals, fakes))
    with pytest.raises(ValueError, match="cannot be extrapolated"):
        frechet_infinity(real, fake, seed=0)


def test_extrapolation_takes_away_the_bias_of_the_fakes():
    real, fake = draw(5000, 48, 0, decay=0.0), draw(5000, 48, 1, decay=0.0)
    endless = frechet_distance(
        real.mean(axis=0), np.cov(real, rowvar=False), np.zeros(48), np.eye(48)
    )
    biased = frechet(real, fake)
    result = frechet_infinity(real, fake, seed=0)
    assert (len(result["sizes"]), result["sizes"][0], result["sizes"][-1]) == (15, 2500, 5000)
    assert result["distances"][-1] == pytest.approx(biased)
    assert biased > 1.7 * endless
    assert result["frechet_infinity"] == pytest.approx(endless, rel=0.25)
    json.dumps(result)
