"""The classifier of a study: built, read from a file, or of ImageNet's weights where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CLASSIFIERS = ("cnn", "inception")
INCEPTION_RATE = 0.1  # of the learning rate: what so deep a network stands from scratch


def classifier_of(
    name: str, *, image_size: int, classes: int, steps: int, learning_rates: Sequence[float]
) -> tuple:
    """Return (function that builds the classifier, what is said of it and how it is fitted).

    Args:
        name: cnn, inception, or a Keras file whose last layer has a value for each class.

    Raises `ValueError` for a file that is no such network for grey or colour films of this size.
    """
    from keras_cxrgan.models.classifier import build_inception_classifier, build_small_cnn

    facts = {"learning_rates": tuple(learning_rates), "frozen_steps": 0}
    if name == "cnn":
        return lambda: build_small_cnn(image_size, classes=classes), facts | {"name": "small CNN"}
    if name != "inception":
        _check(_load(name), name, image_size, classes)
        return lambda: _load(name), facts | {"name": Path(name).name, "weights": "of the file"}
    rates = tuple(INCEPTION_RATE * rate for rate in learning_rates)
    try:
        build_inception_classifier(classes, weights="imagenet", frozen=True, image_size=image_size)
    except ValueError as error:
        why = str(error).partition(": give")[0]
        facts |= {"learning_rates": rates, "name": "InceptionV3", "weights": f"random: {why}"}
        return lambda: build_inception_classifier(classes, image_size=image_size), facts
    facts |= {
        "frozen_steps": steps // 3,
        "name": "InceptionV3",
        "weights": "ImageNet, frozen for a third of the steps",
    }
    return (
        lambda: build_inception_classifier(
            classes, weights="imagenet", frozen=True, image_size=image_size
        ),
        facts,
    )


def _load(name: str):
    """Return the network of a file, of logits: softmax twice would flatten every probability."""
    import keras

    try:
        model = keras.models.load_model(name)
    except Exception as error:  # noqa: BLE001 - a layer that is not Keras' own, a damaged file
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"--classifier {name} cannot be loaded ({why[:200]}): save a network of Keras' own"
            " layers with model.save(...)"
        ) from error
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.input, last.input)
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    return model


def _check(model, name: str, image_size: int, classes: int) -> None:
    taken, given = model.input_shape, model.output_shape
    fits = len(taken) == 4 and all(side in (None, image_size) for side in taken[1:3])
    if not fits or taken[3] not in (1, 3) or given[1:] != (classes,):
        side = f": pass --set image_size={taken[1]}" if len(taken) == 4 and not fits else ""
        raise ValueError(
            f"--classifier {name} maps {taken[1:]} to {given[1:]}, and ({image_size}, {image_size},"
            f" 1 or 3) to ({classes},) is needed{side}"
        )
