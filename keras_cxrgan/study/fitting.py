"""Fit a classifier on one arm's films: as many optimizer steps and as much tuning in every arm.

What differs between arms is what the batches hold. The number of steps, the batch size, the
learning rates tried and the films on which a state is chosen are arguments that do not depend on
how many films there are: with epochs instead of steps, an arm of twice the films would be trained
twice as long, and longer training alone can look like a better data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.data.augmentation import ClassicAugmentation, augment
from keras_cxrgan.models.classifier import unfreeze
from keras_cxrgan.study.classification import softmax

CHECKS = 10
"""How often a training is looked at, unless it is told otherwise."""

PREDICTED_AT_ONCE = 64

OPTIMIZERS: Mapping[str, Callable[[float], keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
}


class Diverged(ValueError):
    """A learning rate that makes the loss infinite; of several, the others are still tried."""


def fit_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    network: Callable[[], keras.Model],
    steps: int,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float | Sequence[float] = 1e-3,
    seed: int = 0,
    oversample: bool = False,
    class_weights: Sequence[float] | None = None,
    augmentation: ClassicAugmentation | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    checks: int = CHECKS,
    frozen_steps: int = 0,
) -> tuple[keras.Model, dict]:
    """Fit a network on uint8 films (N, S, S) with labels (N,); return it and its history.

    All `steps` are always made, with cross-entropy. With `validation` the state that is
    returned is the best of `checks` equally spaced ones, and of all learning rates, by the mean
    over classes of the cross-entropy of these films; without, it is the last one.

    Args:
        classes: number of classes, K.
        network: () -> fresh model of logits (N, K) from images (N, S, S, C) in [-1, 1].
        optimizer: a name in `OPTIMIZERS`.
        learning_rate: one, or several, each of which is trained from the start.
        seed: of initial weights, the order of the films, and their augmentation.
        oversample: every batch has the classes in equal shares, on average.
        class_weights: weight of each class in the loss.
        augmentation: changes every film anew each time it is shown.
        validation: (images, labels) of other patients, but not of those tested on.
        frozen_steps: of InceptionV3, the steps before `unfreeze`; those after it are made at a
            tenth of the learning rate.

    Raises `Diverged` when no learning rate ends with a finite loss, and `ValueError` for arrays
    and numbers that cannot be, and several learning rates without
    films to choose by.

    Example:
        >>> model, history = fit_classifier(  # doctest: +SKIP
        ...     images, labels, classes=2, network=lambda: build_small_cnn(64, classes=2), steps=500
        ... )
    """
    images, labels = _checked(images, labels, classes, "training")
    rates = [float(rate) for rate in np.atleast_1d(learning_rate)]
    if steps < 1 or batch_size < 1 or checks < 1 or not 0 <= frozen_steps < steps:
        raise ValueError(
            f"steps {steps}, batch_size {batch_size}, checks {checks}, frozen_steps"
            f" {frozen_steps}: 1 or more are needed, and fewer frozen steps than steps"
        )
    if validation is not None:
        validation = _checked(*validation, classes, "validation")
    elif len(rates) > 1:
        raise ValueError(
            f"{len(rates)} learning rates and no validation films to choose by: give one"
        )
    if class_weights is not None and len(class_weights) != classes:
        raise ValueError(f"{len(class_weights)} class weights for {classes} classes")
    order = film_order(labels, steps * batch_size, seed, oversample)
    weights = np.ones(classes) if class_weights is None else np.asarray(class_weights)
    best, tried = None, []
    for rate in rates:
        # Anew for each, so that what one learning rate gives does not depend on the others.
        keras.utils.set_random_seed(seed % 2**32)
        model = network()
        if model.output_shape[-1] != classes:
            raise ValueError(
                f"the network has {model.output_shape[-1]} outputs for {classes} classes"
            )
        watch = _Watch(validation, max(1, steps // checks), steps, rate)
        batches = _batches(
            images, labels, order, batch_size, seed, weights, augmentation, model.input_shape[-1]
        )
        began, failed = time.perf_counter(), None
        for first, last in ((0, frozen_steps), (frozen_steps, steps)):
            if first == last:
                continue
            if first:
                unfreeze(model)
            model.compile(
                OPTIMIZERS[optimizer](rate / 10 if first else rate),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=False,
            )
            # A step that creates the optimizer's variables would be traced twice.
            model.optimizer.build(model.trainable_variables)
            watch.step = first
            try:
                model.fit(
                    batches.skip(first).take(last - first),
                    epochs=1,
                    steps_per_epoch=last - first,
                    verbose=0,
                    shuffle=False,
                    callbacks=[watch],
                )
            except Diverged as error:
                failed = error
                break
        if failed:
            seconds = time.perf_counter() - began
            tried.append({"learning_rate": rate, "failed": str(failed), "seconds": seconds})
            continue
        watch.finish(model)
        tried.append(watch.history | {"seconds": time.perf_counter() - began})
        if best is None or watch.best < best[0]:
            best = (watch.best, model, len(tried) - 1)
    if best is None:
        raise failed
    _, model, chosen = best
    history = {
        "films": len(labels),
        "films_of_class": np.bincount(labels, minlength=classes).tolist(),
        "steps": steps,
        "batch_size": batch_size,
        "oversampled": oversample,
        "class_weights": None if class_weights is None else [float(w) for w in class_weights],
        "augmented": augmentation is not None,
        "validation_films": 0 if validation is None else len(validation[1]),
        "chosen": chosen,
        "learning_rate": rates[chosen],
        "chosen_step": tried[chosen]["chosen_step"],
        "seconds": sum(each["seconds"] for each in tried),
        "tried": tried,
    }
    return model, history


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, K), float64, that a network of logits gives uint8 films.

    The network is in inference mode: no dropout, and the statistics that training has left.
    """
    logits = []
    for first in range(0, len(images), PREDICTED_AT_ONCE):
        some = images[first : first + PREDICTED_AT_ONCE]
        # Whole batches always: another size would be another graph to trace, at seconds each.
        full = np.resize(some, (PREDICTED_AT_ONCE, *some.shape[1:]))
        logits.append(model.predict_on_batch(_floats(full, model))[: len(some)])
    return softmax(np.concatenate(logits))


