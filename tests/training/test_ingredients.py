"""What `GAN` adds to the papers' training: augmentation, ADA, lazy penalties, consistency."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan import rules
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import augmentation, losses, runtime, state
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.workflows.assembly import build_gan, penalty_weight

ALL = tuple(augmentation.AUGMENTATIONS)


def build(strategy=None, *, networks=None, learning_rate=0.01, **compiled):
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        synchronized = strategy.num_replicas_in_sync > 1
        gan = GAN(
            build_generator(32, latent_dim=8, width=4, max_width=8, synchronized=synchronized),
            build_discriminator(32, width=4, max_width=8, normalization=None, **(networks or {})),
            ema_half_life=64,
        )
        gan.compile(
            keras.optimizers.SGD(learning_rate),
            keras.optimizers.SGD(learning_rate),
            jit_compile=False,
            # On one replica without a graph, whose making is most of what these tests take.
            run_eagerly=strategy.num_replicas_in_sync == 1,
            **compiled,
        )
    return gan


def fit(gan, films, steps=1, start=0):
    data = training_batches(films, 8, seed=3, start=start)
    return gan.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0).history


def weights(gan):
    return {name: variable.numpy() for name, variable in state.state_variables(gan).items()}


def same(one, other):
    return all(np.array_equal(value, other[name]) for name, value in one.items())


def test_everything_together_learns_the_same_on_two_replicas(films):
    options = {
        "networks": {"spectral": True, "minibatch_stddev": True},
        "loss": "hinge",
        "penalty": "r1",
        "penalty_weight": 0.1,
        "penalty_interval": 2,
        "augmentations": ALL,
        "augmentation_probability": 0.5,
        "augmentation_target": 0.6,
        "augmentation_ramp": 100,
        "consistency_weight": 1.0,
    }
    initial, one = build(**options), build(**options)
    two = build(runtime.start("cpu:2"), **options)
    logs = [fit(gan, films, steps=3) for gan in (one, two)]
    for name, before in weights(initial).items():
        after_one, after_two = weights(one)[name], weights(two)[name]
        moved = np.abs(after_one - before).max()
        np.testing.assert_allclose(after_two, after_one, atol=1e-6 + moved * 1e-3, err_msg=name)
    # A gradient's norm is of each replica's own part, and the mean of two norms is no norm.
    for name in sorted(set(logs[0]) - {"discriminator_gradient_norm", "generator_gradient_norm"}):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-3, abs=1e-6), name
    # Three steps of 8 images, up or down.
    change = abs(float(one.augmentation_probability.numpy()) - 0.5)
    assert change in (pytest.approx(0.24), pytest.approx(0.08))


def test_augmentations_that_never_apply_change_nothing(films):
    plain, idle = build(), build(augmentations=ALL, augmentation_probability=0.0)
    for gan in (plain, idle):
        fit(gan, films, steps=2)
    assert same(weights(plain), weights(idle))


@pytest.mark.parametrize("side", ["real", "fake", "generator"])
def test_each_side_is_augmented(films, monkeypatch, side):
    # Of the three images that a step shows the discriminator, one alone is made paler.
    stream = {"real": 2, "fake": 3, "generator": 4}[side]
    plain, changed = build(), build(augmentations=("brightness",))

    def pale(images, wanted, index):
        return 0.5 * images if wanted == stream else images

    monkeypatch.setattr(changed, "_augment", pale)
    for gan in (plain, changed):
        fit(gan, films)
    differs = {
        owner: any(
            not np.array_equal(value, weights(plain)[name])
            for name, value in weights(changed).items()
            if name.startswith(f"{owner}/")
        )
        for owner in ("generator", "discriminator")
    }
    assert differs == {"generator": True, "discriminator": side != "generator"}


def test_every_purpose_and_step_draws_numbers_of_its_own():
    gan = build(augmentations=ALL)
    gan.critic_steps = 2
    rows = []
    for step in range(3):
        gan.step.assign(step)
        for index in range(2):
            for stream in range(5):
                rows += list(gan._draw(stream, index, 4, (6,), "unit").numpy())
    assert len(np.unique(np.array(rows), axis=0)) == len(rows) == 120


def test_the_generator_learns_through_the_augmentation(films, monkeypatch):
    gan = build(augmentations=ALL)
    before = [variable.numpy() for variable in gan.generator.trainable_variables]
    fit(gan, films)
    for start, variable in zip(before, gan.generator.trainable_variables):
        # A step of a scale near 1 is below its last digit.
        assert start.ndim == 1 or np.abs(start - variable.numpy()).max() > 0
    cut = build(augmentations=ALL)
    monkeypatch.setattr(cut, "_augment", lambda images, *others: tf.stop_gradient(images))
    with pytest.raises(ValueError, match="No gradients"):  # there is no way around it
        fit(cut, films)


def test_a_lazy_penalty_is_as_many_times_as_strong_and_as_rare(films):
    lazy = build(penalty="r1", penalty_weight=2.0, penalty_interval=3)
    strong, none = build(penalty="r1", penalty_weight=6.0), build()
    for gan in (lazy, strong):
        fit(gan, films)
    assert same(weights(lazy), weights(strong))  # due at the first update
    state.assign_state(none, weights(lazy))
    for gan in (lazy, none):
        history = fit(gan, films, steps=2, start=8)
    for name, value in weights(none).items():  # and then not for two
        np.testing.assert_allclose(weights(lazy)[name], value, atol=1e-6, err_msg=name)
    fit(lazy, films, start=24)
    fit(none, films, start=24)
    assert not same(weights(lazy), weights(none))
    assert "penalty_gradient_norm" not in history


def test_the_norm_that_is_logged_is_that_of_the_updates_with_a_penalty(films):
    every = fit(build(penalty="r1", learning_rate=0.0), films, steps=1)
    lazy = fit(build(penalty="r1", penalty_interval=4, learning_rate=0.0), films, steps=4)
    assert lazy["penalty_gradient_norm"][0] == pytest.approx(
        every["penalty_gradient_norm"][0], rel=1e-5
    )


def test_ada_follows_its_target_both_ways(films):
    gan = build(
        learning_rate=0.0,
        augmentations=("brightness",),
        augmentation_probability=0.5,
        augmentation_target=0.6,
        augmentation_ramp=400,
    )
    # A discriminator that is sure: with kernels above 0 and black films all logits have one sign.
    for variable in gan.discriminator.trainable_variables:
        variable.assign(np.abs(variable.numpy()))
    logits = gan.discriminator.get_layer("logits").kernel
    probabilities = []
    for sign in (1, 1, -1):
        logits.assign(sign * np.abs(logits.numpy()))
        history = fit(gan, films)
        probabilities.append((history["real_sign"][0], float(gan.augmentation_probability.numpy())))
    (first, a), (second, b), (third, c) = probabilities
    for before, signal, after in ((0.5, first, a), (a, second, b), (b, third, c)):
        assert after == pytest.approx(before + 0.02 * np.sign(signal - 0.6), abs=1e-6)
    assert len({np.sign(first - 0.6), np.sign(third - 0.6)}) == 2


def test_ada_holds_the_mean_of_several_batches_and_not_of_each(films):
    gan = build(
        augmentations=ALL,
        augmentation_probability=0.5,
        augmentation_target=0.6,
        augmentation_ramp=400,
        augmentation_memory=32,  # of batches of 8: a quarter of each new one
    )
    mean, probability = 0.0, 0.5
    for _ in range(3):
        mean += (fit(gan, films)["real_sign"][0] - mean) / 4
        probability += 0.02 * np.sign(mean - 0.6)
        assert float(gan.overfitting.numpy()) == pytest.approx(mean, abs=1e-6)
        assert float(gan.augmentation_probability.numpy()) == pytest.approx(probability, abs=1e-6)


def test_a_run_that_goes_on_has_ada_where_it_was(films, tmp_path):
    options = {
        "augmentations": ALL, "augmentation_probability": 0.3, "augmentation_target": 0.6,
        "augmentation_ramp": 1000, "augmentation_memory": 64, "penalty": "r1", "penalty_interval": 3,
    }  # fmt: skip
    whole, first, second = build(**options), build(**options), build(**options)
    fit(whole, films, steps=4)
    fit(first, films, steps=2)
    state.save_state(first, tmp_path)
    state.load_state(second, tmp_path)
    fit(second, films, steps=2, start=16)
    assert same(weights(whole), weights(second))
    assert {"augmentation_probability", "overfitting"} <= {*weights(whole)}


def test_consistency_keeps_the_images_and_asks_for_equal_answers(films):
    value = losses.consistency(tf.constant([[1.0], [3.0]]), tf.constant([[0.0], [5.0]]))
    assert float(value) == pytest.approx(2.5)
    options = {"augmentations": ALL, "learning_rate": 0.0}
    plain = fit(build(learning_rate=0.0), films)
    weak = fit(build(consistency_weight=1e-9, **options), films)
    strong = fit(build(consistency_weight=1e5, **options), films)
    assert weak["discriminator_loss"] == pytest.approx(plain["discriminator_loss"], rel=1e-6)
    assert strong["discriminator_loss"][0] > plain["discriminator_loss"][0] + 1e-5
    assert strong["generator_loss"] == pytest.approx(plain["generator_loss"], rel=1e-6)


def test_r1_holds_a_discriminator_as_much_at_every_size():
    recipe = Recipe.load("small_data")
    weights = tf.random.stateless_normal((32, 32, 1), seed=(0, 0))

    def held(size):
        """R1 of a discriminator that looks at the same 32x32 of an image of any size."""
        images = tf.zeros((2, size, size, 1))
        block = size // 32

        def discriminator(images):
            small = tf.nn.avg_pool2d(images, block, block, "VALID")
            return tf.reduce_sum(small * weights, axis=[1, 2, 3])[:, None]

        penalty, _ = losses.r1_penalty(discriminator, images)
        return penalty_weight(recipe.override(image_size=size)) * float(penalty)

    assert held(64) == pytest.approx(0.05 * float(tf.reduce_sum(weights**2)) / 2 / 4, rel=1e-5)
    assert held(32) == pytest.approx(held(64), rel=1e-5)
    assert held(256) == pytest.approx(held(64), rel=1e-5)


def test_the_weight_of_a_penalty_reaches_the_gan_at_its_size():
    recipe = Recipe.load("small_data").override(image_size=128, width=2, penalty_weight=0.5)
    assert build_gan(recipe).penalty_weight == 2.0
    assert build_gan(recipe.override(penalty_size=0)).penalty_weight == 0.5
    with pytest.raises(ValueError, match="set penalty_size=0 with gradient_penalty"):
        recipe.override(penalty="gradient_penalty", penalty_weight=10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"augmentation_target": 0.6}, "need augmentations"),
        ({"penalty_interval": 0}, "penalty_interval must be 1 or more, got 0"),
    ],
)
def test_what_does_not_go_together_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_recipes_know_the_augmentations_that_there_are():
    assert rules.AUGMENTATIONS == ALL
