import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.models.layers import UpsampleConv2D


def plain_and_fused(kernel_size):
    plain = keras.Sequential(
        [
            keras.Input((5, 7, 3)),
            keras.layers.UpSampling2D(2),
            keras.layers.Conv2D(4, kernel_size, padding="same", bias_initializer="random_normal"),
        ]
    )
    fused = keras.Sequential([keras.Input((5, 7, 3)), UpsampleConv2D(4, kernel_size)])
    fused.set_weights(plain.get_weights())
    return plain, fused


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_same_function_of_the_same_weights_as_the_pair_of_layers(kernel_size):
    plain, fused = plain_and_fused(kernel_size)
    images = keras.random.normal((2, 5, 7, 3))
    # Borders included: padding is where the two could part.
    np.testing.assert_allclose(fused(images), plain(images), atol=1e-5)


def test_same_gradients_as_the_pair_of_layers():
    plain, fused = plain_and_fused(3)
    images = keras.random.normal((2, 5, 7, 3))
    gradients = []
    for model in (plain, fused):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(model(images)))
        gradients.append(tape.gradient(loss, [variable.value for variable in model.variables]))
    for ours, theirs in zip(*gradients):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd kernel_size, got 4"):
        UpsampleConv2D(8, kernel_size=4)


def test_saved_layer_loads_with_its_weights(tmp_path):
    _, fused = plain_and_fused(3)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.models.load_model(tmp_path / "fused.keras")
    images = keras.random.normal((1, 5, 7, 3))
    np.testing.assert_array_equal(loaded(images), fused(images))