def predict_in_training_mode(model: keras.Model, images: np.ndarray, passes: int) -> np.ndarray:
    """Return the classes (passes, N) that a network left in training mode gives uint8 films.

    Dropout is on, and all films are one batch, whose own statistics normalize it: how Davoodi &
    Lo Giudice 2021 tested, and not how a network should be. The network is left as it was.
    """
    films = tf.constant(_floats(images, model))
    # Batch normalization remembers what it has seen, and dropout how often it has drawn.
    before = [(variable, variable.numpy()) for variable in model.variables]
    forward = tf.function(lambda: tf.argmax(model(films, training=True), axis=1))
    try:
        return np.stack([forward().numpy() for _ in range(passes)])
    finally:
        for variable, value in before:
            variable.assign(value)


def film_order(labels: np.ndarray, count: int, seed: int, oversample: bool = False) -> np.ndarray:
    """Return which film is shown at each of `count` places, (count,) int64.

    Pass after pass, each film once in each, anew shuffled. With `oversample` a place goes to any
    class with equal chance, and within a class the films come in such passes.

    >>> sorted(film_order(np.array([0, 0, 1]), 3, seed=0).tolist())
    [0, 1, 2]
    """
    random = np.random.default_rng([seed, 1])
    if not oversample:
        return _passes(np.arange(len(labels)), count, random)
    present = np.unique(labels)
    drawn = random.integers(0, len(present), count)
    order = np.empty(count, np.int64)
    for number, label in enumerate(present):
        places = np.flatnonzero(drawn == number)
        order[places] = _passes(np.flatnonzero(labels == label), len(places), random)
    return order


