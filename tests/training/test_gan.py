import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import runtime, state
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.noise import indexed_latents


def build(
    strategy=None, *, normalization="batch", ema_half_life=0, seed=0, learning_rate=0.01, **compiled
):
    """A small GAN whose plain gradient descent shows a wrong gradient scale (Adam would hide it)."""
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        synchronized = strategy.num_replicas_in_sync > 1
        gan = GAN(
            build_generator(32, latent_dim=8, width=4, max_width=8, synchronized=synchronized),
            build_discriminator(
                32, width=4, max_width=8, normalization=normalization, synchronized=synchronized
            ),
            ema_half_life=ema_half_life,
            seed=seed,
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


def fit(gan, films, steps=1, batch=8, start=0):
    data = training_batches(films, batch, seed=3, start=start)
    return gan.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0).history


def weights(network):
    return [variable.numpy() for variable in network.variables]


@pytest.fixture(scope="module")
def two_replicas():
    return runtime.start("cpu:2")


@pytest.mark.parametrize(
    "options",
    [
        {"ema_half_life": 64},
        {
            "loss": "wasserstein",
            "penalty": "gradient_penalty",
            "normalization": "instance",
            "critic_steps": 2,
        },
    ],
)
def test_a_step_on_two_replicas_is_the_step_on_one(films, two_replicas, options):
    one, two = build(**options), build(two_replicas, **options)
    batch = 8 * options.get("critic_steps", 1)
    logs = [fit(gan, films, steps=2, batch=batch) for gan in (one, two)]
    networks = ["generator", "discriminator"] + ["ema_generator"] * bool(one.ema_generator)
    initial = build(**options)
    for name in networks:
        before = weights(getattr(initial, name))
        after_one, after_two = (weights(getattr(gan, name)) for gan in (one, two))
        moved = max(np.abs(a - b).max() for a, b in zip(after_one, before))
        assert moved > 1e-3  # otherwise equality would show nothing
        for ours, theirs in zip(after_two, after_one):
            # A doubled gradient, or different noise, would differ by about `moved`.
            np.testing.assert_allclose(ours, theirs, atol=moved * 1e-3)
    for name in ("discriminator_loss", "generator_loss"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-3)
    assert int(two.images_seen.numpy()) == int(one.images_seen.numpy()) == 2 * batch


def build_grown(strategy=None):
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    growth = {
        "width": 2, "growth_width": (2,), "grown_from": 32, "fade_in": 32,
        "synchronized": strategy.num_replicas_in_sync > 1,
    }  # fmt: skip
    with strategy.scope():
        gan = GAN(
            build_generator(64, latent_dim=4, **growth),
            build_discriminator(64, **growth),
            ema_half_life=64,
        )
        gan.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01), jit_compile=False)
    return gan


def test_a_grown_pair_fades_and_learns_the_same_on_two_replicas(films, two_replicas):
    one, two, initial = build_grown(), build_grown(two_replicas), build_grown()
    large = films.repeat(2, axis=1).repeat(2, axis=2)
    for gan in (one, two):
        fit(gan, large, steps=3)
        # The average fades with its generator.
        assert [float(layer.alpha.numpy()) for layer in gan.fading] == [0.75, 0.75, 0.75]
    for name in ("generator", "discriminator", "ema_generator"):
        before, after_one, after_two = (weights(getattr(g, name)) for g in (initial, one, two))
        moved = max(np.abs(a - b).max() for a, b in zip(after_one, before))
        assert moved > 1e-3
        for ours, theirs in zip(after_two, after_one):
            np.testing.assert_allclose(ours, theirs, atol=moved * 1e-3)


