import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.evaluation.extractors import Extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.training import runtime


def prepare(images):
    return images[..., np.newaxis] / np.float32(255)


def tiny_extractor(model=None, **changes):
    if model is None:
        model = keras.Sequential(
            [
                keras.Input((32, 32, 1)),
                keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
    fields = dict(
        name="tiny", score="FD-tiny", dims=8, input_size=32, preparation="none", weights="0" * 64,
        verified=True, about="a test", prepare=prepare, model=model,
    )  # fmt: skip
    return Extractor(**(fields | changes))


def forbidden(batch):
    raise AssertionError("the network ran although the features were kept")


@pytest.mark.parametrize("batch_size", [1, 7, 32, 40])
def test_features_do_not_depend_on_the_batch(films, batch_size):
    extractor = tiny_extractor()
    expected = extractor.model(prepare(films)).numpy()
    found = extract(extractor, films, batch_size=batch_size)
    assert found.shape == (40, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_two_replicas_give_the_features_of_one_in_the_same_order(films):
    extractor = tiny_extractor()
    weights = extractor.model.get_weights()
    strategy = runtime.start("cpu:2")
    with strategy.scope():
        mirrored = tiny_extractor()
    mirrored.model.set_weights(weights)
    np.testing.assert_allclose(
        extract(mirrored, films, batch_size=6, strategy=strategy),
        extract(extractor, films, batch_size=6),
        rtol=1e-6,
    )


def test_kept_features_are_found_by_content_and_not_computed_again(films, tmp_path):
    extractor = tiny_extractor()
    first = extract(extractor, films, cache_dir=tmp_path)
    again = extract(tiny_extractor(forbidden), films.copy(), cache_dir=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", ["pixel", "order", "weights", "preparation", "dims", "name"])
def test_whatever_decides_the_features_makes_them_anew(films, tmp_path, change):
    extract(tiny_extractor(), films, cache_dir=tmp_path)
    extractor, images = tiny_extractor(forbidden), films.copy()
    if change == "pixel":
        images[3, 4, 5] ^= 1
    elif change == "order":
        images = images[::-1]
    else:
        value = {"dims": 9}.get(change, "other")
        extractor = dataclasses.replace(extractor, **{change: value})
    with pytest.raises(AssertionError, match="the network ran"):
        extract(extractor, images, cache_dir=tmp_path)


def test_a_damaged_cache_file_is_made_again(films, tmp_path):
    extractor = tiny_extractor()
    first = np.array(extract(extractor, films, cache_dir=tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    np.testing.assert_array_equal(extract(extractor, films, cache_dir=tmp_path), first)


def test_an_interrupted_extraction_leaves_no_file(films, tmp_path):
    with pytest.raises(AssertionError):
        extract(tiny_extractor(forbidden), films, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_no_numbers_are_an_error(films):
    broken = tiny_extractor(lambda batch: tf.reduce_mean(batch, [1, 2]) * float("nan"), dims=1)
    with pytest.raises(ValueError, match="tiny gave features that are no numbers"):
        extract(broken, films)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 32, 32), np.uint8),
        np.zeros((2, 32, 32), np.float32),
        np.zeros((32, 32), np.uint8),
    ],
    ids=["none", "float", "one-image-alone"],
)
def test_other_than_uint8_images_are_refused(images):
    with pytest.raises(ValueError, match="uint8 images"):
        extract(tiny_extractor(), images)
