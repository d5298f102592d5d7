import keras
import numpy as np
import pytest

from keras_cxrgan.models.dcgan import build_discriminator, build_generator

VENU_GENERATOR = {
    "base_size": 8,
    "width": 64,
    "max_width": 256,
    "upsampling": "resize",
    "kernel_size": 3,
    "activation": "leaky_relu",
    "normalize_base": False,
    "convention": "keras",
}
VENU_DISCRIMINATOR = {"base_size": 8, "normalization": None, "convention": "keras"}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    ("expected", "size", "channels", "options"),
    [
        (2_615_169, 128, 1, VENU_GENERATOR),
        (2_614_273, 128, 1, VENU_GENERATOR | {"normalization": None}),
        (2_615_169, 128, 1, VENU_GENERATOR | {"fused": True}),
        (3_576_704, 64, 3, {}),
        (3_574_656, 64, 1, {}),
        (145_776, 64, 1, {"width": 8}),
        # A scale and an offset for each class and each of 64 + 32 + 16 + 8 maps.
        (145_776 + 2 * 3 * 120, 64, 1, {"width": 8, "classes": 3}),
        # 1x1 kernels of 64 -> 32 -> 16 -> 8 maps.
        (145_776 + 2048 + 512 + 128, 64, 1, {"width": 8, "residual": True}),
    ],
)
def test_generator_has_the_published_number_of_parameters(expected, size, channels, options):
    assert trainable(build_generator(size, channels, **options)) == expected


@pytest.mark.parametrize(
    ("expected", "size", "channels", "options"),
    [
        (1_582_593, 128, 1, VENU_DISCRIMINATOR | {"kernel_size": 3}),
        (2_787_265, 128, 1, VENU_DISCRIMINATOR | {"kernel_size": 4}),
        (2_765_568, 64, 3, {}),
        (2_765_568, 64, 3, {"normalization": "instance"}),
        (2_763_776, 64, 3, {"normalization": "instance", "normalization_affine": False}),
        (2_763_520, 64, 1, {"dropout": (0.5, 0.0, 0.5, 0.25)}),
        (44_384, 64, 1, {"width": 8}),
        # Without 224 scales and offsets, with biases of 8 + 16 + 32 + 64 + 1 outputs.
        (44_384 - 224 + 121, 64, 1, {"width": 8, "normalization": None, "spectral": True}),
        # One more input of the 4x4 kernels of the last convolution.
        (44_384 + 16 * 64, 64, 1, {"width": 8, "minibatch_stddev": True}),
        (
            44_384 + 3 * 16 * 64,
            64,
            1,
            {"width": 8, "minibatch_stddev": True, "minibatch_features": 3},
        ),
        (44_384 + 3 * 64, 64, 1, {"width": 8, "classes": 3}),
        # 1x1 kernels of 8 -> 16 -> 32 -> 64 maps.
        (44_384 + 128 + 512 + 2048, 64, 1, {"width": 8, "residual": True}),
    ],
)
def test_discriminator_has_the_published_number_of_parameters(expected, size, channels, options):
    assert trainable(build_discriminator(size, channels, **options)) == expected


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_every_size_is_one_argument(size, upsampling):
    generator = build_generator(
        size, latent_dim=3, width=1, max_width=4, upsampling=upsampling, kernel_size=3
    )
    discriminator = build_discriminator(size, width=1, max_width=4)
    images = generator(keras.random.normal((2, 3)))
    assert images.shape == (2, size, size, 1)
    assert discriminator(images).shape == (2, 1)


def test_size_that_the_base_does_not_double_to_is_refused():
    with pytest.raises(ValueError, match="got image_size=48 and base_size=4"):
        build_generator(48)


def test_images_are_in_range_for_extreme_latents():
    generator = build_generator(32, width=4)
    images = np.asarray(generator(1e9 * keras.random.normal((4, 100))))
    assert images.min() == -1 and images.max() == 1


def test_pytorch_convention_draws_each_layer_from_its_normal_distribution():
    # Keras gives all layers the same numbers when they share one initializer object.
    generator = build_generator(64, 1)
    kernels = [w for w in generator.trainable_weights if w.name == "kernel"]
    for kernel in kernels:
        values = np.asarray(kernel)
        assert values.mean() == pytest.approx(0, abs=5e-3)
        assert values.std() == pytest.approx(0.02, rel=0.05)
    firsts = [np.asarray(kernel).ravel()[:16] for kernel in kernels]
    assert all(not np.allclose(firsts[0], other) for other in firsts[1:])
    scales = [np.asarray(w) for w in generator.trainable_weights if w.name == "gamma"]
    assert np.concatenate(scales).mean() == pytest.approx(1, abs=5e-3)
    assert np.concatenate(scales).std() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("convention", "momentum", "epsilon", "bias"),
    [("pytorch", 0.9, 1e-5, False), ("keras", 0.99, 1e-3, True)],
)
def test_convention_sets_batch_normalization_and_biases(convention, momentum, epsilon, bias):
    for model in (
        build_generator(32, width=4, convention=convention),
        build_discriminator(32, width=4, convention=convention),
    ):
        normalized = [
            layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
        ]
        assert normalized
        assert {(layer.momentum, layer.epsilon) for layer in normalized} == {(momentum, epsilon)}
        convolutions = [layer for layer in model.layers if hasattr(layer, "kernel_size")]
        assert {layer.use_bias for layer in convolutions} == {bias}


def test_first_discriminator_block_is_not_normalized():
    layers = [type(layer).__name__ for layer in build_discriminator(32, width=4).layers]
    assert layers[1:4] == ["Conv2D", "LeakyReLU", "Conv2D"]


def test_leaky_slope_is_the_papers_and_not_the_default_of_keras():
    slopes = {
        layer.negative_slope
        for layer in build_discriminator(32, width=4).layers
        if isinstance(layer, keras.layers.LeakyReLU)
    }
    assert slopes == {np.float32(0.2)} or slopes == {0.2}


def test_dropout_follows_the_blocks_that_have_a_rate():
    model = build_discriminator(64, width=4, dropout=(0.5, 0.0, 0.5, 0.25))
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.5, 0.5, 0.25]


def test_instance_critic_sees_each_image_alone():
    critic = build_discriminator(32, width=4, normalization="instance")
    images = keras.random.normal((4, 32, 32, 1))
    together = np.asarray(critic(images, training=True))
    alone = np.concatenate([critic(images[i : i + 1], training=True) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_outputs_are_float32_under_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    generator, discriminator = build_generator(32, width=4), build_discriminator(32, width=4)
    images = generator(keras.random.normal((2, 100)))
    assert images.dtype == "float32"
    assert discriminator(images).dtype == "float32"
    assert generator.get_layer("convolution_8").compute_dtype == policy.removeprefix("mixed_")


def test_fused_generator_gives_the_images_of_the_plain_one():
    plain = build_generator(128, **VENU_GENERATOR)
    fused = build_generator(128, fused=True, **VENU_GENERATOR)
    assert not np.allclose(plain.get_weights()[0], fused.get_weights()[0])
    fused.set_weights(plain.get_weights())
    latents = keras.random.normal((2, 100))
    np.testing.assert_allclose(fused(latents), plain(latents), atol=1e-4)
