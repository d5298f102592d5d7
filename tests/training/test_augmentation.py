import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.training.augmentation import (
    AUGMENTATIONS,
    NUMBERS,
    adapt,
    augment,
    overfitting,
    smooth,
)

ALL = tuple(AUGMENTATIONS)


def draw(count, seed=0):
    return np.random.default_rng(seed).random((count, NUMBERS), np.float32)


def pictures(count=4, side=16, channels=1, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, (count, side, side, channels)).astype(np.float32)


def apply(name, images, *numbers):
    amounts = np.broadcast_to(np.float32(numbers), (len(images), len(numbers)))
    if amounts.shape[1] == 1:
        amounts = np.repeat(amounts, 2, axis=1)
    return AUGMENTATIONS[name](tf.constant(images), tf.constant(amounts)).numpy()


def every(first, second=1):
    """Return numbers (first * second, 2), each possible outcome of an operation once."""
    return np.float32(
        [
            ((i + 0.5) / first, (j + 0.5) / second)
            for i, j in itertools.product(range(first), range(second))
        ]
    )


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, [-0.7, -0.3]), (0.5, [-0.2, 0.2]), (0.75, [0.05, 0.45])]
)
def test_brightness_adds_up_to_half_of_the_way_from_black_to_grey(number, expected):
    images = np.float32([-0.2, 0.2]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(apply("brightness", images, number).ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, [0.2, 0.6]), (0.5, [0.0, 0.8]), (0.75, [-0.1, 0.9])]
)
def test_contrast_stretches_about_the_mean_of_each_image_and_not_of_the_batch(number, expected):
    images = np.stack([np.float32([0.0, 0.8]), np.float32([-1.0, -0.2])]).reshape(2, 1, 2, 1)
    made = apply("contrast", images, number)
    np.testing.assert_allclose(made[0].ravel(), expected, atol=1e-6)
    np.testing.assert_allclose(made[1].ravel(), np.float32(expected) - 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "down", "right"),
    [((0.0, 0.5), -2, 0), ((0.5, 0.5), 0, 0), ((0.99, 0.25), 2, -1), ((1.0, 1.0), 2, 2)],
)
def test_translation_shifts_whole_pixels_and_uncovers_grey(numbers, down, right):
    images = pictures(channels=3)
    expected = np.zeros_like(images)
    target = [slice(max(0, shift), 16 + min(0, shift)) for shift in (down, right)]
    source = [slice(max(0, -shift), 16 + min(0, -shift)) for shift in (down, right)]
    expected[:, target[0], target[1]] = images[:, source[0], source[1]]
    np.testing.assert_array_equal(apply("translation", images, *numbers), expected)


def test_translation_reaches_an_eighth_of_each_side_and_each_shift_equally_often():
    image = np.zeros((1, 32, 64, 1), np.float32)
    image[0, 16, 32] = 1
    outcomes = every(9, 17)
    made = apply_each("translation", image, outcomes)
    places = [tuple(place) for place in np.argwhere(made[..., 0])[:, 1:]]
    assert sorted(places) == list(itertools.product(range(12, 21), range(24, 41)))


def apply_each(name, image, numbers):
    images = np.repeat(image, len(numbers), axis=0)
    return AUGMENTATIONS[name](tf.constant(images), tf.constant(numbers)).numpy()


@pytest.mark.parametrize(
    ("numbers", "rows", "columns"),
    [
        ((0.5, 0.5), slice(4, 12), slice(4, 12)),  # the centre lies before pixel 8 of 16
        ((0.0, 0.999), slice(0, 4), slice(12, 16)),
        ((1.0, 0.3), slice(12, 16), slice(1, 9)),
    ],
)
def test_cutout_puts_a_grey_square_of_half_the_side(numbers, rows, columns):
    images = pictures(channels=2)
    expected = images.copy()
    expected[:, rows, columns] = 0
    np.testing.assert_array_equal(apply("cutout", images, *numbers), expected)


def test_cutout_covers_both_ends_of_a_side_equally_often():
    ones = np.ones((1, 16, 16, 1), np.float32)
    covered = 1 - apply_each("cutout", ones, every(17, 17)).mean(axis=0)[..., 0]
    # Of 17 places of the centre, this many have the pixel of a row within their 8.
    places = np.array([5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7, 6, 5])
    np.testing.assert_allclose(covered, np.outer(places, places) / 17**2, atol=1e-6)


