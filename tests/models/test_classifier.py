import keras
import numpy as np
import pytest

from keras_cxrgan.models.classifier import (
    build_inception_classifier,
    build_small_cnn,
    unfreeze,
)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_the_small_cnn_has_the_published_number_of_parameters():
    model = build_small_cnn()
    assert trainable(model) == 2_191_556
    # Twice 32 + 64 + 128 moving statistics of batch normalization are not in the published count.
    assert model.count_params() == 2_192_004


def test_the_small_cnn_returns_logits_of_any_shape_asked_for():
    model = build_small_cnn(32, channels=3, classes=2)
    logits = model(10 * np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype("float32"))
    assert logits.shape == (5, 2)
    # One softmax only: probabilities would sum to 1.
    assert np.abs(np.sum(logits, axis=1) - 1).max() > 1e-3


def test_the_small_cnn_learns_two_shades_from_logits():
    films = np.repeat([-0.8, 0.8], 16).reshape(-1, 1, 1, 1) * np.ones((1, 16, 16, 1))
    labels = np.repeat([0, 1], 16)
    model = build_small_cnn(16, classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    history = model.fit(films, labels, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2


def test_after_fifty_steps_the_small_cnn_is_tested_with_the_statistics_of_its_films():
    films = np.random.default_rng(0).normal(3, 1, (32, 16, 16, 1)).astype("float32")
    model = build_small_cnn(16, classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)  # the weights stay, the statistics move
    model.fit(films, np.repeat([0, 1], 16), batch_size=32, epochs=50, verbose=0)
    convolution, normalization = model.layers[1:3]
    expected = np.asarray(convolution(films)).mean((0, 1, 2))
    # Keras' own momentum would be 60 % short of it.
    np.testing.assert_allclose(normalization.moving_mean, expected, rtol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"classes": 1}, "2 or more"), ({"image_size": 4}, "8 pixels or more")],
)
def test_what_the_small_cnn_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_small_cnn(**arguments)


# Keras itself, on converting variables to write them; setup.cfg lets it, `-W error` does not.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_inception_from_scratch_takes_small_grey_films(tmp_path):
    model = build_inception_classifier(3, inner_size=75)
    assert model(np.zeros((1, 64, 64, 1), "float32")).shape == (1, 3)
    base = model.get_layer("inception_v3")
    assert trainable(base) == 21_768_352
    kinds = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in kinds} == {0.9}  # as of the small CNN

    # Its weights in a file: a frozen network trains the last layer, then all but the statistics.
    path = tmp_path / "inception.weights.h5"
    base.save_weights(path)
    frozen = build_inception_classifier(3, weights=path, frozen=True, inner_size=75)
    assert trainable(frozen) == 2048 * 3 + 3
    kernel = frozen.get_layer("inception_v3").layers[1].get_weights()[0]
    np.testing.assert_array_equal(kernel, base.layers[1].get_weights()[0])
    unfreeze(frozen)
    inner = frozen.get_layer("inception_v3")
    normalizations = [
        layer for layer in inner.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    offsets = sum(int(layer.beta.shape[0]) for layer in normalizations)
    assert trainable(inner) == 21_768_352 - offsets
    before = normalizations[0].moving_mean.numpy()
    frozen(np.ones((2, 64, 64, 1), "float32"), training=True)
    np.testing.assert_array_equal(normalizations[0].moving_mean.numpy(), before)


def test_imagenet_weights_without_a_network_are_explained(monkeypatch):
    def unreachable(**_):
        raise Exception("URL fetch failure: None -- no route\nmore")  # noqa: TRY002, as Keras does

    monkeypatch.setattr(keras.applications, "InceptionV3", unreachable)
    with pytest.raises(ValueError, match=r"cannot be had \(URL fetch failure.*from scratch"):
        build_inception_classifier(3, weights="imagenet", inner_size=75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frozen": True}, "random features"),
        ({"weights": "nowhere.h5"}, "no file of InceptionV3 weights at nowhere.h5"),
        ({"channels": 2}, "grey"),
        ({"inner_size": 64}, "needs 75"),
    ],
)
def test_what_inception_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_inception_classifier(3, **arguments)
