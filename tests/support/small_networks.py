"""Networks that no test has to train: stirred ones, and a small extractor of features."""

import keras
import numpy as np


def stir(model):
    """Give each weight a value of its own: moving statistics that are not 0 and 1, too."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(values) if weight.name == "moving_variance" else values)
    return model


def save_extractor(path, *convolutions):
    """Save a seeded network of (maps, stride) convolutions that gives the last maps' means."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    blocks = [
        layers.Conv2D(maps, 5, strides=stride, activation="relu") for maps, stride in convolutions
    ]
    keras.Sequential([keras.Input((32, 32, 1)), *blocks, layers.GlobalAveragePooling2D()]).save(
        path
    )
    return str(path)