def test_scale_zooms_a_ramp_about_the_centre_by_at_most_a_tenth():
    ramp = np.broadcast_to((np.arange(16, dtype=np.float32) - 7.5)[:, None], (16, 16))
    ramp = ramp.reshape(1, 16, 16, 1) / 10
    inner = slice(2, 14)
    np.testing.assert_allclose(apply("scale", ramp, 0.5), ramp, atol=1e-6)
    larger, smaller = apply("scale", ramp, 1.0), apply("scale", ramp, 0.0)
    np.testing.assert_allclose(larger, ramp / 1.1, atol=1e-6)
    np.testing.assert_allclose(smaller[:, inner, inner], ramp[:, inner, inner] * 1.1, atol=1e-6)
    # Zoomed out, the border shows what lies outside: 0. Row 0 comes from 0.75 above the film.
    np.testing.assert_allclose(smaller[0, 0, 8, 0], 0.25 * ramp[0, 0, 8, 0], atol=1e-6)


def test_scale_is_as_often_in_as_out():
    numbers = every(8)
    shown = apply_each("scale", np.ones((1, 64, 64, 1), np.float32), numbers)
    # A film that was zoomed out by f fills f of the middle row.
    assert (shown[:, 32, :, 0].sum(axis=1) < 63.5).sum() == 4
    slope = np.broadcast_to(np.arange(64, dtype=np.float32), (64, 64)).reshape(1, 64, 64, 1)
    made = apply_each("scale", slope, numbers)[:, 32, :, 0]
    factors = 1 / (made[:, 33] - made[:, 32])
    np.testing.assert_allclose(np.log(factors).mean(), 0, atol=1e-5)
    np.testing.assert_allclose(factors[0] * factors[-1], 1, atol=1e-5)


def test_probability_0_returns_the_images_to_the_bit_and_1_changes_all():
    images = pictures()
    for numbers in (draw(4), np.zeros((4, NUMBERS), np.float32)):  # 0 is drawn now and then
        np.testing.assert_array_equal(augment(images, numbers, ALL, 0.0), images)
    made = augment(images, draw(4), ("brightness",), 1.0).numpy()
    assert (made != images).all()
    assert augment(images, draw(4), (), 1.0) is images


@pytest.mark.parametrize("name", ALL)
def test_half_of_the_images_are_touched_at_probability_one_half(name):
    images = pictures(2000, side=8)
    made = augment(images, draw(2000), (name,), tf.constant(0.5)).numpy()
    touched = (made != images).any(axis=(1, 2, 3)).mean()
    # A translation of 0 in both directions, 1 in 9 at this size, cannot be seen.
    expected = 0.5 * 8 / 9 if name == "translation" else 0.5
    assert touched == pytest.approx(expected, abs=0.035)  # three standard errors


def test_operations_are_gated_independently_of_each_other():
    images = pictures(4000, side=8)
    numbers = draw(4000)
    touched = {
        name: (augment(images, numbers, (name,), 0.5).numpy() != images).any(axis=(1, 2, 3))
        for name in ALL
    }
    for one, other in itertools.combinations(ALL, 2):
        assert abs(np.corrcoef(touched[one], touched[other])[0, 1]) < 0.055, (one, other)


def test_one_operation_more_leaves_what_the_others_draw():
    images = pictures()
    numbers = draw(4)
    bright = augment(images, numbers, ("brightness",), 1.0)
    both = augment(images, numbers, ("translation", "brightness"), 1.0)
    np.testing.assert_array_equal(both, augment(bright, numbers, ("translation",), 1.0))


def test_uncovered_pixels_are_exactly_grey_whatever_the_colours_did():
    images = np.full((64, 16, 16, 1), -1, np.float32)
    made = augment(images, draw(64), ("translation", "contrast", "brightness"), 1.0).numpy()
    uncovered = augment(images, draw(64), ("translation",), 1.0).numpy() == 0
    assert uncovered.any()
    assert (made[uncovered] == 0).all()


