"""Classifiers of films: the small CNN of the papers and InceptionV3.

Both return logits, as the discriminators do: the softmax is in the loss
(`SparseCategoricalCrossentropy(from_logits=True)`) and once more where probabilities are reported.
The code behind Davoodi & Lo Giudice 2021 puts a softmax into the network and another one into the
loss, so that no probability passes e / (e + K - 1): 0.475 for four classes.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import keras
from keras import layers

SMALLEST_INCEPTION = 75
# Keras' 0.99 takes 500 steps to forget where the moving statistics began: until then a network that
# has learnt tests as one that has not.
MOMENTUM = 0.9


def build_small_cnn(image_size: int = 64, channels: int = 1, classes: int = 4) -> keras.Model:
    """Return the CNN of Davoodi & Lo Giudice 2021: images (N, S, S, C) in [-1, 1] -> logits (N, K).

    Three times convolution 3x3, ReLU, batch normalization and a maximum over 2x2, with 32, 64 and
    128 maps; a dense layer of 256, dropout of a half, a dense layer of the classes.

    Example:
        >>> build_small_cnn().count_params()  # 2,191,556 of them trainable, as published
        2192004
    """
    if image_size < 8:
        raise ValueError(f"image_size is {image_size}: the small CNN needs 8 pixels or more")
    _check_classes(classes)
    images = x = keras.Input((image_size, image_size, channels), name="images")
    for maps in (32, 64, 128):
        x = layers.Conv2D(maps, 3, padding="same", activation="relu")(x)
        x = layers.BatchNormalization(momentum=MOMENTUM)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name="small_cnn")


def build_inception_classifier(
    classes: int,
    *,
    weights: str | Path | None = None,
    frozen: bool = False,
    image_size: int = 64,
    channels: int = 1,
    inner_size: int = 299,
    dropout: float = 0.2,
) -> keras.Model:
    """Return Keras InceptionV3 as a classifier: images (N, S, S, C) in [-1, 1] -> logits (N, K).

    Images are enlarged to `inner_size` and one channel is repeated to three inside the network.

    Args:
        weights: None to train from scratch; `"imagenet"` for the weights that Keras downloads;
            or a file of InceptionV3 weights without top.
        frozen: train the last layer only, as the first stage before `unfreeze`.
        inner_size: side of the images that InceptionV3 sees; 299 is what its weights are for.

    Raises ValueError for weights that cannot be had and for a frozen network without weights.

    Example: `build_inception_classifier(3, weights="imagenet", frozen=True)`, fit, `unfreeze`,
    compile with a smaller learning rate, fit.
    """
    _check_classes(classes)
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}: InceptionV3 takes grey (1) or colour (3)")
    if inner_size < SMALLEST_INCEPTION:
        raise ValueError(f"inner_size is {inner_size}: InceptionV3 needs {SMALLEST_INCEPTION}")
    if frozen and weights is None:
        raise ValueError(
            'frozen=True without weights would keep random features: give weights="imagenet" or'
            " a file, or frozen=False"
        )
    base = _inception(weights, inner_size)
    images = x = keras.Input((image_size, image_size, channels), name="images")
    if image_size != inner_size:
        x = layers.Resizing(inner_size, inner_size, interpolation="bilinear")(x)
    if channels == 1:
        x = layers.Concatenate()([x, x, x])
    x = layers.GlobalAveragePooling2D()(base(x))
    x = layers.Dropout(dropout)(x)
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    model = keras.Model(images, logits, name="inception_classifier")
    if frozen:
        base.trainable = False
    elif weights is not None:
        unfreeze(model)
    else:
        for layer in _normalizations(base):
            layer.momentum = MOMENTUM
    return model


def unfreeze(model: keras.Model) -> None:
    """Make InceptionV3 trainable but for its batch normalizations; compile the model afterwards.

    These keep the statistics of their weights: those of a few films per batch would undo them.
    """
    base = model.get_layer("inception_v3")
    base.trainable = True
    for layer in _normalizations(base):
        layer.trainable = False


def _normalizations(base: keras.Model) -> list[keras.Layer]:
    return [layer for layer in base.layers if isinstance(layer, layers.BatchNormalization)]


def _inception(weights, inner_size) -> keras.Model:
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise ValueError(f"no file of InceptionV3 weights at {weights}")
    try:
        # Keras tells of its download on stdout, which may be somebody's JSON.
        with contextlib.redirect_stdout(sys.stderr):
            return keras.applications.InceptionV3(
                include_top=False,
                weights=None if weights is None else str(weights),
                input_shape=(inner_size, inner_size, 3),
                name="inception_v3",
            )
    except Exception as error:  # Keras raises a bare Exception where a download fails
        if weights is None:
            raise
        wanted = "the ImageNet weights" if weights == "imagenet" else f"the weights {weights}"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{wanted} of InceptionV3 cannot be had ({reason}): give a file of its weights"
            " without top, fetched on a machine with network, or train from scratch (weights=None)"
        ) from error


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes is {classes}: a classifier needs 2 or more")
