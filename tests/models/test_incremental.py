import keras
import numpy as np
import pytest
from small_networks import stir

from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.models.incremental import cost, transfer
from keras_cxrgan.models.layers import FadeIn

PAPER = {"width": 8, "grown_from": 64}
TINY = {"width": 2, "grown_from": 32, "growth_width": (3, 2)}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def tiny_generator(size, **options):
    return build_generator(size, latent_dim=3, **(TINY | options))


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
    with pytest.raises(
        ValueError, match="generator of 64 pixels cannot take over .* of 32: .*width"
    ):
        transfer(tiny_generator(32, width=4), tiny_generator(64))


HALF_A_LEVEL = 1 / 255  # of images in [-1, 1]


def enlarged(images, factor):
    return np.asarray(images).repeat(factor, axis=1).repeat(factor, axis=2)


def averaged(images, factor):
    count, side, _, channels = images.shape
    parts = images.reshape(count, side // factor, factor, side // factor, factor, channels)
    return parts.mean((2, 4))


def latent_batch(seed=0, count=8):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def films(size, channels=1, count=8, seed=0):
    """Images with coarse and fine structure, brighter and darker ones."""
    random = np.random.default_rng(seed)
    coarse = enlarged(random.normal(size=(count, 4, 4, channels)), size // 4)
    fine = random.normal(0, 0.1, (count, size, size, channels))
    return np.tanh(0.5 * coarse + fine + random.normal(0, 0.2, (count, 1, 1, 1))).astype("float32")


def trained(options):
    """A generator as after some training: statistics that moved, and images of all greys."""
    model = tiny_generator(32, **options)
    for layer in model.layers:
        layer.momentum = 0.0  # at once
    head = model.get_layer("image_convolution")
    read = keras.Model(model.input, head.output)
    values = np.asarray(read(latent_batch(seed=7), training=True))
    head.kernel.assign(head.kernel / values.std())
    if head.use_bias:
        head.bias.assign(head.bias + 0.3)
    return model


GENERATORS = {
    "transpose": {},
    "transpose of 3 pixels": {"kernel_size": 3},
    "transpose of 5 pixels": {"kernel_size": 5},
    "resize, fused": {"upsampling": "resize", "kernel_size": 3, "fused": True},
    "resize": {"upsampling": "resize", "kernel_size": 5},
    "leaky_relu": {"activation": "leaky_relu"},
    "keras convention": {"convention": "keras"},
    "2 maps": {"growth_width": (2,)},
    "33 maps": {"growth_width": (33,)},
    "3 channels": {"channels": 3, "growth_width": (7,)},
    "no normalization": {"normalization": None},
    "self-modulated": {"self_modulation": True},
}


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("options", GENERATORS.values(), ids=GENERATORS)
def test_a_grown_generator_starts_with_the_former_images(size, options):
    small, large = trained(options), tiny_generator(size, **options)
    before, latents = small.get_weights(), latent_batch()
    transfer(small, large, start="former_image", batches=[latents])
    for ours, theirs in zip(small.get_weights(), before):  # measuring leaves no trace
        np.testing.assert_array_equal(ours, theirs)
    for training in (False, True):  # in training, of the batch that was measured
        former = enlarged(small(latents, training=training), size // 32)
        images = np.asarray(large(latents, training=training))
        assert former.std() > 0.1
        np.testing.assert_allclose(images, former, atol=HALF_A_LEVEL)
    if size == 64 and options.get("growth_width") != (2,) and "normalization" not in options:
        assert np.abs(images - former).max() > 1e-5  # the other maps are heard


def test_a_generator_that_has_grown_grows_again():
    options = {"growth_width": (4,)}
    first, second, third = (trained(options), *(tiny_generator(s, **options) for s in (64, 128)))
    latents = latent_batch()
    transfer(first, second, start="former_image", batches=[latents])
    transfer(second, third, start="former_image", batches=[latents])
    np.testing.assert_allclose(third(latents), enlarged(first(latents), 4), atol=2 * HALF_A_LEVEL)


def test_other_batches_get_the_mean_and_contrast_of_those_measured():
    small, large = trained({}), tiny_generator(64)
    batches = [latent_batch(seed, 16) for seed in range(4)]
    transfer(small, large, start="former_image", batches=batches)
    weights, read = small.get_weights(), []
    head = keras.Model(small.input, small.get_layer("image_convolution").output)
    for batch in batches:
        values = np.asarray(head(batch, training=True))
        read.append((values.mean(), values.var()))
        small.set_weights(weights)
    mean, variance = np.mean(read, axis=0)
    normalization = large.get_layer("normalization_32")
    spread = np.sqrt(variance + 1e-5)
    for weight, expected in (
        (normalization.moving_mean, [mean, -mean, 0]),
        (normalization.moving_variance, [variance, variance, 1]),
        (normalization.beta, [mean, -mean, 0]),
    ):
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(normalization.gamma.numpy()[:2], [spread, spread], rtol=1e-4)
    other = latent_batch(99, 16)
    former = np.asarray(head(other, training=True))
    expected = (former - former.mean()) / np.sqrt(former.var() + 1e-5) * spread + mean
    images = np.asarray(large(other, training=True))
    np.testing.assert_allclose(images, enlarged(np.tanh(expected), 2), atol=HALF_A_LEVEL)


def test_after_some_updates_the_statistics_still_pass_the_image_on():
    small, large = trained({}), tiny_generator(64)
    latents = latent_batch()
    transfer(small, large, start="former_image", batches=[latents])
    for _ in range(60):  # both follow the batch's statistics, at rest
        small(latents, training=True)
        large(latents, training=True)
    np.testing.assert_allclose(large(latents), enlarged(small(latents), 2), atol=3 * HALF_A_LEVEL)


DISCRIMINATORS = {
    "batch": {},
    "3 pixels": {"kernel_size": 3},
    "keras convention": {"convention": "keras"},
    "2 maps": {"growth_width": (2,)},
    "33 maps": {"growth_width": (33,)},
    "3 channels": {"channels": 3, "growth_width": (6,)},
    "none": {"normalization": None},
}


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("options", DISCRIMINATORS.values(), ids=DISCRIMINATORS)
def test_a_grown_discriminator_judges_at_first_the_image_averaged_down(size, options):
    options = TINY | options
    channels = options.get("channels", 1)
    small, large = (stir(build_discriminator(32, **options)), build_discriminator(size, **options))
    images, others = films(size, channels), 0.5 * films(size, channels, seed=5) + 0.4
    reduced = averaged(images, size // 32)
    transfer(small, large, start="former_image", batches=[reduced])
    for seen, training in ((images, False), (others, False), (images, True)):
        # In training, of the batch that was measured.
        former = np.asarray(small(averaged(seen, size // 32), training=training))
        logits = np.asarray(large(seen, training=training))
        np.testing.assert_allclose(logits, former, atol=0.02 * former.std())


def test_instance_normalization_keeps_a_judgement_near_and_not_exact():
    options = TINY | {"normalization": "instance"}
    small, large = stir(build_discriminator(32, **options)), build_discriminator(64, **options)
    images = films(64, count=40)
    transfer(small, large, start="former_image", batches=[averaged(images, 2)])
    former, logits = np.asarray(small(averaged(images, 2))), np.asarray(large(images))
    assert np.corrcoef(former[:, 0], logits[:, 0])[0, 1] > 0.7


@pytest.mark.parametrize("build", ["generator", "discriminator"])
def test_gradients_reach_every_new_weight_after_a_step(build):
    if build == "generator":
        small, large = trained({}), tiny_generator(64)
        inputs, batches = latent_batch(), [latent_batch()]
        target = np.random.default_rng(1).normal(size=(8, 64, 64, 1)).astype("float32")
    else:
        small, large = (stir(build_discriminator(32, **TINY)), build_discriminator(64, **TINY))
        inputs = films(64)
        target, batches = np.ones((8, 1), np.float32), [averaged(inputs, 2)]
    transfer(small, large, start="former_image", batches=batches)
    known = {layer.name for layer in small.layers} - {"image_convolution"}
    new = [layer for layer in large.layers if layer.name not in known and layer.trainable_weights]
    start = {layer.name: layer.get_weights() for layer in new}
    large.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12), "mse")
    large.train_on_batch(inputs, target)
    large.train_on_batch(inputs, target)
    assert len(new) == 3  # a convolution, its normalization, a head
    for layer in new:
        for before, after in zip(start[layer.name], layer.get_weights()):
            assert (before != after).all(), layer.name


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (tiny_generator, {"growth_width": (1,)}, "1 maps and a plus and a minus image need 2"),
        (tiny_generator, {"channels": 3}, "3 maps .* need 6 .growth_width=6 or more"),
        (tiny_generator, {"normalization": "instance"}, "takes each image's brightness"),
        (tiny_generator, {"kernel_size": 1}, "its kernels have 1 pixel"),
        (tiny_generator, {"residual": True}, "ways around its blocks"),
        (
            lambda size, **o: build_discriminator(size, **TINY, **o),
            {"residual": True},
            "ways around its blocks",
        ),
        (
            lambda size, **o: build_discriminator(size, **TINY, **o),
            {"spectral": True},
            "spectral normalization scales",
        ),
        (tiny_generator, {}, "needs batches of what the former network takes"),
        (
            lambda size, **o: build_discriminator(size, **TINY, **o),
            {"normalization_affine": False},
            "no learnt scale and offset",
        ),
    ],
)
def test_networks_that_cannot_carry_the_former_image_say_why(build, options, message):
    with pytest.raises(ValueError, match=f"64 cannot start from the former image: .*{message}"):
        transfer(build(32, **options), build(64, **options), start="former_image")


def test_nothing_appended_and_an_unknown_start_are_refused():
    with pytest.raises(ValueError, match="no block that the former lacks"):
        transfer(tiny_generator(32), tiny_generator(32), start="former_image")
    with pytest.raises(ValueError, match="start must be one of random, former_image, got 'warm'"):
        transfer(tiny_generator(32), tiny_generator(64), start="warm")


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
