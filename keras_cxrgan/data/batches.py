"""Prepared uint8 images -> endless shuffled batches for training, as a tf.data pipeline."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def training_batches(
    images: np.ndarray,
    batch_size: int,
    *,
    seed: int = 0,
    start: int = 0,
    channels: int = 1,
    previous_size: int = 0,
    native_ramp: int = 0,
    labels: np.ndarray | None = None,
    balanced: bool = False,
) -> tf.data.Dataset:
    """Return endless batches (batch_size, S, S, channels), float32 in [-1, 1].

    Every pass shows each image once, in an order fixed by (seed, pass); batches run on across
    the border of two passes, so all are full. The position in this order is a number, `start`
    (images already delivered): a resumed run continues at exactly the next image.

    Args:
        images: (N, S, S) uint8, an array or a memory map; a map is read image by image.
        batch_size: images in one element, over all replicas and critic steps.
        channels: 1, or 3 to repeat the grey image.
        native_ramp: images until all are as they are. Before, the image at position p is so with
            probability p / native_ramp, and else holds no more than `previous_size` shows: it is
            averaged down to that size and blown up again. Chance depends on (seed, p) alone.
        previous_size: pixels along one side, for `native_ramp`.
        labels: (N,) class number of each image; elements are then (images, labels), the labels
            (batch_size,) int64, in the order that there is without them.
        balanced: show the classes in turn, however many images each has; a pass is then one over
            the images of a class.

    Raises `ValueError` when there are no images, or not one label for each; and for `balanced`
    without labels.

    Example:
        >>> next(iter(training_batches(images, 32, seed=0))).shape
        TensorShape([32, 64, 64, 1])
    """
    count = len(images)
    if not count:
        raise ValueError("there are no images to train on; check --data and --class")
    if labels is not None and np.shape(labels) != (count,):
        raise ValueError(
            f"labels must be one number for each of the {count} images, got {np.shape(labels)}"
        )
    if balanced and labels is None:
        raise ValueError("balanced shows classes in turn, and there are no labels")
    options = tf.data.Options()
    # The tuner's thread sleeps in doubling intervals, and in some processes every step waits for
    # it: half the speed, the cores idle (experiments/autotune.py shows it). This pipeline is too
    # light to need tuning.
    options.autotune.enabled = False
    options.deterministic = True
    # Workers share one order of images and take turns in it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA

    if balanced:
        classes = [np.flatnonzero(np.asarray(labels) == label) for label in np.unique(labels)]
        streams = len(classes)
        # Where `start` images have come from all classes, so many have from each.
        starts = [(start + streams - 1 - turn) // streams for turn in range(streams)]
        orders = [
            _order(places, first, seed, stream, streams)
            for stream, (places, first) in enumerate(zip(classes, starts))
        ]
        turns = tf.data.Dataset.range(start, np.iinfo(np.int64).max).map(lambda p: p % streams)
        order = tf.data.Dataset.choose_from_datasets(orders, turns)
    else:
        order = _order(np.arange(count), start, seed)
    placed = order.enumerate(start=start)
    batches = placed.batch(batch_size, drop_remainder=True)
    read = _reader(images)
    numbers = None if labels is None else tf.constant(labels, tf.int64)

    def deliver(positions, indices):
        floats = read(indices)
        if native_ramp > start:
            floats = _mix(floats, _native(positions, native_ramp, seed), previous_size)
        floats = tf.repeat(floats, channels, axis=-1) if channels > 1 else floats
        return floats if labels is None else (floats, tf.gather(numbers, indices))

    return batches.map(deliver, num_parallel_calls=2).prefetch(2).with_options(options)


def _order(places, start, seed, stream=0, streams=1):
    """Return the endless order of some images from position `start` on, pass after pass."""
    count = len(places)

    def one_pass(number):
        # Each stream has passes of its own: classes of one size would else keep step, and the same
        # images of them meet in every pass.
        key = tf.stack([tf.constant(seed, tf.int64), streams * number + stream])
        keys = tf.random.stateless_uniform(
            [count], key, minval=None, maxval=None, dtype=tf.int32, alg="philox"
        )
        order = tf.argsort(keys, stable=True)
        return tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant(places, tf.int32), order))

    passes = tf.data.Dataset.range(start // count, np.iinfo(np.int64).max)
    return passes.flat_map(one_pass).skip(start % count)


def _native(positions, ramp, seed):
    """Return for each position in the order whether its image is shown as it is."""

    def draw(position):
        # A stream of its own beside the shuffle's, which begins at pass 0.
        key = tf.stack([tf.constant(seed, tf.int64), -1 - position])
        return tf.random.stateless_uniform([], key, alg="philox")

    chances = tf.cast(positions, tf.float32) / ramp
    return tf.map_fn(draw, positions, fn_output_signature=tf.float32) < chances


def _mix(images, native, previous_size):
    """Return the images, those that are not native with no more detail than `previous_size`."""
    factor = images.shape[1] // previous_size

    def blown_up():
        # Repeated pixels: what the smaller network's images look like at this size.
        small = tf.nn.avg_pool2d(images, factor, factor, "VALID")
        large = tf.repeat(tf.repeat(small, factor, axis=1), factor, axis=2)
        return tf.where(native[:, tf.newaxis, tf.newaxis, tf.newaxis], images, large)

    return tf.cond(tf.reduce_all(native), lambda: images, blown_up)


def _reader(images):
    shape = images.shape[1:]
    if isinstance(images, np.memmap):

        def gather(indices):
            chosen = tf.numpy_function(lambda i: images[i], [indices], tf.uint8, stateful=False)
            return tf.ensure_shape(chosen, (indices.shape[0], *shape))

    else:
        held = tf.constant(images)

        def gather(indices):
            return tf.gather(held, indices)

    def read(indices):
        # The same as images.from_uint8, inside the graph.
        return tf.cast(gather(indices), tf.float32)[..., tf.newaxis] / 127.5 - 1.0

    return read
