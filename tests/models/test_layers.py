import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.models.layers import (
    MinibatchStandardDeviation,
    SpectralConv2D,
    SpectralDense,
    UpsampleConv2D,
)


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


def spectral_layer(kind, iterations):
    """A spectral layer of random weights after so many training calls; its kernel as a matrix."""
    layer, shape = {
        "convolution": (SpectralConv2D(6, 3, padding="same"), (1, 5, 7, 4)),
        "dense": (SpectralDense(6), (1, 9)),
    }[kind]
    images = keras.random.normal(shape)
    layer.build(shape)
    layer.kernel.assign(keras.random.normal(layer.kernel.shape))
    for _ in range(iterations):
        layer(images, training=True)
    layer.bias.assign(keras.random.normal((6,)))
    return layer, images, np.asarray(layer.kernel).reshape(-1, 6)


def plain_outputs(layer, images, divisor):
    plain = (
        keras.layers.Conv2D(6, 3, padding="same")
        if isinstance(layer, SpectralConv2D)
        else keras.layers.Dense(6)
    )
    plain.build(images.shape)
    plain.set_weights([np.asarray(layer.kernel) / divisor, np.asarray(layer.bias)])
    return plain(images)


def test_a_known_matrix_is_divided_by_its_largest_singular_value():
    layer = SpectralDense(3, use_bias=False)
    layer.build((None, 3))
    layer.kernel.assign(np.diag([-4.0, 2.0, 1.0]))
    for _ in range(30):
        layer(np.zeros((1, 3)), training=True)
    np.testing.assert_allclose(layer(np.eye(3)), np.diag([-1.0, 0.5, 0.25]), atol=1e-6)


@pytest.mark.parametrize("kind", ["convolution", "dense"])
def test_outputs_are_those_of_the_kernel_over_the_largest_value_of_its_svd(kind):
    layer, images, matrix = spectral_layer(kind, iterations=100)
    largest = np.linalg.svd(matrix)[1][0]
    assert largest > 3
    np.testing.assert_allclose(
        layer(images), plain_outputs(layer, images, largest), rtol=1e-4, atol=1e-5
    )


def test_one_training_call_is_one_power_iteration():
    layer, images, matrix = spectral_layer("dense", iterations=0)
    layer.u.assign([1.0, 0, 0, 0, 0, 0])
    layer(images, training=True)
    iterated = matrix.T @ matrix[:, 0]
    np.testing.assert_allclose(layer.u, iterated / np.linalg.norm(iterated), rtol=1e-5)


@pytest.mark.parametrize("kind", ["convolution", "dense"])
def test_only_training_moves_u_and_nothing_moves_the_kernel(kind):
    layer, images, _ = spectral_layer(kind, iterations=1)
    kernel, u = np.asarray(layer.kernel).copy(), np.asarray(layer.u).copy()
    layer(images)
    layer(images, training=False)
    np.testing.assert_array_equal(layer.u, u)
    layer(images, training=True)
    assert not np.array_equal(layer.u, u)
    np.testing.assert_array_equal(layer.kernel, kernel)
    assert [weight.name for weight in layer.trainable_weights] == ["kernel", "bias"]


def test_gradient_holds_the_spectral_norm_but_not_the_iteration():
    # Section 2.3 of Miyato et al. 2018, far from convergence, where the iteration would tell.
    layer, inputs, matrix = spectral_layer("dense", iterations=1)
    v = matrix @ np.asarray(layer.u)
    v /= np.linalg.norm(v)
    u = matrix.T @ v
    sigma = np.linalg.norm(u)
    assert sigma < 0.99 * np.linalg.svd(matrix)[1][0]
    weights = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * layer(inputs, training=True))
    gradient = tape.gradient(loss, layer.kernel.value)
    outer = np.asarray(inputs).T @ weights  # the gradient by the normalized kernel
    steepness = np.sum(outer * matrix) / sigma
    expected = (outer - steepness * np.outer(v, u / sigma)) / sigma
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_a_kernel_of_zeros_gives_zeros():
    layer = SpectralDense(2)
    layer.build((None, 3))
    layer.kernel.assign(np.zeros((3, 2)))
    for _ in range(2):
        np.testing.assert_array_equal(layer(np.ones((1, 3)), training=True), [[0, 0]])


