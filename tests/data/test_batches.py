import itertools

import numpy as np
import pytest

from keras_cxrgan.data.batches import training_batches


def numbered(count):
    """Images whose grey level is their number."""
    return np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)


def numbers(batches, count):
    taken = [batch.numpy() for batch in itertools.islice(batches, count)]
    return [np.rint((batch[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist() for batch in taken]


def test_every_pass_shows_each_image_once_in_another_order():
    order = sum(numbers(training_batches(numbered(10), 4, seed=1), 10), [])
    passes = [order[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_start_continues_the_same_order_exactly():
    whole = numbers(training_batches(numbered(10), 4, seed=1), 12)
    for steps in (1, 2, 5, 7):
        rest = numbers(training_batches(numbered(10), 4, seed=1, start=4 * steps), 12 - steps)
        assert rest == whole[steps:]


def test_seed_decides_the_order():
    first, same, other = (
        numbers(training_batches(numbered(10), 5, seed=seed), 4) for seed in (0, 0, 1)
    )
    assert first == same != other


def test_images_are_scaled_to_the_full_range_and_repeated_for_three_channels():
    images = np.zeros((2, 4, 4), np.uint8)
    images[1] = 255
    batch = next(iter(training_batches(images, 2, channels=3))).numpy()
    assert batch.dtype == np.float32 and batch.shape == (2, 4, 4, 3)
    assert sorted(np.unique(batch)) == [-1.0, 1.0]


def test_a_memory_map_gives_the_batches_of_the_array(tmp_path):
    np.save(tmp_path / "images.npy", numbered(10))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert numbers(training_batches(mapped, 4), 6) == numbers(training_batches(numbered(10), 4), 6)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        training_batches(numbered(0), 4)
