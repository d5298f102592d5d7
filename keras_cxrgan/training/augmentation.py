"""Differentiable augmentation of what the discriminator sees: real and generated films alike.

With a few hundred films a discriminator learns them by heart and its gradients stop being of
use. It therefore never sees a film as it is: each one it is shown, real or generated, is shifted,
zoomed, covered in part, brightened or given more contrast, at random, and the generator learns
through these operations (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN
Training"; Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data").

What keeps the operations out of the generated films, that is, from leaking:

- Each leaves an image as it is with probability 1 - p. Shifts, zooms and brightness are uniform,
  so what they do to a distribution has eigenvalues 1 - p + p sin(w)/w or more, which are above 0
  up to p = 0.82: only generated films like the real ones then deceive the discriminator. At
  p = 1 it can no longer see some differences.
- Uncovered borders and cut-out squares become 0, mid-grey, as in both papers' cutouts, and not
  the black (-1) of a film's border. Some films have a black edge of their own, so a black strip
  might be the film's or the shift's; a flat strip of 0 is in no film and tells the discriminator
  just what was done. It is also near the mean of films, and what convolutions pad with.
- Colours change before anything is uncovered, so that this 0 stays 0, and nothing is clipped.
- No flips: the heart is on one side.

Random numbers come from outside: the same numbers give the same images, on however many replicas.
"""

from __future__ import annotations

import tensorflow as tf

# Magnitudes of Zhao et al. 2020; the zoom is this project's.
BRIGHTNESS = 0.5  # added or taken away at most; black to white is 2
CONTRAST = 0.5  # the factor is 1 +- this at most
ZOOM = 1.1  # largest factor; the smallest is 1 / ZOOM
TRANSLATION = 1 / 8  # of the side, at most, in whole pixels
CUTOUT = 1 / 2  # of the side
MOST_OFTEN = 0.8  # probability up to which ADA goes: no operation leaks yet, see above


def brightness(images, numbers):
    """Add one number to all pixels of an image; 0.5 adds nothing."""
    change = BRIGHTNESS * (2.0 * numbers[:, 0] - 1.0)
    return images + _one_for_each(change)


def contrast(images, numbers):
    """Stretch the grey levels about the image's mean; 0.5 leaves them."""
    factor = 1.0 + CONTRAST * (2.0 * numbers[:, 0] - 1.0)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return mean + _one_for_each(factor) * (images - mean)


def scale(images, numbers):
    """Zoom in or out about the centre, bilinearly; 0.5 leaves the size.

    The factor's logarithm is uniform: a zoom is as likely as the one that undoes it.
    """
    shrink = ZOOM ** (1.0 - 2.0 * numbers[:, :1])
    height, width = images.shape[1:3]
    return _resample(images, shrink * _centred(height), shrink * _centred(width))


def translation(images, numbers):
    """Shift down by the first number's and right by the second's share of whole pixels."""
    shifts = [
        _whole(numbers[:, axis : axis + 1], 2 * reach + 1) - reach
        for axis, reach in enumerate(round(TRANSLATION * side) for side in images.shape[1:3])
    ]
    height, width = images.shape[1:3]
    return _resample(images, _centred(height) - shifts[0], _centred(width) - shifts[1])


def cutout(images, numbers):
    """Put a square of 0 at a centre anywhere in the image; it may reach beyond the border."""
    covered = []
    for axis, side in enumerate(images.shape[1:3]):
        size = round(CUTOUT * side)
        # Of an even square the centre lies between pixels: there is one place more.
        first = _whole(numbers[:, axis : axis + 1], side + 1 - size % 2) - size // 2
        pixels = tf.range(side, dtype=tf.float32)
        covered.append((pixels >= first) & (pixels < first + size))
    hole = covered[0][:, :, None, None] & covered[1][:, None, :, None]
    return tf.where(hole, tf.zeros([], images.dtype), images)


AUGMENTATIONS = {
    "brightness": brightness,
    "contrast": contrast,
    "scale": scale,
    "translation": translation,
    "cutout": cutout,
}
"""Name -> function of (images (N, H, W, C), numbers (N, 2) on [0, 1]), in order of application."""

NUMBERS = 3 * len(AUGMENTATIONS)
"""Random numbers that one image needs: for each operation, whether, and two of how much."""


