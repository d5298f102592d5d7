import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.training.noise import class_of, indexed_latents


def drawn(start, count, shares):
    return class_of(tf.range(start, start + count, dtype=tf.int64), shares).numpy()


def test_classes_of_the_first_images_are_as_told():
    assert [int(class_of(i, (3, 1))) for i in range(4)] == [0, 0, 0, 1]
    assert drawn(0, 8, (1, 1)).tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert class_of(tf.reshape(tf.range(6), (2, 3)), (1, 1)).shape == (2, 3)
    assert drawn(0, 3, (7,)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shares", [(3, 1), (60, 70, 70, 70), (124, 500), (1, 9, 90), (0.5, 0.5)])
@pytest.mark.parametrize("start", [0, 1, 12_345, 2**40])
def test_each_class_has_its_share_of_any_stretch_of_images(shares, start):
    found = drawn(start, 1000, shares)
    counts = np.arange(1, 1001)
    for number, share in enumerate(np.array(shares) / np.sum(shares)):
        # Drawn by chance, a share of a half would be out by 16 on average.
        assert np.abs(np.cumsum(found == number) - counts * share).max() <= 2.5


def test_the_class_of_an_image_does_not_depend_on_those_beside_it():
    shares = (60, 70, 70, 70)
    whole = drawn(0, 500, shares)
    np.testing.assert_array_equal(drawn(123, 77, shares), whole[123:200])
    assert [int(class_of(i, shares)) for i in (499, 0, 250)] == whole[[499, 0, 250]].tolist()


def test_only_the_ratio_of_the_shares_counts():
    np.testing.assert_array_equal(drawn(0, 999, (60, 20)), drawn(0, 999, (0.75, 0.25)))


@pytest.mark.parametrize("bound", [1, 1.5, 10])
def test_uniform_latents_are_never_widened_by_truncation(bound):
    asked = indexed_latents(3, 0, 5, 7, "uniform", bound)
    np.testing.assert_array_equal(asked, indexed_latents(3, 0, 5, 7, "uniform"))
    np.testing.assert_allclose(indexed_latents(3, 0, 5, 7, "uniform", 0.25), asked / 4)
