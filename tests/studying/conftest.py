"""Films of two classes, their divisions, and a small classifier."""

import keras
import numpy as np
import pytest
from small_studies import PATIENT

from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.phantom import phantom
from keras_cxrgan.workflows.splitting import split


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Forty phantom films, two of each patient; those of class BRIGHT are brighter."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    for number, label in enumerate(("BRIGHT", "DARK")):
        (folder / label).mkdir()
        for index in range(20):
            film = phantom(index + 100 * number, 32).astype(float)
            film = film * 0.7 + 60 * (label == "BRIGHT") + random.normal(0, 12, (32, 32))
            film = np.clip(film, 0, 255).astype(np.uint8)
            write_png(folder / label / f"{index // 2}-{index % 2}.png", film)
    return folder


@pytest.fixture(scope="module")
def folds(films):
    path = films / "folds.csv"
    split(films, path, folds=2, patient_regex=PATIENT)
    return str(path)


@pytest.fixture(scope="module")
def halves(films):
    path = films / "halves.csv"
    split(films, path, fractions={"train": 0.6, "test": 0.4}, patient_regex=PATIENT)
    return str(path)


@pytest.fixture(scope="module")
def network(films):
    """A small classifier in a file, which ends in a softmax as most do."""
    images = x = keras.Input((32, 32, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(x))
    model.save(films.parent / "network.keras")
    return str(films.parent / "network.keras")
