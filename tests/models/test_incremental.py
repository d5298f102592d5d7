import keras
import numpy as np
import pytest

from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.models.incremental import cost, transfer
from keras_cxrgan.models.layers import FadeIn

PAPER = {"width": 8, "grown_from": 64}
TINY = {"width": 2, "grown_from": 32, "growth_width": (3, 2)}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def tiny_generator(size, **options):
    return build_generator(size, latent_dim=3, **(TINY | options))


def stir(model):
    """Give a model weights as after some training: moving statistics that are not 0 and 1."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(values) if weight.name == "moving_variance" else values)
    return model


def kept(model, heads=("image_convolution", "previous_image_convolution", "fade_in")):
    return {
        (layer.name, index): weight
        for layer in model.layers
        if layer.name not in heads
        for index, weight in enumerate(layer.get_weights())
    }


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (64, 145_776, 44_384),
        (128, 146_816, 45_424),
        (256, 147_856, 46_464),
        (512, 148_896, 47_504),
        (1024, 149_936, 48_544),
        (2048, 150_976, 49_584),
    ],
)
def test_each_doubling_adds_1040_parameters(size, generator, discriminator):
    assert trainable(build_generator(size, **PAPER)) == generator
    assert trainable(build_discriminator(size, **PAPER)) == discriminator


def test_the_first_size_is_the_network_that_never_grows():
    for build in (build_generator, build_discriminator):
        plain, first = build(64, width=8), build(64, **PAPER)
        assert [w.shape for w in plain.get_weights()] == [w.shape for w in first.get_weights()]
        assert [layer.name for layer in plain.layers if layer.weights] == [
            layer.name for layer in first.layers if layer.weights
        ]


def test_a_width_schedule_sets_each_block():
    generator, discriminator = tiny_generator(128), build_discriminator(128, **TINY)
    maps = {
        side: generator.get_layer(f"convolution_{side}").output.shape[-1] for side in (16, 32, 64)
    }
    assert maps == {16: 2, 32: 3, 64: 2}
    maps = {
        side: discriminator.get_layer(f"convolution_{side}").output.shape[-1] for side in (32, 16)
    }
    assert maps == {32: 3, 16: 2}
    with pytest.raises(ValueError, match="one for each of the 3 blocks from 32 to 256, got 2"):
        tiny_generator(256)


@pytest.mark.parametrize("sizes", [(32, 64), (64, 128), (32, 128)])
@pytest.mark.parametrize("fade_in", [0, 10])
@pytest.mark.parametrize(
    "build", [tiny_generator, lambda size, **o: build_discriminator(size, **TINY, **o)]
)
def test_every_learnt_weight_but_the_heads_is_kept_bit_by_bit(sizes, fade_in, build):
    small = stir(build(sizes[0], fade_in=fade_in))
    large = build(sizes[1], previous_size=sizes[0], fade_in=fade_in)
    fresh = kept(large)
    transfer(small, large)
    ours, theirs = kept(small), kept(large)
    assert set(ours) < set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    for name in set(theirs) - set(ours):  # what was appended is as it was
        np.testing.assert_array_equal(fresh[name], theirs[name])


@pytest.mark.parametrize("sizes", [(32, 64), (64, 128), (32, 128)])
@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_at_alpha_0_a_grown_generator_makes_the_former_images_enlarged(sizes, upsampling):
    options = {"upsampling": upsampling, "kernel_size": 3, "fused": True, "fade_in": 10}
    small = stir(tiny_generator(sizes[0], **options))
    for layer in small.layers:
        if isinstance(layer, FadeIn):
            layer.follow(10)  # it has come in by the time it grows again
    large = tiny_generator(sizes[1], previous_size=sizes[0], **options)
    transfer(small, large)
    latents = keras.random.normal((3, 3))
    images = np.asarray(small(latents))
    factor = sizes[1] // sizes[0]
    enlarged = images.repeat(factor, axis=1).repeat(factor, axis=2)
    assert images.std() > 0
    np.testing.assert_array_equal(np.asarray(large(latents)), enlarged)


def test_at_alpha_0_a_grown_discriminator_judges_the_image_averaged_down():
    small = stir(build_discriminator(32, **TINY))
    large = build_discriminator(128, **TINY, previous_size=32, fade_in=10)
    transfer(small, large)
    images = np.random.default_rng(0).normal(size=(2, 128, 128, 1)).astype(np.float32)
    reduced = images.reshape(2, 32, 4, 32, 4, 1).mean((2, 4))
    np.testing.assert_allclose(large(images), small(reduced), atol=1e-5)


def test_at_alpha_1_the_former_head_has_no_say():
    faded, plain = tiny_generator(64, fade_in=10), tiny_generator(64)
    for layer in plain.layers:
        if layer.weights:
            layer.set_weights(faded.get_layer(layer.name).get_weights())
    faded.get_layer("fade_in").follow(10)
    latents = keras.random.normal((2, 3))
    np.testing.assert_array_equal(np.asarray(faded(latents)), np.asarray(plain(latents)))


def test_the_head_that_fades_out_is_the_one_of_the_size_before():
    small, large = tiny_generator(64, fade_in=10), tiny_generator(128, fade_in=10)
    transfer(small, large)
    for ours, theirs in zip(
        small.get_layer("image_convolution").get_weights(),
        large.get_layer("previous_image_convolution").get_weights(),
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert large.get_layer("fade_in").alpha.numpy() == 0


def test_networks_of_another_trunk_are_refused():
    with pytest.raises(ValueError, match="generator 64 did not grow from generator 32.*width"):
        transfer(tiny_generator(32, width=4), tiny_generator(64))


@pytest.mark.parametrize(("seen", "alpha"), [(0, 0.0), (5, 0.25), (20, 1.0), (90, 1.0)])
def test_fade_blends_by_images_seen_and_keeps_alpha_when_saved(seen, alpha, tmp_path):
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, FadeIn(20)(inputs))
    model.layers[-1].follow(seen)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        blend = each([np.zeros((1, 2)), 4 * np.ones((1, 2))])
        np.testing.assert_allclose(blend, 4 * alpha * np.ones((1, 2)))
    assert not model.trainable_weights


def test_cost_counts_what_a_forward_pass_does():
    # 3x3 kernels of 1 -> 2 maps at 4x4 pixels, then 2 x 16 numbers -> 5.
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, padding="same", use_bias=False),
            keras.layers.Flatten(),
            keras.layers.Dense(5, use_bias=False),
        ]
    )
    counted = cost(model)
    assert counted.multiplications == 16 * 9 * 2 + 32 * 5
    assert counted.activations == 32 + 32 + 5
    assert counted.parameters == 18 + 160