def test_two_replicas_make_the_power_iteration_of_one():
    alone, images, _ = spectral_layer("convolution", iterations=0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = SpectralConv2D(6, 3, padding="same")
        layer.build(images.shape)
        layer.set_weights(alone.get_weights())

    @tf.function
    def step():
        return strategy.run(lambda: layer(images, training=True))

    for _ in range(2):
        outputs = strategy.experimental_local_results(step())
        expected = alone(images, training=True)
    for output in outputs:
        np.testing.assert_allclose(output, expected, atol=1e-6)
    for copy in strategy.experimental_local_results(layer.u.value):
        np.testing.assert_allclose(copy, alone.u, atol=1e-6)


def test_standard_deviation_is_of_consecutive_images():
    # Group one: 0 and 2 in one of two numbers; group two: 0 and 6 in both.
    images = np.zeros((4, 1, 2, 1), np.float32)
    images[1, 0, 0] = 2
    images[3] = 6
    outputs = np.asarray(MinibatchStandardDeviation(group_size=2)(images))
    np.testing.assert_array_equal(outputs[..., :1], images)
    np.testing.assert_allclose(outputs[:, 0, 0, 1], [0.5, 0.5, 3, 3], atol=1e-3)
    np.testing.assert_array_equal(outputs[:, 0, 1, 1], outputs[:, 0, 0, 1])


@pytest.mark.parametrize(
    ("features", "expected"),
    # Deviations of five maps: 1, 2, 3, 4 and 5, then 0, 0, 0, 0 and 10.
    [
        (1, [[3], [2]]),
        (2, [[2, 4.5], [0, 5]]),
        (5, [[1, 2, 3, 4, 5], [0, 0, 0, 0, 10]]),
        (9, [[1, 2, 3, 4, 5], [0, 0, 0, 0, 10]]),
    ],
)
def test_each_feature_is_the_deviation_of_its_share_of_the_maps(features, expected):
    images = np.zeros((4, 2, 1, 5), np.float32)
    images[1] = [2, 4, 6, 8, 10]
    images[3, ..., 4] = 20
    layer = MinibatchStandardDeviation(group_size=2, features=features)
    outputs = np.asarray(layer(images))
    assert layer.compute_output_shape(images.shape) == outputs.shape
    told = outputs[:, :, 0, 5:]
    np.testing.assert_array_equal(told[:, 0], told[:, 1])
    np.testing.assert_allclose(told[::2, 0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("count", "groups"), [(1, [1]), (3, [3]), (4, [4]), (7, [7]), (9, [4, 5]), (12, [4, 4, 4])]
)
def test_a_remainder_joins_the_last_group(count, groups):
    images = np.random.default_rng(0).normal(size=(count, 2, 3, 2)).astype(np.float32)
    expected, first = [], 0
    for size in groups:
        expected += [images[first : first + size].std(axis=0).mean()] * size
        first += size
    outputs = MinibatchStandardDeviation()(images)
    assert outputs.shape == (count, 2, 3, 3)
    np.testing.assert_allclose(outputs[:, 0, 0, 2], expected, atol=2e-4)


def test_replicas_form_the_groups_of_the_whole_batch():
    layer, images = MinibatchStandardDeviation(), keras.random.normal((16, 2, 2, 3))
    halves = np.concatenate([layer(images[:8]), layer(images[8:])])
    np.testing.assert_allclose(layer(images), halves, rtol=1e-6)


def test_equal_images_have_finite_gradients_of_gradients():
    # Collapse, and R1 upon it: the square root has no slope at 0.
    layer, images = MinibatchStandardDeviation(), tf.ones((4, 2, 2, 1))
    with tf.GradientTape() as outer:
        outer.watch(images)
        with tf.GradientTape() as inner:
            inner.watch(images)
            deviation = tf.reduce_sum(layer(images)[..., 1])
        penalty = tf.reduce_sum(tf.square(inner.gradient(deviation, images)))
    assert np.isfinite(outer.gradient(penalty, images)).all()


def test_group_of_one_and_no_feature_are_refused():
    with pytest.raises(ValueError, match="2 or more, got 1"):
        MinibatchStandardDeviation(group_size=1)
    with pytest.raises(ValueError, match="1 feature or more, got 0"):
        MinibatchStandardDeviation(features=0)


def critic_of_every_layer():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            SpectralConv2D(3, 4, strides=2, padding="same", activation="relu"),
            MinibatchStandardDeviation(group_size=2, features=3),
            keras.layers.Flatten(),
            SpectralDense(1, dtype="float32"),
        ]
    )


def test_saved_layers_load_with_what_the_iteration_had_found(tmp_path):
    model, images = critic_of_every_layer(), keras.random.normal((5, 6, 6, 2))
    for _ in range(3):
        model(images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.layers[1].group_size, loaded.layers[1].features) == (2, 3)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_layers_have_a_graph_for_any_batch(tmp_path):
    model = critic_of_every_layer()
    model.export(tmp_path / "graph", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "graph")
    for count in (1, 5):
        images = tf.random.normal((count, 6, 6, 2))
        np.testing.assert_allclose(loaded.serve(images), model(images), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_layers_compute_in_the_precision_asked_for(policy):
    full = critic_of_every_layer()
    keras.config.set_dtype_policy(policy)
    half = critic_of_every_layer()
    half.set_weights(full.get_weights())
    images = keras.random.normal((4, 6, 6, 2))
    for layer in half.layers[:-1]:
        assert layer.compute_dtype == policy.removeprefix("mixed_")
    assert half.layers[0].u.dtype == "float32"
    full(images, training=True)  # both iterate once
    assert half(images, training=True).dtype == "float32"
    np.testing.assert_allclose(half(images), full(images), atol=0.05)
