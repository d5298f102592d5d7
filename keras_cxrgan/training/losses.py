"""GAN losses and penalties: pure functions of logits, images and a discriminator.

Logits are the discriminator's raw outputs, (N, 1) or (N,), float32. Every function returns the
mean over the batch as a scalar. A loss is a pair of functions, found by name in `LOSSES`:

    discriminator_loss(real_logits, fake_logits) -> scalar
    generator_loss(fake_logits) -> scalar

    >>> discriminator_loss, generator_loss = LOSSES["wasserstein"]
    >>> float(discriminator_loss(tf.constant([3.0]), tf.constant([1.0])))
    -2.0
"""

from __future__ import annotations

import tensorflow as tf

# softplus(-x) = -log sigmoid(x) and softplus(x) = -log(1 - sigmoid(x)), without overflow: binary
# cross-entropy on logits.


def cross_entropy_discriminator_loss(real_logits, fake_logits, label_smoothing=0.0):
    """-log D(x) - log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1), real label 1 - smoothing."""
    real = (1.0 - label_smoothing) * tf.nn.softplus(-real_logits)
    real += label_smoothing * tf.nn.softplus(real_logits)
    return tf.reduce_mean(real) + tf.reduce_mean(tf.nn.softplus(fake_logits))


def non_saturating_generator_loss(fake_logits):
    """-log D(G(z)) (Goodfellow et al. 2014, section 3): strong gradients where D is sure."""
    return tf.reduce_mean(tf.nn.softplus(-fake_logits))


def minimax_generator_loss(fake_logits):
    """log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1): weak gradients where D is sure."""
    return -tf.reduce_mean(tf.nn.softplus(fake_logits))


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """D(G(z)) - D(x) (Arjovsky et al. 2017, eq. 2); its negative estimates the distance."""
    return tf.reduce_mean(fake_logits) - tf.reduce_mean(real_logits)


def wasserstein_generator_loss(fake_logits):
    """-D(G(z)) (Arjovsky et al. 2017)."""
    return -tf.reduce_mean(fake_logits)


def hinge_discriminator_loss(real_logits, fake_logits):
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    real = tf.reduce_mean(tf.nn.relu(1.0 - real_logits))
    return real + tf.reduce_mean(tf.nn.relu(1.0 + fake_logits))


def least_squares_discriminator_loss(real_logits, fake_logits):
    """(D(x) - 1)^2 / 2 + D(G(z))^2 / 2 (Mao et al. 2017, eq. 9: a = 0, b = c = 1)."""
    real = tf.reduce_mean(tf.square(real_logits - 1.0))
    return 0.5 * (real + tf.reduce_mean(tf.square(fake_logits)))


def least_squares_generator_loss(fake_logits):
    """(D(G(z)) - 1)^2 / 2 (Mao et al. 2017, eq. 9)."""
    return 0.5 * tf.reduce_mean(tf.square(fake_logits - 1.0))


LOSSES = {
    "non_saturating": (cross_entropy_discriminator_loss, non_saturating_generator_loss),
    "minimax": (cross_entropy_discriminator_loss, minimax_generator_loss),
    "wasserstein": (wasserstein_discriminator_loss, wasserstein_generator_loss),
    "hinge": (hinge_discriminator_loss, wasserstein_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
}
CROSS_ENTROPY = ("non_saturating", "minimax")  # their logits are log-odds: sigmoid gives D(x)


def consistency(logits, augmented_logits):
    """(D(x) - D(T(x)))^2 of images x and augmented ones T(x) (Zhao et al. 2021, bCR, eq. 3)."""
    return tf.reduce_mean(tf.square(logits - augmented_logits))


def gradient_penalty(discriminator, real_images, fake_images, mixing):
    """Return (penalty, mean gradient norm) of WGAN-GP (Gulrajani et al. 2017, eq. 3).

    The mean over images of (|grad D(x^)| - 1)^2 at x^ = real + mixing * (fake - real).

    Args:
        discriminator: function of images (N, H, W, C) giving logits (N, 1) or (N,).
        mixing: (N, 1, 1, 1), uniform on [0, 1], ONE number for each image: one for each pixel
            would leave the line between the two images.
    """
    mixed = real_images + mixing * (fake_images - real_images)
    squared = _squared_gradient_norms(discriminator, mixed)
    # The square root's slope at 0 is infinite; its gradient there would be NaN for a constant
    # critic. The small constant bounds it and moves a norm of 1 by less than float32 can show.
    norms = tf.sqrt(squared + 1e-12)
    return tf.reduce_mean(tf.square(norms - 1.0)), tf.reduce_mean(norms)


def r1_penalty(discriminator, real_images):
    """Return (penalty, mean gradient norm) of R1 (Mescheder et al. 2018, eq. 9).

    Half the mean over real images of |grad D(x)|^2.
    """
    squared = _squared_gradient_norms(discriminator, real_images)
    return 0.5 * tf.reduce_mean(squared), tf.reduce_mean(tf.sqrt(squared + 1e-12))


def _squared_gradient_norms(discriminator, images):
    images = tf.convert_to_tensor(images)  # arrays cannot be watched
    with tf.GradientTape() as tape:
        tape.watch(images)
        # The gradient of the sum holds each image's own where a logit depends on its image alone.
        # The standard deviation of a minibatch mixes in the little that an image moves the others'
        # logits, batch normalization more: with it the penalty is another, and weaker.
        total = tf.reduce_sum(discriminator(images))
    gradients = tf.cast(tape.gradient(total, images), tf.float32)
    return tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3])
