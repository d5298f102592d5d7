"""Random numbers as pure functions: of a seed and a position, never of what was drawn before."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def images_at_once(image_size: int) -> int:
    """Return how many images are generated together: a bound on memory, the same everywhere.

    The size of a batch decides the order in which TensorFlow adds, and so the last digit.

    >>> [images_at_once(size) for size in (64, 256, 512, 2048)]
    [32, 32, 8, 1]
    """
    return min(32, max(1, 32 * 256**2 // image_size**2))


def draw_latents(shape, seed, distribution: str):
    """Return float32 random numbers: `normal`, `uniform` on [-1, 1], or `unit` on [0, 1]."""
    if distribution == "normal":
        return tf.random.stateless_normal(shape, seed, alg="philox")
    low = -1.0 if distribution == "uniform" else 0.0
    return tf.random.stateless_uniform(shape, seed, low, 1.0, alg="philox")


def indexed_latents(
    seed, start, count, latent_dim: int, distribution: str = "normal", truncation=None
):
    """Return latents (count, latent_dim) in which row i depends on (seed, start + i) alone."""
    # As a graph: drawn one after another in Python, 64 latents would take most of a second.
    numbers = (tf.cast(value, tf.int64) for value in (seed, start, count))
    return _indexed_latents(*numbers, latent_dim, distribution, truncation)


@tf.function
def _indexed_latents(seed, start, count, latent_dim, distribution, truncation):
    def one(index):
        key = tf.stack([seed, index])
        if truncation is None:
            return draw_latents([latent_dim], key, distribution)
        if distribution == "uniform":
            within = tf.minimum(tf.cast(truncation, tf.float32), 1.0)
            return within * draw_latents([latent_dim], key, distribution)
        # The inverse of the normal distribution function, on the probabilities within the bound.
        outside = 0.5 * (1.0 + tf.math.erf(-tf.cast(truncation, tf.float32) / tf.sqrt(2.0)))
        unit = draw_latents([latent_dim], key, "unit")
        return tf.math.ndtri(outside + tf.clip_by_value(unit, 1e-6, 1 - 1e-6) * (1 - 2 * outside))

    return tf.map_fn(one, start + tf.range(count), fn_output_signature=tf.float32)


def class_of(index, shares: tuple[float, ...]):
    """Return the class of image `index` where no class is asked for: each in its share.

    Multiples of the golden ratio fill [0, 1) evenly: of the first n images of any start, each
    class has its share to within a few.

    Args:
        index: whole number, or int64 tensor of any shape.
        shares: of each class, above 0; they need not add up to 1 (numbers of films, say).

    Example: `[int(class_of(i, (3, 1))) for i in range(4)]` is [0, 0, 0, 1].
    """
    borders = tf.constant(np.cumsum(shares)[:-1] / np.sum(shares), tf.float64)
    index = tf.cast(index, tf.int64)
    # Modulo 2^32 in whole numbers, for a float product loses the places that decide.
    position = tf.cast(index * 2654435769 % 2**32, tf.float64) / 2**32
    found = tf.searchsorted(borders, tf.reshape(position, [-1]), side="right")
    return tf.reshape(found, tf.shape(index))
