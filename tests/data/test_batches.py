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


def detailed(count, size=8):
    """Images of one grey level each, 100 + number, with a checkerboard finer than half the size."""
    board = 40 * (np.indices((size, size)).sum(0) % 2) - 20
    return np.stack([np.full((size, size), 100 + i) + board for i in range(count)]).astype(np.uint8)


def native(batches, count):
    """Whether each image delivered has its own detail."""
    taken = [batch.numpy() for batch in itertools.islice(batches, count)]
    return (np.concatenate(taken)[..., 0].std((1, 2)) > 1e-3).tolist()


def test_the_share_of_native_images_rises_from_none_to_all():
    images = detailed(20)
    mixed = native(training_batches(images, 50, seed=1, previous_size=4, native_ramp=2000), 60)
    shares = [np.mean(mixed[first : first + 500]) for first in range(0, 3000, 500)]
    # Means of p / 2000 over each part; the standard error is about 0.02.
    np.testing.assert_allclose(shares, [0.125, 0.375, 0.625, 0.875, 1, 1], atol=0.06)
    assert not mixed[0] and all(mixed[2000:])


def test_images_that_are_not_native_are_averaged_down_and_blown_up():
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8), np.uint8)
    batch = next(iter(training_batches(images, 1, previous_size=2, native_ramp=10**9))).numpy()
    means = images.reshape(2, 4, 2, 4).mean((1, 3)) / 127.5 - 1
    np.testing.assert_allclose(batch[0, ..., 0], means.repeat(4, 0).repeat(4, 1), atol=1e-6)


def test_a_mixture_that_starts_later_is_the_rest_of_the_whole():
    def run(steps, start=0):
        batches = training_batches(
            detailed(7), 4, seed=3, start=start, previous_size=4, native_ramp=40
        )
        return np.stack([batch.numpy() for batch in itertools.islice(batches, steps)])

    whole = run(12)
    for steps in (1, 3, 9, 11):
        np.testing.assert_array_equal(run(12 - steps, start=4 * steps), whole[steps:])


def test_the_mixture_changes_no_order():
    plain = native_means(training_batches(detailed(10), 5, seed=2))
    mixed = native_means(training_batches(detailed(10), 5, seed=2, previous_size=4, native_ramp=30))
    assert plain == mixed


def native_means(batches):
    taken = np.concatenate([batch.numpy() for batch in itertools.islice(batches, 6)])
    return np.rint((taken.mean((1, 2, 3)) + 1) * 127.5).astype(int).tolist()


def labelled(count, start=0, labels=None, **options):
    """(grey level, label) of each image of so many batches of 4."""
    labels = np.arange(10) % 3 if labels is None else labels
    batches = training_batches(numbered(10), 4, seed=1, start=start, labels=labels, **options)
    taken = [(images.numpy(), found.numpy()) for images, found in itertools.islice(batches, count)]
    assert all(found.dtype == np.int64 and found.shape == (4,) for _, found in taken)
    levels = [np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int) for images, _ in taken]
    return list(zip(np.concatenate(levels), np.concatenate([found for _, found in taken])))


def test_each_image_keeps_its_label_and_labels_change_no_order():
    found = labelled(9)
    assert all(label == level % 3 for level, label in found)
    assert [level for level, _ in found] == sum(
        numbers(training_batches(numbered(10), 4, seed=1), 9), []
    )


def test_labelled_batches_that_start_later_are_the_rest_of_the_whole():
    whole = labelled(9)
    for steps in (1, 2, 5):
        assert labelled(9 - steps, start=4 * steps) == whole[4 * steps :]


def test_labels_are_delivered_beside_mapped_and_mixed_images(tmp_path):
    np.save(tmp_path / "images.npy", numbered(10))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    options = {"channels": 3, "previous_size": 2, "native_ramp": 30}
    batches = training_batches(mapped, 4, seed=1, labels=np.arange(10) % 3, **options)
    images, found = next(iter(batches))
    assert images.shape == (4, 4, 4, 3)
    assert found.numpy().tolist() == [label for _, label in labelled(1)]


@pytest.mark.parametrize("labels", [np.zeros(9, int), np.zeros((10, 2), int)])
def test_labels_of_other_images_are_refused(labels):
    with pytest.raises(ValueError, match="one number for each of the 10 images"):
        training_batches(numbered(10), 4, labels=labels)


FEW_AND_MANY = np.array([0] * 2 + [1] * 5 + [2] * 3)


def test_balanced_batches_show_classes_in_turn_and_each_image_once_a_pass_of_its_class():
    found = labelled(30, labels=FEW_AND_MANY, balanced=True)
    assert [label for _, label in found] == [0, 1, 2] * 40
    for label, images in ((0, [0, 1]), (1, [2, 3, 4, 5, 6]), (2, [7, 8, 9])):
        shown = [level for level, of in found if of == label]
        passes = [sorted(shown[i : i + len(images)]) for i in range(0, 30, len(images))]
        assert passes == [images] * len(passes)


def test_balanced_batches_that_start_later_are_the_rest_of_the_whole():
    whole = labelled(30, labels=FEW_AND_MANY, balanced=True)
    for steps in (1, 2, 5, 16):
        rest = labelled(30 - steps, start=4 * steps, labels=FEW_AND_MANY, balanced=True)
        assert rest == whole[4 * steps :]


def test_images_of_two_balanced_classes_of_one_size_do_not_always_meet():
    found = labelled(50, labels=np.arange(10) // 5, balanced=True)
    met = {(first[0], second[0] - 5) for first, second in zip(found[::2], found[1::2])}
    assert len(met) > 5


def test_balanced_batches_need_labels():
    with pytest.raises(ValueError, match="there are no labels"):
        training_batches(numbered(10), 4, balanced=True)