def balanced_weights(labels: np.ndarray, classes: int) -> list[float]:
    """Return the weight of each class that makes all classes count alike, of mean 1 over films.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
    [0.6666666666666666, 2.0]
    """
    films = np.bincount(labels, minlength=classes)
    present = int(np.sum(films > 0))
    return [len(labels) / (present * count) if count else 0.0 for count in films.tolist()]


def balanced_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the cross-entropy of each class's films, averaged over the classes."""
    of_film = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    return float(np.mean([of_film[labels == label].mean() for label in np.unique(labels)]))


def _passes(films: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    passes: Iterator = (random.permutation(films) for _ in range(-(-count // len(films))))
    return np.concatenate([*passes, films[:0]])[:count]


def _batches(images, labels, order, batch_size, seed, weights, augmentation, channels):
    size = images.shape[1:]

    def fetch(first):
        places = np.arange(first, first + batch_size)
        chosen = images[order[places]]
        if augmentation is not None:
            # The place decides, so that a film is changed in another way in each pass.
            chosen = np.stack(
                [
                    augment(image, augmentation, np.random.default_rng([seed, 2, place]))
                    for image, place in zip(chosen, places.tolist())
                ]
            )
        numbers = labels[order[places]]
        return chosen, numbers, weights[numbers].astype(np.float32)

    def load(first):
        chosen, numbers, weight = tf.numpy_function(
            fetch, [first], (tf.uint8, tf.int64, tf.float32), stateful=False
        )
        chosen.set_shape((batch_size, *size))
        numbers.set_shape((batch_size,))
        weight.set_shape((batch_size,))
        chosen = tf.cast(chosen[..., None], tf.float32) / 127.5 - 1.0
        return tf.repeat(chosen, channels, axis=-1), numbers, weight

    options = tf.data.Options()
    options.autotune.enabled = False  # see data/batches.py
    options.deterministic = True
    firsts = tf.data.Dataset.range(0, len(order), batch_size)
    return firsts.map(load, num_parallel_calls=2).prefetch(2).with_options(options)


class _Watch(keras.callbacks.Callback):
    """Looks at the validation films every so many steps and keeps the best weights."""

    def __init__(self, validation, interval: int, steps: int, rate: float):
        super().__init__()
        self.validation, self.interval, self.steps = validation, interval, steps
        self.step, self.best, self.weights = 0, float("inf"), None
        self.history = {"learning_rate": rate, "chosen_step": steps, "checks": []}

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"the loss of the classifier is {logs['loss']} at step {self.step}: give a smaller"
                " learning rate (--learning-rates)"
            )
        if self.step % self.interval and self.step != self.steps:
            return
        check = {"step": self.step, "loss": float(logs["loss"])}
        if self.validation is not None:
            films, labels = self.validation
            probabilities = predict(self.model, films)
            check["validation_loss"] = balanced_loss(labels, probabilities)
            check["validation_accuracy"] = float(np.mean(probabilities.argmax(axis=1) == labels))
            if check["validation_loss"] < self.best:
                self.best, self.weights = check["validation_loss"], self.model.get_weights()
                self.history["chosen_step"] = self.step
        self.history["checks"].append(check)

    def finish(self, model: keras.Model) -> None:
        if self.weights is not None:
            model.set_weights(self.weights)


def _floats(images: np.ndarray, model: keras.Model) -> np.ndarray:
    films = np.asarray(images)[..., None].astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.repeat(films, model.input_shape[-1], axis=-1)


def _checked(images, labels, classes: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels, np.int64)
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(labels):
        raise ValueError(
            f"{what} films are {images.dtype} {images.shape} with {len(labels)} labels: uint8"
            " (N, S, S) and one label for each are needed"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{what} needs films, of labels from 0 to {classes - 1}: got {len(labels)}"
        )
    return images, labels
