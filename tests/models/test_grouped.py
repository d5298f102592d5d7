"""Batch normalization that normalizes in use as in training, and images made by it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.models.layers import GroupedBatchNormalization, group_size
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.noise import indexed_latents

MAPS = (7, 5, 5, 4)  # images, rows, columns, maps


def built(layer):
    """A layer with scale, offset and moving averages that are not those it starts with."""
    layer.build(MAPS)
    random = np.random.default_rng(0)
    layer.set_weights([random.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    return layer


def maps():
    return np.random.default_rng(1).normal(1.0, 2.0, MAPS).astype("float32")


def test_one_of_four_images_counts_a_quarter_and_the_averages_the_rest():
    layer = GroupedBatchNormalization(4, epsilon=0, scale=False, center=False)
    layer.build((1, 1, 2, 1))
    layer.set_weights([np.array([1.0]), np.array([2.0])])  # moving mean, variance
    outputs = layer(np.array([3.0, 5.0]).reshape(1, 1, 2, 1))
    # Means 1 and 4: 1.75. Mean squares 3 and 17: 6.5. Variance 6.5 - 1.75^2 = 3.4375.
    np.testing.assert_allclose(np.ravel(outputs), [0.674200, 1.752920], rtol=1e-5)


def test_whole_groups_are_normalized_in_use_as_in_training():
    layer, x = built(GroupedBatchNormalization(3)), maps()
    averages = layer.get_weights()
    outputs = layer(x[:6])
    for weight, before in zip(layer.get_weights(), averages):
        np.testing.assert_array_equal(weight, before)
    for first in (0, 3):
        batch = x[first : first + 3]
        np.testing.assert_allclose(
            outputs[first : first + 3], layer(batch, training=True), atol=1e-5
        )


def test_two_of_three_images_count_two_thirds():
    layer, x = built(GroupedBatchNormalization(3)), maps()[:2]
    gamma, beta, mean, variance = layer.get_weights()
    square = (2 * np.mean(x**2, axis=(0, 1, 2)) + variance + mean**2) / 3
    mean = (2 * np.mean(x, axis=(0, 1, 2)) + mean) / 3
    expected = (x - mean) / np.sqrt(square - mean**2 + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


def test_training_is_that_of_batch_normalization():
    outputs, gradients, weights = [], [], []
    for layer in (built(keras.layers.BatchNormalization()), built(GroupedBatchNormalization(3))):
        x = tf.constant(maps())
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs.append(layer(x, training=True))
            loss = tf.reduce_sum(tf.sin(outputs[-1]))
        gradients.append(tape.gradient(loss, x))
        weights.append(layer.get_weights())
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(*gradients)
    for theirs, ours in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_low_precision_maps_have_statistics_in_float32():
    # A contrast of 1 on a level of 200: squares in bfloat16 are told apart by 256.
    x = (200 + np.random.default_rng(0).integers(0, 2, MAPS)).astype("float32")
    low, exact = (
        built(GroupedBatchNormalization(7, dtype=dtype)) for dtype in ("mixed_bfloat16", "float32")
    )
    outputs = low(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact(x), rtol=0.01, atol=0.01)


def test_even_maps_far_from_0_stay_finite():
    layer = GroupedBatchNormalization(3)
    layer.build(MAPS)
    mean = np.full(4, 1234.567)
    layer.set_weights([*layer.get_weights()[:2], mean, np.zeros(4)])
    np.testing.assert_allclose(layer(np.broadcast_to(mean, MAPS).astype("float32")), 0.0, atol=0.1)


def test_saved_layer_loads_with_its_groups(tmp_path):
    model = keras.Sequential([keras.Input(MAPS[1:]), built(GroupedBatchNormalization(3))])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert group_size(loaded) == 3
    np.testing.assert_array_equal(loaded(maps()), model(maps()))


def test_a_group_has_an_image():
    with pytest.raises(ValueError, match="group_size of 1 or more, got 0"):
        GroupedBatchNormalization(0)


def generators():
    for size in (0, 4):
        keras.utils.set_random_seed(1)
        yield build_generator(32, latent_dim=8, width=4, convention="keras", group_size=size)


def test_weights_are_those_of_the_plain_generator():
    plain, grouped = generators()
    for ours, theirs in zip(grouped.weights, plain.weights, strict=True):
        assert (ours.path, ours.shape) == (theirs.path, theirs.shape)
    assert (group_size(plain), group_size(grouped)) == (1, 4)


@pytest.fixture(scope="module")
def gan():
    _, generator = generators()
    return GAN(generator, build_discriminator(32, width=4))


@pytest.mark.parametrize(
    "asked", [{"count": 3}, {"count": 5, "start": 2}, {"count": 1, "start": 7}]
)
@pytest.mark.parametrize("batch_size", [1, 4, 6, 64])
def test_an_image_is_fixed_by_its_number_whatever_is_asked_for(gan, asked, batch_size):
    expected = gan.generate(8, seed=5)
    images = gan.generate(seed=5, batch_size=batch_size, **asked)
    start = asked.get("start", 0)
    np.testing.assert_allclose(images, expected[start:][: asked["count"]], atol=1e-5)


def test_generated_images_are_those_that_training_would_judge(gan):
    images = gan.generate(8, seed=5)
    latents = indexed_latents(5, 4, 4, 8)
    weights = gan.generator.get_weights()
    judged = gan.generator(latents, training=True)
    gan.generator.set_weights(weights)
    np.testing.assert_allclose(images[4:], judged, atol=1e-5)
    # By moving averages, which know nothing yet, they would be others.
    plain, _ = generators()
    assert np.abs(images[4:] - plain(latents)).max() > 0.05


def test_no_images_are_asked_for(gan):
    assert gan.generate(0, start=5).shape == (0, 32, 32, 1)
