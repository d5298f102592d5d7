import time

import cv2
import numpy as np
import pytest

from keras_cxrgan.evaluation.diversity import (
    inception_score,
    ms_ssim,
    ms_ssim_windows,
    pairwise_ms_ssim,
    vendi_score,
)


def textures(count, side, seed=0):
    noise = np.random.default_rng(seed).normal(size=(count, side, side))
    smooth = [cv2.GaussianBlur(image, (0, 0), side / 16) for image in noise]
    smooth = [image / image.std() for image in smooth]
    return np.clip(128 + 45 * np.stack(smooth), 0, 255).astype(np.uint8)


def test_inception_score_of_uniform_predictions_is_one():
    mean, sd = inception_score(np.full((40, 1008), -3.0, np.float32))
    assert mean == pytest.approx(1, abs=1e-12)
    assert sd == pytest.approx(0, abs=1e-12)


def test_inception_score_of_sure_and_varied_predictions_is_the_number_of_classes():
    # Logits of 2000 underflow every other class to exactly 0.
    logits = 2000 * np.eye(8)[np.arange(80) % 8]
    mean, sd = inception_score(logits, splits=1)
    assert mean == pytest.approx(8, abs=1e-9)
    assert sd == pytest.approx(0, abs=1e-9)


def test_inception_score_depends_on_a_bias_of_the_logits():
    # Why the features must come without it.
    logits = np.random.default_rng(0).normal(size=(200, 10))
    bias = np.linspace(-3, 3, 10)
    assert abs(inception_score(logits + bias)[0] - inception_score(logits)[0]) > 0.05


def test_inception_score_does_not_depend_on_the_order_of_the_files():
    # Folders are read class by class. Splits of one class each would score 1 instead of 2.
    logits = 500 * np.eye(2)[[0] * 200 + [1] * 200]
    assert inception_score(logits, splits=1)[0] == pytest.approx(2)
    assert inception_score(logits, splits=2)[0] == pytest.approx(2, abs=0.02)


def test_inception_score_needs_an_image_for_each_split():
    with pytest.raises(ValueError, match="9 logit .* at least 10"):
        inception_score(np.zeros((9, 5)))


@pytest.mark.parametrize("dims", [3, 50], ids=["D<n", "D>n"])
def test_vendi_score_counts_the_different_images(dims):
    first, second = np.eye(dims)[:2]
    assert vendi_score(np.tile(first, (20, 1)))["vendi"] == pytest.approx(1, abs=1e-9)
    two = np.concatenate([np.tile(first, (10, 1)), np.tile(3 * second, (10, 1))])
    assert vendi_score(two)["vendi"] == pytest.approx(2, abs=1e-9)
    assert vendi_score(np.eye(dims))["vendi"] == pytest.approx(dims, abs=1e-9)


def test_vendi_score_of_dead_features_is_a_number():
    features = np.array([[0.0, 0.0], [0.0, 0.0], [1e-200, 0.0], [1.0, 0.0]])
    assert vendi_score(features)["vendi"] == pytest.approx(2, abs=1e-9)


def test_vendi_score_says_which_rows_it_used():
    features = np.random.default_rng(1).normal(size=(60, 4))
    result = vendi_score(features, count=25, seed=3)
    assert (result["n"], result["of"], result["seed"]) == (25, 60, 3)
    assert vendi_score(features, count=25, seed=3) == result
    assert vendi_score(features, count=25, seed=4)["vendi"] != result["vendi"]


@pytest.mark.parametrize("side", [64, 100, 128, 177])
def test_ms_ssim_is_one_for_equals_and_falls_with_noise(side):
    images = textures(3, side)
    np.testing.assert_allclose(ms_ssim(images, images), 1, atol=1e-12)
    noise = np.random.default_rng(2).normal(size=images.shape)
    values = [
        ms_ssim(images, np.clip(images + sd * noise, 0, 255).astype(np.uint8)).mean()
        for sd in (5, 15, 45)
    ]
    assert 1 > values[0] > values[1] > values[2] > 0


def test_ms_ssim_of_flat_images_is_its_closed_form():
    # Flat images differ in luminance only, which counts at the last scale:
    # ((2 * 100 * 150 + 6.5025) / (100^2 + 150^2 + 6.5025))^0.1333 = 0.989389
    a, b = np.full((1, 64, 64), 100, np.uint8), np.full((1, 64, 64), 150, np.uint8)
    assert ms_ssim(a, b)[0] == pytest.approx(0.989389, abs=1e-6)


def test_ms_ssim_equals_tensorflow_where_tensorflow_can():
    tf = pytest.importorskip("tensorflow")
    a, b = textures(2, 192), textures(2, 192, seed=1)
    mixed = (0.7 * a + 0.3 * b).astype(np.uint8)
    expected = tf.image.ssim_multiscale(
        tf.cast(a[..., None], tf.float32), tf.cast(mixed[..., None], tf.float32), 255
    )
    np.testing.assert_allclose(ms_ssim(a, mixed), expected.numpy(), atol=2e-4)


def test_windows_shrink_to_the_image_and_no_further_than_64_pixels():
    assert ms_ssim_windows(64) == [11, 11, 11, 8, 4]
    assert ms_ssim_windows(176) == [11, 11, 11, 11, 11]
    with pytest.raises(ValueError, match="32 pixels are too small"):
        ms_ssim_windows(32)
    with pytest.raises(ValueError, match="one shape"):
        ms_ssim(textures(2, 64), textures(3, 64))


def test_pairwise_ms_ssim_shows_a_generator_that_repeats_itself():
    varied = textures(12, 64)
    collapsed = varied[np.arange(12) % 2]
    assert pairwise_ms_ssim(collapsed)["ms_ssim"] > pairwise_ms_ssim(varied)["ms_ssim"] + 0.2


def test_no_image_is_paired_with_itself():
    images = textures(40, 64)
    pairs = pairwise_ms_ssim(images, pairs=300, seed=1)
    assert pairs["pairs"] == 300
    every = pairwise_ms_ssim(images, pairs=10_000)
    assert every["pairs"] == 40 * 39 // 2
    assert pairs["ms_ssim"] == pytest.approx(every["ms_ssim"], abs=4 * pairs["standard_error"])
    with pytest.raises(ValueError, match="2 images .* at least 3"):
        pairwise_ms_ssim(images[:2])


def test_standard_error_allows_for_pairs_that_share_an_image():
    # Blends with one common image: how much of it an image has decides all its pairs.
    # Over redraws the mean varies far more than independent pairs would let it.
    random = np.random.default_rng(3)
    common = textures(1, 64, seed=9)[0]
    results = []
    for seed in range(24):
        share = random.uniform(0, 0.9, size=(10, 1, 1))
        images = (share * common + (1 - share) * textures(10, 64, seed + 10)).astype(np.uint8)
        results.append(pairwise_ms_ssim(images))
    sd = np.std([result["ms_ssim"] for result in results], ddof=1)
    stated = np.sqrt(np.mean([result["standard_error"] ** 2 for result in results]))
    assert 0.6 < stated / sd < 1.6


def test_a_thousand_pairs_take_seconds():
    images = textures(50, 64)
    start = time.process_time()
    pairwise_ms_ssim(images, pairs=1000)
    assert time.process_time() - start < 20