def test_accumulated_halves_are_one_step_along_their_mean_gradient(films):
    gan = build(normalization=None)
    rate = 0.05
    gan.compile(
        *(keras.optimizers.SGD(rate, gradient_accumulation_steps=2) for _ in range(2)),
        jit_compile=False,
    )
    halves = [batch for batch, _ in zip(training_batches(films, 4, seed=3), range(2))]
    before = [variable.numpy() for variable in gan.discriminator.trainable_variables]
    expected = []
    for step, half in enumerate(halves):
        gan.step.assign(step)
        fake_images = gan.generator(gan._draw_latents(0, 0, 4), training=True)
        with tf.GradientTape() as tape:
            loss = gan.discriminator_loss(gan.discriminator(half), gan.discriminator(fake_images))
        expected.append(tape.gradient(loss, gan.discriminator.trainable_variables))
    gan.step.assign(0)
    generator = weights(gan.generator)[0]
    fit(gan, films, steps=1, batch=4)
    for variable, start in zip(gan.discriminator.trainable_variables, before):
        np.testing.assert_array_equal(variable.numpy(), start)  # the first half only waits
    fit(gan, films, steps=1, batch=4, start=4)
    for variable, start, first, second in zip(
        gan.discriminator.trainable_variables, before, *expected
    ):
        step = rate * (first.numpy() + second.numpy()) / 2
        assert np.abs(step).max() > 1e-6
        np.testing.assert_allclose(start - variable.numpy(), step, rtol=1e-3, atol=1e-7)
    assert np.abs(weights(gan.generator)[0] - generator).max() > 0


def test_latents_differ_between_replicas_and_make_up_the_global_batch(two_replicas):
    one, two = build(), build(two_replicas)
    parts = two_replicas.experimental_local_results(
        two_replicas.run(lambda: two._draw_latents(0, 0, 3))
    )
    together = np.concatenate([part.numpy() for part in parts])
    assert len(np.unique(together[:, 0])) == 6
    np.testing.assert_array_equal(together, one._draw_latents(0, 0, 6))


def test_batch_statistics_agree_on_all_replicas(films, two_replicas):
    gan = build(two_replicas)
    fit(gan, films, steps=2)
    for network in (gan.generator, gan.discriminator):
        for variable in network.non_trainable_variables:
            first, second = (
                copy.numpy() for copy in two_replicas.experimental_local_results(variable.value)
            )
            np.testing.assert_array_equal(first, second)


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(films):
    runs = []
    for seed in (0, 0, 1):
        gan = build(seed=seed)
        fit(gan, films, steps=3)
        runs.append(weights(gan.generator))
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1]))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2]))


def test_generator_learns_from_the_discriminator(films):
    # A discriminator that cannot learn must still teach: D(G(z)) rises as the generator follows.
    gan = build(learning_rate=0.05)
    gan.discriminator_optimizer.learning_rate.assign(0.0)
    scores = [fit(gan, films, steps=5)["fake_score_after"][0] for _ in range(3)]
    assert scores[0] < scores[1] < scores[2]


def test_a_wgan_step_lowers_the_critics_loss_on_its_own_batch(films):
    gan = build(loss="wasserstein", normalization="instance", learning_rate=0.02)
    gan.generator_optimizer.learning_rate.assign(0.0)
    estimates = [fit(gan, films, steps=4)["wasserstein_estimate"][0] for _ in range(3)]
    assert estimates[0] < estimates[1] < estimates[2]


def test_scores_before_and_after_the_update_are_of_the_same_images(films):
    def scores(learning_rate):
        gan = build(learning_rate=learning_rate, normalization=None)
        gan.discriminator.set_weights([10 * value for value in weights(gan.discriminator)])
        history = fit(gan, films)
        return history["fake_score_before"][0], history["fake_score_after"][0]

    before, after = scores(learning_rate=0.0)
    assert before == pytest.approx(after, abs=1e-6)  # only other images could change it
    before, after = scores(learning_rate=0.1)
    assert abs(before - after) > 1e-3


def test_every_critic_step_sees_fresh_images(films, monkeypatch):
    gan = build(normalization="instance", critic_steps=3)
    seen = []
    monkeypatch.setattr(
        gan, "_update_discriminator", lambda index, real, fake, labels: seen.append(real)
    )
    batch = next(iter(training_batches(films, 12)))
    gan.train_step(batch)
    assert len(seen) == 3
    np.testing.assert_array_equal(np.stack(seen, axis=1).reshape(batch.shape), batch)


def test_average_of_the_generator_follows_its_half_life():
    gan = build(ema_half_life=16)
    start = [np.ones_like(value) for value in weights(gan.generator)]
    gan.ema_generator.set_weights(start)
    gan.generator.set_weights([3 * value for value in start])
    gan.images_seen.assign(10_000)  # past the start, when the memory is shorter
    gan._average_generator(tf.constant(16, tf.int64))
    for value in weights(gan.ema_generator):
        np.testing.assert_allclose(value, 2.0, rtol=1e-5)  # half way after one half-life


