"""Batch normalization that comes to be trained as it will be used."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.models.dcgan import build_generator
from keras_cxrgan.models.layers import SettlingBatchNormalization

MAPS = (3, 5, 5, 4)  # images, rows, columns, maps


def built(layer_class=SettlingBatchNormalization, settled=None, **options):
    """A layer with scale, offset and moving averages that are not those it starts with."""
    layer = layer_class(epsilon=1e-3, momentum=0.9, **options)
    layer.build(MAPS)
    random = np.random.default_rng(0)
    layer.set_weights([random.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    if settled is not None:
        layer.settled = tf.Variable(settled)
    return layer


def maps(seed=1):
    return np.random.default_rng(seed).normal(1.0, 2.0, MAPS).astype("float32")


def test_afterwards_an_image_has_its_share_of_what_normalizes_it():
    layer = SettlingBatchNormalization(own_share=0.25, epsilon=0, scale=False, center=False)
    layer.build((1, 1, 2, 1))
    layer.set_weights([np.array([1.0]), np.array([2.0])])  # moving mean, variance
    outputs = layer(np.array([3.0, 5.0]).reshape(1, 1, 2, 1))
    # Means 1 and 4: 1.75. Mean squares 3 and 17: 6.5. Variance 6.5 - 1.75^2 = 3.4375.
    np.testing.assert_allclose(np.ravel(outputs), [0.674200, 1.752920], rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_without_a_share_it_is_batch_normalization(training):
    outputs, gradients, averages = [], [], []
    for layer in (built(keras.layers.BatchNormalization), built()):
        x = tf.constant(maps())
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs.append(layer(x, training=training))
            loss = tf.reduce_sum(tf.sin(outputs[-1]))
        gradients.append(tape.gradient(loss, x))
        averages.append(layer.get_weights())
    np.testing.assert_allclose(*outputs, atol=1e-5)
    np.testing.assert_allclose(*gradients, atol=1e-5)
    for theirs, ours in zip(*averages):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_settled_training_is_use_and_the_averages_stay():
    layer = built(own_share=0.3, settled=1.0)
    before = layer.get_weights()
    np.testing.assert_array_equal(layer(maps(), training=True), layer(maps(), training=False))
    for weight, other in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(weight, other)


def test_an_image_is_normalized_as_in_a_batch_whose_others_are_as_usual():
    # The other two of a batch of three have the moving averages between them.
    x = maps()
    layer = built(own_share=1 / 3)
    others = x[1:].reshape(-1, MAPS[-1])
    layer.moving_mean.assign(others.mean(axis=0))
    layer.moving_variance.assign(others.var(axis=0))
    alone = layer(x[:1], training=False)
    np.testing.assert_allclose(alone, layer(x, training=True)[:1], atol=1e-5)


def test_half_settled_is_half_way_between_the_statistics():
    layer = built(own_share=0.25, settled=0.5)
    gamma, beta, mean, variance = layer.get_weights()
    x = maps()
    own, own_square = (np.mean(part, axis=(1, 2), keepdims=True) for part in (x, x**2))
    used = 0.75 * mean + 0.25 * own
    used_variance = 0.75 * (variance + mean**2) + 0.25 * own_square - used**2
    batch, batch_variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    deviation = np.sqrt((used_variance + batch_variance) / 2 + 1e-3)
    expected = (x - (used + batch) / 2) / deviation * gamma + beta
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-4)
    # Half of what a momentum of 0.9 would move them.
    np.testing.assert_allclose(layer.moving_mean, mean + 0.05 * (batch - mean), rtol=1e-5)
    moved = variance + 0.05 * (batch_variance - variance)
    np.testing.assert_allclose(layer.moving_variance, moved, rtol=1e-5)


def test_images_do_not_depend_on_what_they_are_made_with():
    generator = build_generator(32, latent_dim=8, width=4, own_share=1 / 4)
    latents = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    together = generator(latents)
    alone = np.concatenate([generator(latents[index : index + 1]) for index in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_its_weights_are_those_of_batch_normalization():
    plain, settling = (
        build_generator(32, latent_dim=8, width=4, own_share=share) for share in (0.0, 1 / 16)
    )
    for ours, theirs in zip(settling.weights, plain.weights, strict=True):
        assert (ours.path, ours.shape) == (theirs.path, theirs.shape)


def test_saved_layer_loads_with_its_share(tmp_path):
    model = keras.Sequential([keras.Input(MAPS[1:]), built(own_share=0.3)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(maps()), model(maps()))


def test_low_precision_images_have_statistics_in_float32():
    layer = built(own_share=0.5, dtype="mixed_bfloat16")
    # A contrast of 1 on a level of 200: squares in bfloat16 are told apart by 256.
    x = 200 + np.random.default_rng(0).integers(0, 2, MAPS)
    layer.set_weights([*layer.get_weights()[:2], np.full(4, 200.0), np.full(4, 0.25)])
    outputs = layer(x.astype("float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    exact = built(own_share=0.5)
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact(x), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ValueError, match=f"own_share must be from 0 to 1, got {share}"):
        SettlingBatchNormalization(own_share=share)
