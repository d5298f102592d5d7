import json
import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.evaluation.frechet import frechet
from keras_cxrgan.evaluation.memorisation import (
    audit,
    authenticity,
    copy_finder,
    copy_threshold,
    nearer_than,
    nearest_in_pixels,
)

N = 60


@pytest.fixture(scope="module")
def films():
    """Phantoms of different patients, to be split into training, held-out and others."""
    return phantoms(3 * N, 64, seed=3)[0]


def features(images):
    """A stand-in for a network: block means of 8 x 8 pixels."""
    return images.reshape(len(images), 8, 8, 8, 8).mean(axis=(2, 4)).reshape(len(images), 64)


def to_uint8(images):
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def moved(images, scale, x, y):
    corner = (images.shape[1] - 1) / 2 * (1 - scale)
    matrix = np.array([[scale, 0, corner + x], [0, scale, corner + y]])
    return np.stack([cv2.warpAffine(image, matrix, image.shape) for image in images])


def encoded(images):
    way = [cv2.IMWRITE_JPEG_QUALITY, 60]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", image, way)[1], 0) for image in images])


COPIES = {
    "exact": lambda images: images,
    "noisy": lambda images: to_uint8(images + np.random.default_rng(0).normal(0, 4, images.shape)),
    "shifted": lambda images: moved(images, 1, 5, -4),
    "half a pixel": lambda images: moved(images, 1, 2.5, 0.5),
    "shrunk": lambda images: moved(images, 0.9, 0, 0),
    "enlarged": lambda images: moved(images, 1.1, 0, 0),
    "slightly shrunk": lambda images: moved(images, 0.95, 0, 0),
    "enlarged and shifted": lambda images: moved(images, 1.05, 3, 3),
    "pale": lambda images: to_uint8(0.5 * images + 90),
    "re-encoded": encoded,
    "mirrored": lambda images: images[:, :, ::-1],
}


@pytest.fixture(scope="module")
def threshold(films):
    neighbours = nearest_in_pixels(films[N : 2 * N], films[:N])
    return copy_threshold(np.array([neighbour.distance for neighbour in neighbours]))


@pytest.mark.parametrize("way", COPIES)
def test_planted_copies_are_found(films, threshold, way):
    chosen = np.arange(0, N, 6)
    neighbours = nearest_in_pixels(COPIES[way](films[chosen]), films[:N])
    assert [neighbour.index for neighbour in neighbours] == chosen.tolist()
    assert max(neighbour.distance for neighbour in neighbours) <= threshold


def test_other_patients_are_not_flagged(films, threshold):
    neighbours = nearest_in_pixels(films[2 * N :], films[:N])
    assert min(neighbour.distance for neighbour in neighbours) > threshold


def test_blurred_means_of_films_are_no_copies(films, threshold):
    # An untrained generator's average film correlates with every film more than films do.
    random = np.random.default_rng(0)
    means = [films[random.choice(N, count, replace=False)].mean(0) for count in (60, 30, 20, 10)]
    neighbours = nearest_in_pixels(to_uint8(np.stack(means)), films[:N])
    assert min(neighbour.distance for neighbour in neighbours) > threshold


def test_an_exact_copy_is_at_distance_zero_and_poses_say_how_it_was_laid(films):
    exact, mirrored, shrunk = nearest_in_pixels(
        np.stack([films[4], films[5][:, ::-1], moved(films[6:7], 0.95, 0, 0)[0]]), films[:N]
    )
    assert exact.distance < 1e-4
    assert exact.pose == (False, 1, 0, 0)
    assert mirrored.pose == (True, 1, 0, 0)
    assert shrunk.pose.scale == pytest.approx(1 / 0.95, abs=0.025)


@pytest.mark.parametrize("side", [32, 100, 256])
def test_copies_are_found_at_other_sizes(films, side):
    resized = np.stack([cv2.resize(film, (side, side)) for film in films[:30]])
    neighbours = nearest_in_pixels(moved(resized[:5], 1, side / 32, 0), resized)
    assert [neighbour.index for neighbour in neighbours] == [0, 1, 2, 3, 4]
    assert max(neighbour.distance for neighbour in neighbours) < 0.3


def test_flat_images_are_near_nothing(films):
    flat = np.stack([np.zeros((64, 64), np.uint8), np.full((64, 64), 200, np.uint8)])
    distances = [neighbour.distance for neighbour in nearest_in_pixels(flat, films[:N])]
    np.testing.assert_allclose(distances, math.sqrt(2))
    queries = nearest_in_pixels(films[:2], np.concatenate([flat, films[10:30]]))
    assert all(neighbour.index >= 2 for neighbour in queries)


def test_training_images_do_not_find_themselves(films):
    train = np.concatenate([films[:20], films[3:4]])
    neighbours = nearest_in_pixels(train, train, same=True)
    assert all(neighbour.index != own for own, neighbour in enumerate(neighbours))
    assert (neighbours[3].index, neighbours[20].index) == (20, 3)
    assert neighbours[3].distance < 1e-4


