"""What a DCGAN may have besides: classes, modulation, spectral norms, ways around its blocks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import stir

from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.models.incremental import cost, transfer


def copy_by_name(source, target):
    """Give each layer that both networks have the weights of the source."""
    names = {layer.name for layer in source.layers if layer.weights}
    for layer in target.layers:
        if layer.name in names:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def one_hot(*labels, classes=3):
    return tf.one_hot(labels, classes)


EVERYTHING = {
    "normalization": None,
    "spectral": True,
    "minibatch_stddev": True,
    "classes": 3,
    "residual": True,
}


GENERATOR = {"residual": True, "self_modulation": True}


def test_networks_that_ask_for_nothing_new_keep_their_layers_and_weights():
    # Checkpoints and grown networks go by these names, and by this order.
    for model, layers in [
        (
            build_generator(32, width=4),
            (
                "base normalization_4 convolution_8 normalization_8 convolution_16"
                " normalization_16 image_convolution"
            ),
        ),
        (
            build_discriminator(32, width=4),
            "image_convolution convolution_8 normalization_8 convolution_4 normalization_4 logits",
        ),
    ]:
        assert [layer.name for layer in model.layers if layer.weights] == layers.split()
        normalization = ["gamma", "beta", "moving_mean", "moving_variance"]
        assert [weight.name for weight in model.weights] == [
            name
            for layer in layers.split()
            for name in (normalization if layer.startswith("normalization") else ["kernel"])
        ]


@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_a_conditional_generator_starts_as_the_one_without_classes(normalization):
    options = {"width": 2, "latent_dim": 3, "normalization": normalization}
    plain = stir(build_generator(32, **options))
    conditional = build_generator(32, classes=3, **options)
    copy_by_name(plain, conditional)
    latents = keras.random.normal((4, 3))
    for training in (False, True):
        np.testing.assert_allclose(
            conditional([latents, one_hot(0, 1, 2, 0)], training=training),
            plain(latents, training=training),
            atol=1e-5,
        )


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_a_self_modulated_generator_starts_as_the_one_without(normalization, classes):
    options = {"width": 2, "latent_dim": 3, "normalization": normalization, "classes": classes}
    plain = stir(build_generator(32, **options))
    modulated = build_generator(32, self_modulation=True, **options)
    copy_by_name(plain, modulated)
    latents = keras.random.normal((4, 3))
    inputs = [latents, one_hot(0, 1, 2, 0)] if classes else latents
    for training in (False, True):
        np.testing.assert_allclose(
            modulated(inputs, training=training), plain(inputs, training=training), atol=1e-5
        )


def test_self_modulation_is_a_network_of_the_latents_for_each_scale_and_offset():
    # Chen et al. 2019: V max(0, U z + b), here with a bias beside V.
    generator = stir(build_generator(16, width=2, latent_dim=3, self_modulation=True))
    inner = keras.Model(
        generator.input,
        [generator.get_layer("normalization_8").output, generator.layers[-3].output],
    )
    latents = np.random.default_rng(1).normal(size=(2, 3)).astype("float32")
    normalized, activated = (np.asarray(part) for part in inner(latents))

    def of_latents(name):
        first, offset = generator.get_layer(f"{name}_hidden").get_weights()
        assert first.shape == (3, 32)
        second, bias = generator.get_layer(name).get_weights()
        return (np.maximum(latents @ first + offset, 0) @ second + bias)[:, None, None]

    expected = normalized * of_latents("latent_scale_8") + of_latents("latent_offset_8")
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(activated, np.maximum(expected, 0), rtol=1e-4, atol=1e-4)
    names = [layer.name for layer in generator.layers if layer.name.startswith("latent_scale")]
    assert names == [f"latent_scale_{side}{end}" for side in (4, 8) for end in ("_hidden", "")]


def test_a_generator_that_normalizes_nothing_has_nothing_to_modulate():
    with pytest.raises(ValueError, match="self_modulation needs a normalized generator"):
        build_generator(32, normalization=None, self_modulation=True)


def test_each_class_has_its_scale_and_offset_after_each_normalization():
    generator = stir(build_generator(16, width=2, latent_dim=3, classes=3))
    parts = [generator.get_layer(f"{name}_8") for name in ("normalization", "class_scale")]
    inner = keras.Model(
        generator.inputs, [part.output for part in parts] + [generator.layers[-3].output]
    )
    latents, labels = keras.random.normal((2, 3)), one_hot(2, 0)
    normalized, scales, activated = (np.asarray(part) for part in inner([latents, labels]))
    np.testing.assert_array_equal(scales, np.asarray(parts[1].kernel)[[2, 0]])
    offsets = np.asarray(generator.get_layer("class_offset_8").kernel)[[2, 0]]
    expected = np.maximum(normalized * scales[:, None, None] + offsets[:, None, None], 0)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(activated, expected, atol=1e-5)


def test_gradients_reach_the_scales_of_the_classes_in_the_batch_only():
    generator = stir(build_generator(16, width=8, latent_dim=3, classes=3))
    discriminator = stir(build_discriminator(16, width=8, classes=3))
    latents, labels = keras.random.normal((4, 3)), one_hot(0, 2, 2, 0)
    with tf.GradientTape(persistent=True) as tape:
        images = generator([latents, labels], training=True)
        loss = tf.reduce_sum(discriminator([images, labels], training=True))
    for network, names, axis in [
        (generator, ["class_scale_4", "class_offset_4", "class_scale_8", "class_offset_8"], 1),
        (discriminator, ["projection"], 0),
    ]:
        for name in names:
            gradient = tape.gradient(loss, network.get_layer(name).kernel.value)
            reached = np.abs(gradient).sum(axis=axis) > 0
            assert reached.tolist() == [True, False, True], name
    shared = generator.get_layer("base").kernel.value
    assert np.abs(tape.gradient(loss, shared)).sum() > 0


@pytest.mark.parametrize("spectral", [False, True])
def test_projection_adds_the_inner_product_of_the_class_and_the_pooled_maps(spectral):
    options = {"width": 2, "normalization": None, "spectral": spectral}
    discriminator = stir(build_discriminator(16, classes=3, **options))
    projection = discriminator.get_layer("projection")
    for _ in range(50):  # to the spectral norm
        projection(np.zeros((1, 4)), training=True)
    plain = build_discriminator(16, **options)
    copy_by_name(discriminator, plain)
    images, labels = keras.random.normal((3, 16, 16, 1)), one_hot(1, 0, 2)
    flatten = next(x for x in plain.layers if isinstance(x, keras.layers.Flatten))
    maps = np.asarray(keras.Model(plain.input, flatten.input)(images))
    vectors = np.asarray(projection.kernel)
    vectors = vectors / np.linalg.svd(vectors)[1][0] if spectral else vectors
    product = np.sum(maps.sum(axis=(1, 2)) * vectors.T[[1, 0, 2]], axis=1, keepdims=True)
    assert np.abs(product).max() > 0.05
    np.testing.assert_allclose(
        discriminator([images, labels]), np.asarray(plain(images)) + product, atol=1e-4
    )


def test_a_generator_without_normalization_cannot_have_classes():
    with pytest.raises(ValueError, match="classes=3 needs a normalized generator"):
        build_generator(32, normalization=None, classes=3)


def test_spectral_bounds_how_steep_a_discriminator_is():
    # Each kernel as a matrix has norm 1, so a 4x4 convolution of stride 2 stretches by 2 at most.
    options = {"width": 4, "normalization": None}
    steepness = {}
    for spectral in (False, True):
        model = stir(build_discriminator(32, spectral=spectral, **options))
        images = keras.random.normal((8, 32, 32, 1))
        for _ in range(20):
            model(images[:1], training=True)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images)
        gradient = np.asarray(tape.gradient(logits, images)).reshape(8, -1)
        steepness[spectral] = np.linalg.norm(gradient, axis=1).max()
    assert steepness[True] < 2**3 < steepness[False]


def test_every_kernel_of_a_spectral_discriminator_is_normalized():
    model = build_discriminator(32, width=4, **EVERYTHING)
    weights = [layer for layer in model.layers if layer.weights]
    assert len(weights) == 7
    for layer in weights:
        assert [weight.name for weight in layer.non_trainable_weights] == ["u"]


def test_a_discriminator_sees_that_all_images_are_one():
    model = stir(build_discriminator(32, width=4, normalization=None, minibatch_stddev=True))
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 1)).astype(np.float32)
    collapsed = images[[0, 0, 0, 0]]
    assert abs(float(model(images)[0, 0]) - float(model(collapsed)[0, 0])) > 1e-3
    with pytest.raises(ValueError, match="4 times base_size or more, got image_size=8"):
        build_discriminator(8, minibatch_stddev=True)


@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_skip_paths_carry_the_latents_past_the_convolutions(upsampling):
    options = {"width": 2, "latent_dim": 3, "upsampling": upsampling, "kernel_size": 3}
    latents = keras.random.normal((2, 3))
    for residual in (False, True):
        generator = build_generator(32, residual=residual, **options)
        for side in (8, 16):
            layer = generator.get_layer(f"convolution_{side}")
            layer.set_weights([0 * weight for weight in layer.get_weights()])
        images = np.asarray(generator(latents, training=True))
        assert (np.abs(images[0] - images[1]).max() > 1e-3) == residual


def test_skip_paths_carry_the_image_past_the_convolutions():
    images = keras.random.normal((2, 32, 32, 1))
    for residual in (False, True):
        discriminator = build_discriminator(32, width=2, residual=residual)
        for side in (8, 4):
            layer = discriminator.get_layer(f"convolution_{side}")
            layer.set_weights([0 * weight for weight in layer.get_weights()])
        logits = np.asarray(discriminator(images, training=True))
        assert (np.abs(logits[0] - logits[1]).max() > 1e-4) == residual


def test_equal_widths_are_skipped_without_a_convolution():
    for model in (
        build_generator(32, width=4, max_width=4, residual=True),
        build_discriminator(32, width=4, max_width=4, residual=True),
    ):
        assert not [layer.name for layer in model.layers if layer.name.startswith("skip")]


@pytest.mark.parametrize("fade_in", [0, 10])
def test_a_residual_conditional_pair_grows(fade_in):
    options = {"width": 2, "grown_from": 32, "growth_width": (3,), "classes": 3}
    small, large = (
        stir(build_generator(size, latent_dim=3, fade_in=fade_in, **GENERATOR, **options))
        for size in (32, 64)
    )
    copied = set(transfer(small, large))
    assert {"skip_16", "class_scale_16", "latent_scale_16", "convolution_16"} <= copied
    settings = EVERYTHING | options | {"residual": not fade_in, "fade_in": fade_in}
    small, large = (stir(build_discriminator(size, **settings)) for size in (32, 64))
    assert {"convolution_4", "projection", "logits"} <= set(transfer(small, large))
    logits = large([keras.random.normal((2, 64, 64, 1)), one_hot(1, 2)])
    assert np.isfinite(logits).all()


def test_a_residual_discriminator_that_fades_in_is_refused():
    options = {"width": 2, "grown_from": 32, "fade_in": 10, "residual": True}
    assert build_discriminator(32, **options)  # the first size has nothing to fade
    with pytest.raises(ValueError, match="cannot fade in: give fade_in=0"):
        build_discriminator(64, **options)


def test_cost_counts_the_new_layers():
    assert cost(build_generator(32, width=2, classes=3, **GENERATOR)).parameters > 0
    plain = cost(build_discriminator(32, width=2, classes=3, normalization=None))
    spectral = cost(build_discriminator(32, width=2, classes=3, normalization=None, spectral=True))
    assert spectral.multiplications == plain.multiplications


def test_saved_networks_of_every_ingredient_load_with_their_weights(tmp_path):
    generator = stir(build_generator(16, width=2, latent_dim=3, classes=3, **GENERATOR))
    discriminator = stir(build_discriminator(16, width=2, **EVERYTHING))
    for model, inputs in [
        (generator, keras.random.normal((2, 3))),
        (discriminator, keras.random.normal((2, 16, 16, 1))),
    ]:
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        labels = one_hot(1, 2)
        np.testing.assert_array_equal(loaded([inputs, labels]), model([inputs, labels]))


def test_a_conditional_generator_is_made_of_layers_that_keras_has():
    # Its export must load where this package is not installed.
    for layer in build_generator(32, width=2, classes=3, **GENERATOR).layers:
        assert type(layer).__module__.startswith("keras.")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_every_ingredient_has_float32_outputs_under_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    images = build_generator(32, width=4, classes=3, **GENERATOR)(
        [keras.random.normal((2, 100)), one_hot(0, 1)]
    )
    logits = build_discriminator(32, width=4, **EVERYTHING)([images, one_hot(0, 1)])
    assert images.dtype == "float32" and logits.dtype == "float32"
    assert np.isfinite(logits).all()