def test_average_forgets_the_initial_weights_early():
    gan = build(ema_half_life=1_000_000)
    gan.ema_generator.set_weights([0 * value for value in weights(gan.generator)])
    gan.generator.set_weights([1 + 0 * value for value in weights(gan.generator)])
    for _ in range(40):
        gan._average_generator(tf.constant(32, tf.int64))
        gan.images_seen.assign_add(32)
    assert all((value > 0.95).all() for value in weights(gan.ema_generator))


def test_generated_image_depends_on_seed_and_index_alone():
    gan = build()
    together = gan.generate(7, seed=5, batch_size=7)
    parts = gan.generate(3, seed=5, start=4, batch_size=2)
    np.testing.assert_allclose(parts, together[4:], atol=1e-6)
    assert not np.allclose(gan.generate(1, seed=6), together[:1])
    assert together.shape == (7, 32, 32, 1) and together.dtype == np.float32


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_truncation_bounds_the_latents(distribution):
    free = indexed_latents(0, 0, 200, 50, distribution).numpy()
    kept = indexed_latents(0, 0, 200, 50, distribution, truncation=0.7).numpy()
    assert np.abs(free).max() > 0.9
    assert 0.65 < np.abs(kept).max() <= 0.7 + 1e-5
    assert abs(kept.mean()) < 0.02


def test_latents_have_the_distribution_they_are_named_for():
    normal = indexed_latents(1, 0, 300, 100, "normal").numpy()
    assert normal.mean() == pytest.approx(0, abs=0.02)
    assert normal.std() == pytest.approx(1, abs=0.02)
    uniform = indexed_latents(1, 0, 300, 100, "uniform").numpy()
    assert uniform.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)
    assert uniform.min() >= -1 and uniform.max() <= 1


@pytest.mark.parametrize("loss", ["minimax", "hinge", "least_squares"])
def test_other_losses_train_with_finite_numbers(films, loss):
    history = fit(build(loss=loss), films, steps=2)
    assert all(np.isfinite(values).all() for values in history.values())


def test_r1_and_label_smoothing_train_with_finite_numbers(films):
    history = fit(build(penalty="r1", normalization=None, label_smoothing=0.1), films, steps=2)
    assert history["penalty_gradient_norm"][0] > 0


def test_a_penalty_is_of_float32_whatever_the_precision(films):
    """In bfloat16 a gradient's norm would differ in its third digit."""
    norms = {}
    for precision in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(precision)
        gan = build(penalty="r1", normalization=None)
        norms[precision] = fit(gan, films)["penalty_gradient_norm"][0]
        inside = {layer.compute_dtype for layer in gan.discriminator.layers}
        assert ("bfloat16" in inside) == (precision == "mixed_bfloat16")
    assert norms["mixed_bfloat16"] == pytest.approx(norms["float32"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "bce"}, "loss must be one of non_saturating"),
        ({"penalty": "gp"}, "penalty must be gradient_penalty, r1 or None, got 'gp'"),
        ({"critic_steps": 0}, "critic_steps must be 1 or more, got 0"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing does not apply"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    gan = GAN(build_generator(32, width=4), build_discriminator(32, width=4))
    with pytest.raises(ValueError, match=message):
        gan.compile(keras.optimizers.Adam(), keras.optimizers.Adam(), **arguments)


def test_networks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="give both the same size"):
        GAN(build_generator(32, width=4), build_discriminator(64, width=4))


def test_logged_numbers_are_plain_means_of_the_steps(films, two_replicas):
    for strategy in (None, two_replicas):
        steps = []

        class Keep(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None, steps=steps):
                steps.append(float(logs["discriminator_loss"]))

        gan = build(strategy)
        variables = state.state_variables(gan).values()
        before = [variable.numpy() for variable in variables]
        data = training_batches(films, 8, seed=3)
        gan.fit(data, epochs=3, steps_per_epoch=1, shuffle=False, verbose=0, callbacks=[Keep()])
        for variable, value in zip(variables, before):
            variable.assign(value)
        whole = fit(gan, films, steps=3)["discriminator_loss"][0]
        assert len(set(steps)) == 3
        assert whole == pytest.approx(np.mean(steps), rel=1e-4)