def test_authenticity_of_copies_is_zero_and_of_strangers_one():
    random = np.random.default_rng(1)
    train = random.normal(size=(80, 16))
    assert authenticity(train[:30], train) == 0
    assert authenticity(train[:30] + 1e-3 * random.normal(size=(30, 16)), train) == 0
    assert authenticity(train[:30] + 100, train) == 1


@pytest.mark.parametrize(("dims", "expected"), [(1, 1 / 3), (2, 0.3785)])
def test_authenticity_of_a_perfect_generator_is_its_closed_form(dims, expected):
    # In two dimensions 1 - 6 pi / (8 pi + 3 sqrt 3).
    random = np.random.default_rng(2)
    values = [
        authenticity(random.uniform(size=(1500, dims)), random.uniform(size=(1000, dims)))
        for _ in range(4)
    ]
    assert np.mean(values) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("count", [15, 90], ids=["fewer", "more"])
def test_authenticity_equals_a_double_loop_for_unequal_counts(count):
    # Published code looked the training distance up by the index of the generated image.
    random = np.random.default_rng(3)
    train, fake = random.normal(size=(40, 3)), random.normal(size=(count, 3))
    authentic = []
    for g in fake:
        distances = [math.dist(g, t) for t in train]
        star = int(np.argmin(distances))
        own = min(math.dist(train[star], t) for i, t in enumerate(train) if i != star)
        authentic.append(distances[star] > own)
    assert authenticity(fake, train) == np.mean(authentic)


def test_threshold_stays_where_it_is_when_a_few_training_images_are_duplicates():
    distances = np.exp(np.random.default_rng(4).normal(0, 0.1, 400))
    assert copy_threshold(distances) == pytest.approx(math.exp(-0.45), rel=0.1)
    doubled = np.concatenate([distances, np.zeros(40), np.full(12, 0.01)])
    assert copy_threshold(doubled) == pytest.approx(copy_threshold(distances), rel=0.1)
    with pytest.raises(ValueError, match="19 distances .* 20"):
        copy_threshold(np.concatenate([distances[:19], np.zeros(30)]))


def test_nearer_than_is_the_share_of_pairs():
    result = nearer_than(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0]))
    assert result["probability"] == pytest.approx((2 + 1.5 + 1) / 6)  # one tie
    same = nearer_than(np.ones(5), np.ones(7))
    assert (same["probability"], same["z"]) == (0.5, 0)


def test_nearer_than_has_an_interval_that_covers_and_a_z_of_unit_variance():
    # P(X < Y) = 0.5 for one law, Phi(1 / sqrt 2) = 0.7602 for a shift by one.
    random = np.random.default_rng(5)
    covered, scores = {0: 0, 1: 0}, []
    for _ in range(300):
        for shift, truth in ((0, 0.5), (1, 0.7602)):
            result = nearer_than(random.normal(size=40), random.normal(size=25) + shift)
            covered[shift] += result["low"] <= truth <= result["high"]
            if not shift:
                scores.append(result["z"])
    assert min(covered.values()) >= 0.92 * 300
    assert np.std(scores) == pytest.approx(1, abs=0.12)


def test_nearer_than_is_not_certain_of_what_it_saw_without_exception():
    result = nearer_than(np.arange(20.0), np.arange(20.0) + 100)
    assert result["probability"] == result["high"] == 1
    assert 0.8 < result["low"] < 0.95


@pytest.fixture(scope="module")
def planted(films):
    """An audit of 40 other films and one copy of each kind."""
    train, held_out, others = films[:N], films[N : 2 * N], films[2 * N : 2 * N + 40]
    copies = [COPIES[way](train[7 + 2 * i : 8 + 2 * i]) for i, way in enumerate(COPIES)]
    fake = np.concatenate([others, *copies])
    train_features, fake_features = features(train), features(fake)
    return audit(train, fake, train_features, fake_features, held_out, features(held_out))


def test_audit_flags_the_planted_copies_and_nothing_else(planted):
    expected = [(40 + i, 7 + 2 * i) for i in range(len(COPIES))]
    assert sorted((pair["fake"], pair["train"]) for pair in planted["flagged"]) == expected
    rules = {pair["fake"]: pair["rule"] for pair in planted["flagged"]}
    assert rules[40] == "pixels and features"
    assert rules[40 + list(COPIES).index("mirrored")] == "pixels"
    assert planted["pixels"]["calibration_below"] == 0
    assert any(f"{len(COPIES)} of {40 + len(COPIES)} generated" in w for w in planted["warnings"])


