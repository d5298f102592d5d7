"""The train step of a conditional pair: each image is made, judged and learnt by its own label."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import runtime, state
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.noise import class_of

LABELS = np.arange(40) % 3


def build_conditional(strategy=None, *, critic_steps=1, learning_rate=0.01):
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    sizes = {"width": 4, "max_width": 8, "classes": 3}
    with strategy.scope():
        synchronized = strategy.num_replicas_in_sync > 1
        gan = GAN(
            build_generator(32, latent_dim=8, synchronized=synchronized, **sizes),
            build_discriminator(32, normalization="instance", **sizes),
            ema_half_life=64,
            class_shares=(14, 13, 13),
        )
        gan.compile(
            keras.optimizers.SGD(learning_rate),
            keras.optimizers.SGD(learning_rate),
            critic_steps=critic_steps,
            jit_compile=False,
            # On one replica without a graph, whose making is most of what these tests take.
            run_eagerly=strategy.num_replicas_in_sync == 1,
        )
    return gan


def fit_labelled(gan, films, steps=1, start=0, labels=LABELS, **options):
    data = training_batches(films, 8, seed=3, start=start, labels=labels)
    gan.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, **options)
    return [
        value
        for network in (gan.generator, gan.discriminator, gan.ema_generator)
        for value in network.get_weights()
    ]


def test_each_image_is_judged_by_its_own_label_and_fakes_are_made_of_the_same(films, monkeypatch):
    gan = build_conditional(critic_steps=2)
    seen = []
    labelled = gan._labelled

    def watched(inputs, labels=None):
        seen.append((np.asarray(inputs), np.asarray(labels)))
        return labelled(inputs, labels)

    monkeypatch.setattr(gan, "_labelled", watched)
    images, labels = next(iter(training_batches(films, 12, labels=LABELS)))
    label_of = {image.tobytes(): label for image, label in zip(images.numpy(), labels.numpy())}
    gan.train_step((images, labels))
    real = [given for given in seen if given[0][:1].tobytes() in label_of]
    made = [given for given in seen if given[0].ndim == 2]
    assert len(real) == len(made) == 2
    for (shown, of_shown), (_, of_latents) in zip(real, made):
        assert [label_of[image.tobytes()] for image in shown] == of_shown.tolist()
        assert of_latents.tolist() == of_shown.tolist()
    # Two critic steps judge real and fake, and the generator is judged once more.
    assert len([given for given in seen if given[0].ndim == 4]) == 5


def test_a_class_learns_from_its_own_images_alone(films):
    gan = build_conditional(learning_rate=0.1)

    def of_class():
        return {
            variable.path: variable.numpy()
            for network in (gan.generator, gan.discriminator)
            for variable in network.trainable_variables
            if "class_" in variable.path or "projection" in variable.path
        }

    before = of_class()
    fit_labelled(gan, films, labels=np.ones(40, int))
    moved = {path: np.abs(value - before[path]) for path, value in of_class().items()}
    assert len(moved) > 3
    for path, distance in moved.items():
        # The generator's kernels are (class, map), that of the projection (map, class).
        distance = distance.T if "projection" in path else distance
        assert distance[1].max() > 0, path
        np.testing.assert_array_equal(distance[[0, 2]], 0, err_msg=path)


def test_labelled_steps_on_two_replicas_are_those_on_one(films):
    initial = build_conditional()
    before = [
        w for network in (initial.generator, initial.discriminator) for w in network.get_weights()
    ]
    one = fit_labelled(build_conditional(), films, steps=2)
    two = fit_labelled(build_conditional(runtime.start("cpu:2")), films, steps=2)
    moved = max(np.abs(a - b).max() for a, b in zip(one, before))
    assert moved > 1e-3
    for ours, theirs in zip(two, one):
        np.testing.assert_allclose(ours, theirs, atol=moved * 1e-3)


def test_a_labelled_run_that_goes_on_is_the_run_without_a_break(films, tmp_path):
    first, second = build_conditional(), build_conditional()
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch or state.save_state(first, tmp_path)
    )
    whole = fit_labelled(first, films, steps=2, epochs=2, callbacks=[save])
    assert state.load_state(second, tmp_path) == (16, [])
    resumed = fit_labelled(second, films, steps=2, start=16)
    for ours, theirs in zip(resumed, whole):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_images_of_a_class_or_of_all_in_their_shares():
    gan = build_conditional()
    # Classes begin alike, with scales of 1 and offsets of 0.
    random = np.random.default_rng(0)
    for network in (gan.generator, gan.ema_generator):
        network.set_weights([w + random.normal(0, 0.3, w.shape) for w in network.get_weights()])
    of_each = [gan.generate(5, seed=2, label=label) for label in range(3)]
    assert np.abs(of_each[0] - of_each[1]).max() > 0.01 < np.abs(of_each[1] - of_each[2]).max()
    drawn = class_of(tf.range(5), gan.class_shares).numpy()
    assert len(set(drawn)) == 3
    expected = np.stack([of_each[label][index] for index, label in enumerate(drawn)])
    np.testing.assert_allclose(gan.generate(5, seed=2), expected, atol=1e-6)


def test_networks_of_different_classes_are_refused():
    generator = build_generator(32, width=4, classes=2)
    with pytest.raises(ValueError, match="generator has 2 classes, the discriminator 0"):
        GAN(generator, build_discriminator(32, width=4), class_shares=(1, 1))
    with pytest.raises(ValueError, match="class_shares 3"):
        GAN(generator, build_discriminator(32, width=4, classes=2), class_shares=(1, 1, 1))