def augment(images, numbers, policy: tuple[str, ...], probability):
    """Return images (N, H, W, C), each changed by each operation of the policy with `probability`.

    Differentiable with respect to images. An operation has its own columns of `numbers`: one
    more or less in the policy changes nothing in what the others do.

    Args:
        images: float32 in [-1, 1]; the result may go beyond, by up to 1.
        numbers: (N, NUMBERS), uniform on [0, 1).
        policy: names in AUGMENTATIONS, applied in the order of that table.
        probability: number or scalar tensor; 0 returns the images to the bit, 1 changes all.

    Raises `ValueError` for an unknown name.

    Example:
        >>> numbers = tf.random.stateless_uniform([16, NUMBERS], seed=[0, 0])
        >>> augment(tf.zeros([16, 64, 64, 1]), numbers, ("translation", "cutout"), 0.8).shape
        TensorShape([16, 64, 64, 1])
    """
    unknown = [name for name in policy if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            f"augmentation {unknown[0]!r} is not known: choose of {', '.join(AUGMENTATIONS)}"
        )
    for index, (name, operation) in enumerate(AUGMENTATIONS.items()):
        if name in policy:
            gate, amounts = numbers[:, 3 * index], numbers[:, 3 * index + 1 : 3 * index + 3]
            chosen = _one_for_each(gate < probability)
            images = tf.where(chosen, operation(images, amounts), images)
    return images


def overfitting(real_logits):
    """Mean sign of the real films' logits (Karras et al. 2020, eq. 1, r_t), from -1 to 1.

    0 where the discriminator cannot tell, 1 where it is right about every film it was trained
    on: their target is 0.6. For losses that decide at a logit of 0: cross-entropy and hinge.

    >>> float(overfitting(tf.constant([[2.0], [0.5], [-1.0], [3.0]])))
    0.5
    """
    return tf.reduce_mean(tf.sign(real_logits))


def smooth(former, signal, images, memory):
    """Return the mean of `overfitting` over about the last `memory` real images, after a batch.

    (Karras et al. take it over 256.) The images of one batch may be judged alike: where the
    discriminator compares them, it takes most of a batch for real or few, and holding the sign of
    each batch's own mean at a target holds the mean of all below it.

    Args:
        former: what this returned before the batch; 0 at first.
        images: number of real images in the batch; `memory` of no more is the batch alone.

    >>> round(float(smooth(0.5, 0.9, images=64, memory=256)), 6)
    0.6
    """
    share = tf.minimum(tf.cast(images, tf.float32) / tf.cast(memory, tf.float32), 1.0)
    return former + share * (signal - former)


def adapt(probability, signal, target, images, ramp):
    """Return the probability after a batch (Karras et al. 2020, section 3.1), in [0, `MOST_OFTEN`].

    One fixed step up where `signal` is above its target, and down where it is below.

    Args:
        signal: `overfitting` of the batch, or a mean of several, see `smooth`.
        images: number of real images since the last call.
        ramp: images in which the probability goes from 0 to 1 at the fastest (theirs: 500,000).

    >>> round(float(adapt(0.5, signal=0.9, target=0.6, images=64, ramp=6400)), 6)
    0.51
    """
    step = tf.cast(images, tf.float32) / tf.cast(ramp, tf.float32)
    return tf.clip_by_value(probability + step * tf.sign(signal - target), 0.0, MOST_OFTEN)


def _one_for_each(values):
    """(N,) -> (N, 1, 1, 1), to be used with images."""
    return values[:, None, None, None]


def _whole(numbers, count: int):
    """Numbers on [0, 1] -> whole numbers 0 ... count - 1, equally often, as float32."""
    return tf.minimum(tf.floor(count * numbers), count - 1.0)


def _centred(side: int):
    """Positions of a side's pixels measured from its centre, (1, side)."""
    return (tf.range(side, dtype=tf.float32) - (side - 1) / 2)[None]


def _resample(images, rows, columns):
    """Return images (N, H, W, C) whose pixel (i, j) is the one at (rows[i], columns[j]).

    rows (N, H), columns (N, W): positions measured from the centre, between pixels linearly
    interpolated, and 0 outside. Two products of matrices: on a CPU faster, backwards too, than
    gathering, and differentiable as often as wanted.
    """
    weights = [
        tf.nn.relu(1.0 - tf.abs(positions[:, :, None] - _centred(positions.shape[1])[:, None]))
        for positions in (rows, columns)
    ]
    planes = tf.transpose(images, [0, 3, 1, 2])
    planes = weights[0][:, None] @ tf.matmul(planes, weights[1][:, None], transpose_b=True)
    return tf.transpose(planes, [0, 2, 3, 1])