@pytest.mark.parametrize("held", [N, 19, 0], ids=["held out", "too few held out", "none"])
def test_a_copy_finder_finds_what_an_audit_flags_block_after_block(films, held):
    train, held_out = films[:N], films[N : N + held]
    copies = [COPIES[way](train[7 + 2 * i : 8 + 2 * i]) for i, way in enumerate(COPIES)]
    # One that only its features give away: another film's pixels.
    fake = np.concatenate([films[2 * N : 2 * N + 20], *copies])
    fake_features = features(fake)
    fake_features[3] = features(train)[5] + 0.001
    known = [(side, features(side)) for side in (train, held_out) if len(side)]
    known = [array for pair in known for array in pair]
    found = audit(train, fake, known[1], fake_features, *known[2:])
    flagged = sorted({pair["fake"] for pair in found["flagged"]})
    assert 3 in flagged and len(flagged) == 1 + len(COPIES)
    is_copy = copy_finder(*known)
    blocks = [is_copy(fake[i : i + 7], fake_features[i : i + 7]) for i in range(0, len(fake), 7)]
    assert np.flatnonzero(np.concatenate(blocks)).tolist() == flagged


def test_audit_lists_the_closest_pairs_first(planted):
    distances = [pair["pixel_distance"] for pair in planted["closest"]]
    assert len(distances) == 16
    assert all(a <= b for a, b in pairwise(distances))
    assert planted["closest"][0]["pixel_distance"] == pytest.approx(0, abs=1e-4)


def test_audit_goes_into_json_and_promises_nothing(planted):
    text = json.dumps(planted, allow_nan=False)
    assert "private" not in text.lower()
    assert "anonymous" not in text.lower()


def test_audit_of_other_patients_flags_nothing_and_says_how_sure_it_is(films):
    train, held_out, fake = films[:N], films[N : 2 * N], films[2 * N :]
    result = audit(train, fake, features(train), features(fake), held_out, features(held_out))
    assert result["flagged"] == []
    assert result["warnings"] == []
    # Wilson's upper end for 0 of 60.
    assert result["pixels"]["false_flag_bound"] == pytest.approx(0.0602, abs=1e-4)
    comparison = result["pixels"]["comparison"]
    assert comparison["with"] == "held-out"
    assert comparison["low"] < 0.5 < comparison["high"]
    gap = result["features"]["authenticity"]
    assert abs(gap["fake"] - gap["held-out"]) < 0.25


def test_a_copycat_is_told_though_its_frechet_distance_is_the_best(films):
    train, held_out = films[:N], films[N : 2 * N]
    noise = np.random.default_rng(6).normal(0, 3, train.shape)
    copycat, honest = to_uint8(train + noise), films[2 * N :]
    scores = [frechet(features(train), features(x)) for x in (copycat, honest, held_out)]
    assert scores[0] == min(scores)
    result = audit(train, copycat, features(train), features(copycat), held_out, features(held_out))
    assert len({pair["fake"] for pair in result["flagged"]}) >= 0.95 * N
    assert result["features"]["authenticity"]["fake"] < 0.05
    assert result["pixels"]["comparison"]["low"] > 0.9
    warnings = " ".join(result["warnings"])
    assert "lie as near to a training image as a copy" in warnings
    assert "nearer to the training images than a held-out image" in warnings
    assert "authenticity" in warnings


def test_without_held_out_images_the_training_images_calibrate_and_duplicates_are_told(films):
    train = np.concatenate([films[:N], films[:2], encoded(films[2:3])])
    fake = np.concatenate([films[2 * N : 2 * N + 10], films[5:6]])
    result = audit(train, fake, features(train), features(fake))
    assert result["pixels"]["calibrated_on"] == "train"
    assert [(pair["fake"], pair["train"]) for pair in result["flagged"]] == [(10, 5)]
    duplicates = result["train_duplicates"]
    assert duplicates["exact"] == 2
    assert [pair[:2] for pair in duplicates["near_pairs"]] == [[0, N], [1, N + 1], [2, N + 2]]
    assert any("no held-out images" in warning for warning in result["warnings"])
    assert any("duplicates or nearly so: 3" in warning for warning in result["warnings"])


def test_held_out_images_that_are_training_images_are_told(films):
    train, fake = films[:N], films[2 * N : 2 * N + 5]
    leaky = np.concatenate([films[N : N + 40], train[:3]])
    result = audit(train, fake, features(train), features(fake), leaky, features(leaky))
    assert result["pixels"]["calibration_below"] == 3
    assert any("3 of 43 held-out images lie as near" in warning for warning in result["warnings"])


def test_bad_input_is_refused_with_what_was_got(films):
    good = features(films[:N])
    with pytest.raises(ValueError, match="60 training images but 59 rows"):
        audit(films[:N], films[:5], good[:59], good[:5])
    with pytest.raises(ValueError, match="both pixels and features"):
        audit(films[:N], films[:5], good, good[:5], held_out_pixels=films[:3])
    with pytest.raises(ValueError, match="20 are needed"):
        audit(films[:10], films[:5], good[:10], good[:5])
    with pytest.raises(ValueError, match="uint8"):
        nearest_in_pixels(films[:5].astype(np.float32), films)
    with pytest.raises(ValueError, match="1 training images .* at least 2"):
        nearest_in_pixels(films[:5], films[:1])
