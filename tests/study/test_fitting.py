"""Classifiers are fitted alike in every arm: steps, tuning and choice do not see the arm's size."""

import keras
import numpy as np
import pytest

from keras_cxrgan.data.augmentation import ClassicAugmentation
from keras_cxrgan.study import fitting
from keras_cxrgan.study.fitting import balanced_weights, film_order, fit_classifier, predict


def network(classes=2):
    images = x = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(images, keras.layers.Dense(classes)(x))


def bright_and_dark(count, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    levels = np.where(labels, 160, 96)[:, None, None] + random.normal(0, 20, (count, 8, 8))
    return np.clip(levels, 0, 255).astype(np.uint8), labels


def fit(images, labels, **options):
    options = {"classes": 2, "network": network, "steps": 20, "batch_size": 4} | options
    return fit_classifier(images, labels, **options)


@pytest.fixture
def spy(monkeypatch):
    """Everything that any network is trained on, as [(images, labels, weights) of each step]."""
    seen = []
    real = keras.Model.fit

    def look(self, batches, **options):
        seen.extend(batches.as_numpy_iterator())
        return real(self, batches, **options)

    monkeypatch.setattr(keras.Model, "fit", look)
    return seen


def test_an_arm_of_more_films_is_not_trained_longer(spy):
    models = [fit(*bright_and_dark(count))[0] for count in (6, 100)]
    assert [int(model.optimizer.iterations.numpy()) for model in models] == [20, 20]
    assert len(spy) == 40 and {batch[0].shape for batch in spy} == {(4, 8, 8, 1)}


def test_a_networks_step_is_traced_once():
    """A large network's takes a minute, and Keras takes two where the optimizer is not built."""
    traced = []

    class Recorded(keras.layers.Layer):
        def call(self, x, training=False):
            if training:
                traced.append(x.shape)
            return x

    def recorded():
        images = keras.Input((8, 8, 1))
        x = keras.layers.Flatten()(Recorded()(images))
        return keras.Model(images, keras.layers.Dense(2)(x))

    fit(*bright_and_dark(8), network=recorded, steps=3)
    assert traced == [(4, 8, 8, 1)]


def test_every_film_is_shown_once_before_any_is_shown_again():
    order = film_order(np.zeros(7, int), 20, seed=3)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert list(order[:7]) != list(order[7:14])
    assert list(order) == list(film_order(np.zeros(7, int), 20, seed=3))
    assert list(order) != list(film_order(np.zeros(7, int), 20, seed=4))


def test_oversampling_shows_a_rare_class_as_often_as_the_others():
    labels = np.array([0] * 90 + [1] * 10)
    shown = labels[film_order(labels, 2000, seed=0, oversample=True)]
    assert 0.45 < shown.mean() < 0.55
    assert labels[film_order(labels, 2000, seed=0)].mean() == 0.1


def test_class_weights_reach_the_loss_and_leave_its_scale(spy):
    labels = np.array([0, 0, 0, 1])
    weights = balanced_weights(labels, 2)
    assert weights == [2 / 3, 2.0]
    assert np.mean(np.array(weights)[labels]) == 1
    fit(bright_and_dark(4)[0], labels, steps=3, class_weights=weights)
    for _, shown, given in spy:
        np.testing.assert_allclose(given, np.where(shown == 1, 2.0, 2 / 3), rtol=1e-6)


def test_films_are_scaled_and_not_changed_without_augmentation(spy):
    images, labels = bright_and_dark(4)
    fit(images, labels, steps=1)
    shown = np.rint((spy[0][0][..., 0] + 1) * 127.5).astype(np.uint8)
    assert sorted(map(bytes, shown)) == sorted(map(bytes, images))


def test_augmentation_changes_a_film_in_another_way_each_time(spy):
    images, labels = bright_and_dark(2)
    fit(images, labels, steps=4, batch_size=2, augmentation=ClassicAugmentation(probability=1.0))
    shown = {bytes(film) for batch in spy for film in batch[0]}
    assert len(shown) == 8


def test_it_learns_and_repeats_itself():
    images, labels = bright_and_dark(40)
    first, second = (fit(images, labels, steps=60, seed=5)[0] for _ in range(2))
    others = bright_and_dark(40, seed=1)
    probabilities = predict(first, others[0])
    assert np.mean(probabilities.argmax(axis=1) == others[1]) > 0.95
    np.testing.assert_array_equal(probabilities, predict(second, others[0]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    # With dropout at work, as in the code of Davoodi & Lo Giudice, no two calls would agree.
    np.testing.assert_array_equal(probabilities, predict(first, others[0]))


def test_the_state_is_chosen_on_the_validation_films_and_nothing_else():
    images, labels = bright_and_dark(40)
    # Validation films whose labels are the wrong way round: the less was learnt, the better.
    _, history = fit(images, labels, steps=40, validation=(images, 1 - labels), checks=4)
    assert [check["step"] for check in history["tried"][0]["checks"]] == [10, 20, 30, 40]
    assert history["chosen_step"] == 10
    _, history = fit(images, labels, steps=40, validation=(images, labels), checks=4)
    assert history["chosen_step"] > 10


def test_the_chosen_state_is_the_one_returned():
    images, labels = bright_and_dark(40)
    model, history = fit(images, labels, steps=40, validation=(images, 1 - labels), checks=4)
    loss = fitting.balanced_loss(1 - labels, predict(model, images))
    assert loss == history["tried"][0]["checks"][0]["validation_loss"]


def test_the_better_learning_rate_is_chosen_and_both_are_told():
    images, labels = bright_and_dark(40)
    rates = (1e-6, 1e-2)
    _, history = fit(images, labels, learning_rate=rates, validation=(images, labels))
    assert history["learning_rate"] == 1e-2
    assert [tried["learning_rate"] for tried in history["tried"]] == list(rates)


def test_a_rare_class_counts_as_much_when_a_state_is_chosen():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.5, 0.5]] * 3 + [[0.9, 0.1]])
    expected = (np.log(2) + np.log(10)) / 2
    assert fitting.balanced_loss(labels, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": (1e-3, 1e-4)}, "no validation films to choose by"),
        ({"steps": 0}, "steps 0"),
        ({"class_weights": [1.0]}, "1 class weights for 2 classes"),
        ({"network": lambda: network(3)}, "3 outputs for 2 classes"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(changed, said):
    with pytest.raises(ValueError, match=said) as error:
        fit(*bright_and_dark(4), **changed)
    assert "\n" not in str(error.value)


def test_floats_and_labels_out_of_range_are_refused():
    images, labels = bright_and_dark(4)
    with pytest.raises(ValueError, match="uint8"):
        fit(images / 255, labels)
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        fit(images, labels + 1)


def test_a_frozen_stage_takes_its_steps_from_the_same_number(monkeypatch, spy):
    def freezable():
        images = keras.Input((8, 8, 1))
        x = keras.layers.BatchNormalization(name="base")(images)
        model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
        model.get_layer("base").trainable = False
        return model

    rates = []

    def thaw(model):
        rates.append(float(model.optimizer.learning_rate.numpy()))
        model.get_layer("base").trainable = True

    monkeypatch.setattr(fitting, "unfreeze", thaw)
    images, labels = bright_and_dark(40)
    # Labels the wrong way round: the best state lies in the frozen stage.
    model, history = fit(
        images, labels, network=freezable, steps=20, checks=4, frozen_steps=8,
        learning_rate=0.01, validation=(images, 1 - labels),
    )  # fmt: skip
    assert rates == [pytest.approx(0.01)]
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(0.001)
    assert int(model.optimizer.iterations.numpy()) == 12
    checks = history["tried"][0]["checks"]
    assert [check["step"] for check in checks] == [5, 10, 15, 20]
    assert len(spy) == 20
    best = min(check["validation_loss"] for check in checks)
    assert fitting.balanced_loss(1 - labels, predict(model, images)) == best


def test_a_learning_rate_that_diverges_leaves_the_choice_to_the_others():
    options = {"optimizer": "sgd", "steps": 6, "checks": 1}
    options["validation"] = bright_and_dark(6, seed=1)
    rates = (1e-3, 3e38)
    _, history = fit(*bright_and_dark(12), learning_rate=rates, **options)
    assert history["learning_rate"] == 1e-3
    failed = [each.get("failed", "") for each in history["tried"]]
    assert failed[0] == "" and "give a smaller learning rate" in failed[1]
    with pytest.raises(fitting.Diverged, match="give a smaller learning rate"):
        fit(*bright_and_dark(12), learning_rate=rates[1:], **options)
