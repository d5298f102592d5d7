"""Watch a run for the ways in which GANs fail silently: collapse, a lost game, an explosion.

The losses may look healthy all the while. Collapse shows in the images themselves: those of
different latents come to resemble each other. A discriminator that has won shows in its scores. An
explosion is over within a few steps, after which the losses come down and the images do not
recover: it shows in the gradients of one tick.
"""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_cxrgan.training import losses

COLLAPSED = 0.25  # of the real films' distance
WON = 0.98  # real score minus fake score, both probabilities
EXPLODED = 100.0  # times the median gradient norm of the ticks before; healthy runs stay below 25
FEWEST_TICKS = 20  # of which a median is taken
AUGMENTED = "augmentation (--set augmentations=translation,cutout)"
PATIENCE = 5  # looks or ticks in a row that must agree
# Images seen from the first to the last of them, at least. Every run begins like a failed one: a
# narrow DCGAN on 70 films recovered by itself after 21,000 images.
PATIENCE_IMAGES = 25_000
# Of each image, in float32: hundreds of large films must not fill the memory.
PIXELS_AT_ONCE = 2**16


def pairwise_distance(images: np.ndarray) -> float:
    """Return the mean over all pairs of images of their RMS difference in grey levels (0-255).

    images: (N, ...) uint8, or float32 in [-1, 1]; N at least 2. Real films of one class lie at 50
    to 65, a collapsed generator's images near 0.

    >>> black, grey, white = np.full((4, 4), -1.0), np.zeros((4, 4)), np.ones((4, 4))
    >>> pairwise_distance(np.stack([black, grey, white]))  # 127.5, 127.5 and 255
    170.0
    """
    if len(images) < 2:
        raise ValueError(f"a distance between images needs 2 or more, got {len(images)}")
    flat = np.asarray(images).reshape(len(images), -1)
    scale = np.float32(1 if flat.dtype == np.uint8 else 127.5)
    products = np.zeros((len(flat), len(flat)))
    for first in range(0, flat.shape[1], PIXELS_AT_ONCE):
        block = flat[:, first : first + PIXELS_AT_ONCE].astype(np.float32) * scale
        # Less their mean, so that small differences are not differences of large numbers.
        block -= block.mean(axis=0)
        products += block @ block.T
    norms = np.diag(products)
    squared = norms[:, None] + norms[None] - 2 * products
    upper = squared[np.triu_indices(len(flat), 1)]
    return float(np.sqrt(np.maximum(upper, 0) / flat.shape[1]).mean())


class WatchCollapse(keras.callbacks.Callback):
    """Logs how different the images of fixed latents are; warns once of each failure that lasts.

    Adds to the logs of a tick in which it looked:

    - `sample_distance`: `pairwise_distance` of the generated images.
    - `sample_distance_ratio`: that over the real films'; 1 is their variety, 0 is one image.

    Put it after `Clock`, which counts the images, and before `RunLog`, which writes the logs.
    What a warning waits for is counted anew in a run that goes on.

    Args:
        latent_count: images of a look.
        seed: of their latents.
        real_distance: `pairwise_distance` of real films, some hundred of them at most.
        report: function of one line; the lines are kept in `warnings` too.
        interval: images seen between two looks; each costs the making of `latent_count` images.
        tick: images seen between two ends of a tick; a stop within one changes no later look.

    Example:
        >>> real = pairwise_distance(films[:256])
        >>> watch = WatchCollapse(real_distance=real, report=print)
    """

    def __init__(
        self,
        *,
        latent_count: int = 64,
        seed: int = 0,
        real_distance: float,
        report=None,
        interval: int = 1,
        tick: int = 1,
    ):
        super().__init__()
        if not real_distance > 0:
            raise ValueError(
                f"the real films' pairwise distance is {real_distance}: they are all the same"
                " film, and a GAN needs different ones (cxrgan inspect shows duplicates)"
            )
        self.latent_count = latent_count
        self.seed = seed
        self.real_distance = real_distance
        self.report = report or (lambda line: None)
        self.interval, self.tick = max(1, interval), max(1, tick)
        self.warnings = []
        self.collapsed, self.won = _Lasting(), _Lasting()
        self.exploded, self.norms = False, []

    def on_train_begin(self, logs=None):
        seen = int(self.model.images_seen.numpy())
        # A run stopped within a tick has not yet looked at the end of it.
        self.next = self._after(seen - seen % self.tick)

    def on_epoch_end(self, epoch, logs=None):
        seen = logs["images_seen"]
        self._watch_scores(logs, seen)
        self._watch_gradients(logs["discriminator_gradient_norm"], seen)
        if seen >= self.next:
            self._look(logs, seen)
            self.next = self._after(seen)

    def _after(self, seen):
        return (seen // self.interval + 1) * self.interval

    def _look(self, logs, seen):
        distance = pairwise_distance(self.model.generate(self.latent_count, seed=self.seed))
        ratio = distance / self.real_distance
        logs["sample_distance"], logs["sample_distance_ratio"] = distance, ratio
        if self.collapsed.lasts(ratio < COLLAPSED, seen):
            self._warn(
                f"the generator may have collapsed: at {seen:,} images seen its images differ by"
                f" {distance:.1f} grey levels, real ones by {self.real_distance:.1f}, so that"
                " different latents give almost the same film. Go back to an earlier checkpoint,"
                f" or train anew with {AUGMENTED} or a penalty (--set penalty=r1, not in float16)"
            )

    def _watch_scores(self, logs, seen):
        if self.model.loss_name not in losses.CROSS_ENTROPY:
            return  # only their scores are probabilities
        gap = logs["real_score"] - logs["fake_score_before"]
        if self.won.lasts(gap > WON, seen):
            self._warn(
                f"the discriminator has won: at {seen:,} images seen it gives real films"
                f" {logs['real_score']:.2f} and generated ones {logs['fake_score_before']:.2f},"
                f" so that the generator learns next to nothing from it. Train anew with {AUGMENTED},"
                " or weaken it: a penalty (--set penalty=r1, not in float16) or a lower learning"
                " rate (--set discriminator_learning_rate=0.0001)"
            )

    def _watch_gradients(self, norm, seen):
        if not math.isfinite(norm):
            return  # of float16, whose loss scale is still looked for; else `StopOnNonFinite` stops
        usual = np.median(self.norms) if len(self.norms) >= FEWEST_TICKS else math.inf
        if usual and norm > EXPLODED * usual and not self.exploded:
            self.exploded = True
            self._warn(
                f"the training has exploded: at {seen:,} images seen the discriminator's gradient"
                f" was {norm / usual:,.0f} times as large as it used to be, which spoils images for"
                " long. Train anew with a shorter memory of gradients (--set beta_2=0.99), lower"
                " learning rates, or --evaluate-every, which keeps the best generator"
            )
        self.norms.append(norm)

    def _warn(self, line):
        self.warnings.append(line)
        self.report(line)


class _Lasting:
    """Says once that something has been so for PATIENCE looks and PATIENCE_IMAGES images."""

    def __init__(self):
        self.looks, self.since, self.said = 0, math.inf, False

    def lasts(self, so: bool, seen: int) -> bool:
        if not so:
            self.looks, self.since = 0, math.inf
            return False
        self.looks += 1
        self.since = min(self.since, seen)
        lasting = self.looks >= PATIENCE and seen - self.since >= PATIENCE_IMAGES
        new, self.said = lasting and not self.said, self.said or lasting
        return new