def test_any_split_into_replicas_gives_the_same_images():
    images, numbers = pictures(8), draw(8)
    whole = augment(images, numbers, ALL, 0.8).numpy()
    for parts in (2, 4):
        split = [
            augment(part, own, ALL, 0.8)
            for part, own in zip(np.split(images, parts), np.split(numbers, parts))
        ]
        np.testing.assert_allclose(np.concatenate(split), whole, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_adjoint_of_the_operation(name):
    # Each operation is affine in the image: f(x + d) - f(x) = J d exactly, and the gradient of
    # <f(x), y> is J^T y, so that <J d, y> = <d, J^T y>.
    images, step, other = (pictures(seed=seed, channels=2) for seed in range(3))
    numbers = tf.constant(draw(4, seed=5))
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        made = augment(images, numbers, (name,), 0.9)
        product = tf.reduce_sum(made * other)
    gradient = tape.gradient(product, images).numpy()
    change = (augment(images + step, numbers, (name,), 0.9) - made).numpy()
    left, right = (
        (a.astype(np.float64) * b).sum(axis=(1, 2, 3))
        for a, b in ((change, other), (step, gradient))
    )
    np.testing.assert_allclose(left, right, atol=2e-4)
    assert np.abs(gradient).max() > 0.1


def test_gradient_of_a_shift_is_the_shift_back():
    images = tf.constant(pictures())
    weights = pictures(seed=1)
    with tf.GradientTape() as tape:
        tape.watch(images)
        made = AUGMENTATIONS["translation"](images, tf.constant([[0.99, 0.5]] * 4))
        total = tf.reduce_sum(made * weights)
    expected = np.zeros_like(weights)
    expected[:, :14] = weights[:, 2:]
    np.testing.assert_array_equal(tape.gradient(total, images), expected)


def test_shifts_and_brightness_do_not_leak_up_to_probability_eight_tenths():
    # A shift turns a distribution over positions into its convolution with the shifts drawn. No
    # difference between two distributions is lost, so nothing leaks, while the transform of the
    # shifts has no zero; and it is real where none of both directions is preferred.
    image = np.zeros((1, 64, 64, 1), np.float32)
    image[0, 0, 0] = 1
    image = np.roll(image, (32, 32), axis=(1, 2))
    drawn = apply_each("translation", image, every(17, 17)).mean(axis=0)[..., 0]
    transform = np.fft.fft2(np.roll(drawn, (-32, -32), axis=(0, 1)))
    np.testing.assert_allclose(transform.imag, 0, atol=1e-6)
    assert (1 - 0.8 + 0.8 * transform.real).min() > 0.02
    assert transform.real.min() < -0.2  # at p = 1 it crosses 0: some differences are lost

    grey = np.zeros((1, 1, 1, 1), np.float32)
    levels = apply_each("brightness", grey, every(1000)).ravel()
    frequencies = np.linspace(0, 60, 400)
    transform = np.exp(1j * np.outer(frequencies, levels)).mean(axis=1)
    np.testing.assert_allclose(transform.imag, 0, atol=1e-3)
    assert (1 - 0.8 + 0.8 * transform.real).min() > 0.02


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_colours_are_right_on_average(name):
    image = pictures(1)
    made = apply_each(name, image, every(100))
    np.testing.assert_allclose(made.mean(axis=0), image[0], atol=1e-5)


def test_graph_of_any_batch_size_gives_what_runs_eagerly():
    function = tf.function(
        lambda images, numbers, probability: augment(images, numbers, ALL, probability),
        input_signature=[
            tf.TensorSpec([None, 16, 16, 1]),
            tf.TensorSpec([None, NUMBERS]),
            tf.TensorSpec([]),
        ],
    )
    for count in (1, 5):
        images, numbers = pictures(count), draw(count)
        eager = augment(images, numbers, ALL, 0.7)
        np.testing.assert_allclose(function(images, numbers, 0.7), eager, atol=1e-6)


def test_unknown_augmentation_names_those_there_are():
    with pytest.raises(ValueError, match="'flip' is not known: choose of brightness, contrast"):
        augment(pictures(), draw(4), ("flip",), 1.0)


def test_controller_follows_a_scripted_signal():
    probability = tf.Variable(0.0)
    path = []
    for signal in (0.9, 0.9, 0.7, 0.6, 0.1, 0.9, -1.0, -1.0, -1.0):
        probability.assign(adapt(probability, signal, 0.6, images=tf.constant(50), ramp=200))
        path.append(float(probability))
    assert path == [0.25, 0.5, 0.75, 0.75, 0.5, 0.75, 0.5, 0.25, 0.0]
    assert float(adapt(0.0, -1.0, 0.6, images=50, ramp=200)) == 0.0
    # Up to here a shifted film cannot be made in the place of one that is not.
    assert float(adapt(0.7, 1.0, 0.6, images=50, ramp=200)) == pytest.approx(0.8)


def test_a_signal_that_jumps_between_batches_is_held_at_its_mean():
    """Where a batch is judged as a whole: three at 0.9 and one at -0.5 are 0.55 on average."""
    ways = {1: 0.0, 256: 0.0}
    for memory in ways:
        mean, probability = 0.55, 0.4
        for _ in range(50):
            for signal in (0.9, 0.9, 0.9, -0.5):
                mean = float(smooth(mean, signal, 16, memory))
                probability = float(adapt(probability, mean, 0.6, images=16, ramp=32000))
        ways[memory] = probability - 0.4
    assert ways[1] == pytest.approx(0.0005 * 100, abs=1e-4)  # up: the median is above 0.6
    assert ways[256] < -0.04
    assert float(smooth(0.25, 0.75, images=8, memory=32)) == 0.375
    assert float(smooth(0.25, 0.75, images=64, memory=32)) == 0.75


def test_overfitting_is_the_mean_sign_of_real_logits():
    assert float(overfitting(tf.constant([[8.0], [0.1], [0.1], [-3.0]]))) == 0.5
    assert float(overfitting(tf.constant([[0.0], [0.0]]))) == 0.0
    assert float(overfitting(tf.constant([[5.0], [9.0]]))) == 1.0
