"""What a gradient penalty trains: the gradient of a gradient through each normalization."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.models.layers import InstanceNormalization
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.training import losses
from keras_cxrgan.workflows.assembly import build_networks

SMALL = RECIPES["default"].override(image_size=32, width=4, convention="keras", latent_dim=3)


def critic(normalization):
    """Return a small discriminator with random weights, and images that it can tell apart."""
    keras.utils.set_random_seed(0)
    recipe = SMALL.override(penalty="r1", discriminator_normalization=normalization)
    network = build_networks(recipe)[1]
    for weight in network.trainable_variables:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.3))
    return network, keras.random.normal((6, 32, 32, 1))


@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("kind", ["r1", "gradient_penalty"])
def test_a_penalty_does_not_move_what_normalization_takes_away(normalization, kind):
    network, images = critic(normalization)

    def penalty():
        def judge(inputs):
            return network(inputs, training=True)

        if kind == "r1":
            return losses.r1_penalty(judge, images)[0]
        return losses.gradient_penalty(judge, images, -images, tf.fill((6, 1, 1, 1), 0.3))[0]

    # A bias is the same for all pixels, so that the normalization after it takes it away.
    taken_away = [network.get_layer(f"convolution_{side}").bias for side in (8, 4)]
    kept = network.get_layer("convolution_8").kernel
    with tf.GradientTape() as tape:
        value = penalty()
    gradients = tape.gradient(value, [*taken_away, kept])
    size = float(tf.norm(gradients[-1]))
    assert size > 1e-3
    for gradient in gradients[:-1]:
        np.testing.assert_allclose(gradient, 0, atol=1e-4 * size)


def test_instance_normalization_is_that_of_keras(tmp_path):
    images = keras.random.normal((3, 4, 5, 2)) * 3 + 7
    theirs, ours = keras.layers.GroupNormalization(groups=-1), InstanceNormalization()
    for layer in (theirs, ours):
        layer.build(images.shape)
        layer.set_weights([np.array([2.0, 3.0]), np.array([0.5, -1.0])])
    np.testing.assert_allclose(ours(images), theirs(images), atol=1e-5)
    np.testing.assert_allclose(tf.reduce_mean(ours(images), [1, 2]), [[0.5, -1.0]] * 3, atol=1e-5)

    model = keras.Sequential([keras.Input(images.shape[1:]), ours])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), ours(images))


def test_instance_normalization_without_scale_and_offset_has_no_weights():
    layer = InstanceNormalization(scale=False, center=False)
    flat = layer(tf.ones((2, 4, 4, 3)))
    assert layer.weights == []
    np.testing.assert_array_equal(flat, np.zeros((2, 4, 4, 3)))
