"""The GAN: a generator and a discriminator trained against each other by one `train_step`.

Resolution, loss, penalty, number of critic steps, averaging, augmentation and classes are
arguments; there is no subclass for any of them.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.models.layers import FadeIn, group_size, whole_groups
from keras_cxrgan.training import augmentation, losses, runtime
from keras_cxrgan.training.means import RunningMean, move_towards, shared_variable
from keras_cxrgan.training.noise import class_of, draw_latents, indexed_latents

# Streams of random numbers: each purpose draws from its own.
_LATENTS, _MIXING, _AUGMENT_REAL, _AUGMENT_FAKE, _AUGMENT_AGAIN = range(5)


class GAN(keras.Model):
    """A generator and a discriminator that `fit` trains on batches of real images.

    Random numbers are a pure function of (seed, step, purpose), drawn for the global batch and
    sliced by replica. So a run continues exactly from its step counter, replicas never share
    noise, and their number does not change what is learnt: but for dropout, which draws alike on
    all, and the standard deviation of a minibatch, whose groups end at a replica's last image.

    Args:
        generator: functional model, latents (N, latent_dim) -> images (N, H, W, C) in [-1, 1].
        discriminator: functional model, images -> logits (N, 1).
            A conditional pair takes [latents, labels] and [images, labels], labels one-hot
            (N, classes), and `fit` then needs batches (images, labels).
        latent_distribution: `"normal"` N(0, 1) or `"uniform"` on [-1, 1].
        ema_half_life: images after which a weight counts half in the generator's moving average
            (`ema_generator`, which `generate` then uses); 0 for no average.
        class_shares: of a conditional pair, how often each class is made where none is asked for;
            any positive numbers, such as the numbers of films.
        seed: whole number that decides all noise of training.

    Example:
        >>> gan = GAN(build_generator(64), build_discriminator(64))
        >>> gan.compile(keras.optimizers.Adam(2e-4, 0.5), keras.optimizers.Adam(2e-4, 0.5))
        >>> gan.fit(training_batches(images, batch_size=32), epochs=2, steps_per_epoch=10)
        >>> gan.generate(16, seed=0).shape
        (16, 64, 64, 1)
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        latent_distribution: str = "normal",
        ema_half_life: int = 0,
        class_shares: tuple[float, ...] = (),
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if latent_distribution not in ("normal", "uniform"):
            raise ValueError(
                f"latent_distribution must be normal or uniform, got {latent_distribution!r}"
            )
        latents, images = (network.inputs[0].shape for network in (generator, discriminator))
        if generator.output_shape[1:] != images[1:]:
            raise ValueError(
                f"the generator makes images {generator.output_shape[1:]} and the discriminator"
                f" takes {images[1:]}: give both the same size and channels"
            )
        classes = {_classes(generator), _classes(discriminator), len(class_shares)}
        if len(classes) > 1:
            raise ValueError(
                f"the generator has {_classes(generator)} classes, the discriminator"
                f" {_classes(discriminator)} and class_shares {len(class_shares)}: give all the same"
            )
        self.generator = generator
        self.discriminator = discriminator
        self.latent_dim = latents[-1]
        self.class_shares = tuple(class_shares)
        self.latent_distribution = latent_distribution
        self.ema_half_life = ema_half_life
        self.seed = seed
        self.ema_generator = None
        if ema_half_life:
            self.ema_generator = keras.models.clone_model(generator)
            self.ema_generator.trainable = False
            # A clone has new weights of its own; the average starts at the generator's.
            self.ema_generator.set_weights(generator.get_weights())
        networks = [each for each in (generator, discriminator, self.ema_generator) if each]
        self.fading = [each for net in networks for each in net.layers if isinstance(each, FadeIn)]
        self.in_float32 = runtime.InFloat32(discriminator)
        specifications = [tf.TensorSpec([None, self.latent_dim], tf.float32)]
        if class_shares:
            specifications.append(tf.TensorSpec([None], tf.int64))
        self._make_images = tf.function(
            lambda *inputs: self(self._labelled(*inputs), training=False),
            input_signature=specifications,
        )
        self.step = shared_variable(0, tf.int64, "step")
        self.images_seen = shared_variable(0, tf.int64, "images_seen")

        # The networks come built. Otherwise Keras would build the model by calling it on the
        # data, and data are images where `call` takes latents.
        self.built = True

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer,
        discriminator_optimizer: keras.optimizers.Optimizer,
        *,
        loss: str = "non_saturating",
        label_smoothing: float = 0.0,
        penalty: str | None = None,
        penalty_weight: float = 10.0,
        penalty_interval: int = 1,
        critic_steps: int = 1,
        augmentations: tuple[str, ...] = (),
        augmentation_probability: float = 1.0,
        augmentation_target: float = 0.0,
        augmentation_ramp: int = 500_000,
        augmentation_memory: int = 1,
        consistency_weight: float = 0.0,
        **kwargs,
    ):
        """Set the objective and the optimizers.

        Args:
            loss: a name in `keras_cxrgan.training.losses.LOSSES`.
            label_smoothing: one-sided, for the cross-entropy losses: real labels are 1 minus it.
            penalty: `"gradient_penalty"`, `"r1"` or None; computed in float32.
            penalty_interval: discriminator updates between two with a penalty, which then weighs
                as many times as much (lazy regularization, Karras et al. 2020); above 1 it is
                computed with the statistics of inference and without dropout.
            critic_steps: discriminator updates in one step, each on fresh images: `fit` then
                needs batches `critic_steps` times as large.
            augmentations: names in `augmentation.AUGMENTATIONS`, for all that the discriminator
                sees, real and generated (DiffAugment, Zhao et al. 2020).
            augmentation_probability: with which each of them changes an image, at first.
            augmentation_target: ADA (Karras et al. 2020) moves the probability to keep the share
                of real images judged real, less that judged generated, at this number; 0 = no ADA.
            augmentation_ramp: images in which that probability could go from 0 to 1; 0.8 is its end.
            augmentation_memory: images over which that share is averaged; a batch's at least.
            consistency_weight: the augmentations then do not replace the images; instead this
                times (D(image) - D(augmented image))^2 is added for both sides (balanced
                consistency regularization, Zhao et al. 2021).
            **kwargs: of `keras.Model.compile`, for example `jit_compile`, `run_eagerly`.
        """
        if loss not in losses.LOSSES:
            raise ValueError(f"loss must be one of {', '.join(losses.LOSSES)}, got {loss!r}")
        if penalty not in (None, "gradient_penalty", "r1"):
            raise ValueError(f"penalty must be gradient_penalty, r1 or None, got {penalty!r}")
        if label_smoothing and loss not in losses.CROSS_ENTROPY:
            raise ValueError(f"label_smoothing does not apply to loss {loss!r}")
        counts = {"critic_steps": critic_steps, "penalty_interval": penalty_interval}
        for name, number in counts.items():
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number}")
        if not augmentations and (augmentation_target or consistency_weight):
            raise ValueError("augmentation_target and consistency_weight need augmentations")
        super().compile(optimizer=None, **kwargs)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        # Built here and not in the first step: otherwise weights loaded before it would leave
        # the optimizers' moments behind without a word.
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.loss_name = loss
        self.discriminator_loss, self.generator_loss = losses.LOSSES[loss]
        self.label_smoothing = label_smoothing
        self.penalty = penalty
        self.penalty_weight = penalty_weight
        self.penalty_interval = penalty_interval
        self.critic_steps = critic_steps
        self.augmentations = tuple(augmentations)
        self.augmentation_target = augmentation_target
        self.augmentation_ramp = augmentation_ramp
        self.augmentation_memory = augmentation_memory
        self.consistency_weight = consistency_weight
        self.augmentation_probability = shared_variable(
            augmentation_probability, tf.float32, "augmentation_probability"
        )
        self.overfitting = shared_variable(0.0, tf.float32, "overfitting")
        names = [
            "discriminator_loss",
            "generator_loss",
            "real_score",
            "fake_score_before",
            "fake_score_after",
            "discriminator_gradient_norm",
            "generator_gradient_norm",
        ]
        names += ["wasserstein_estimate"] if loss == "wasserstein" else []
        names += ["penalty_gradient_norm"] if penalty else []
        names += ["real_sign"] if augmentations else []
        names += ["augmentation_probability"] if augmentation_target else []
        self.trackers = {name: RunningMean(name=name) for name in names}

    @property
    def metrics(self):
        return list(getattr(self, "trackers", {}).values())

    def call(self, latents, training=False):
        """Latents (N, latent_dim) -> images (N, H, W, C), of the averaged generator if any."""
        return (self.ema_generator or self.generator)(latents, training=training)

    def train_step(self, data):
        """Update the discriminator `critic_steps` times and the generator once.

        Args:
            data: this replica's share of real images, (critic_steps * N, H, W, C) in [-1, 1]; of
                a conditional pair (images, labels), labels being class numbers (critic_steps * N).
                Generated images take the labels of the real ones beside them.

        Returns the metrics, as means since the epoch began. `*_score` is D's probability that an
        image is real (its raw output for the losses that are no cross-entropy), `fake_*_before` and
        `_after` its update, of the same generated images, which augmentations change anew.
        """
        real_images, labels = data if self.class_shares else (data, None)
        # Every critic_steps-th image, and not consecutive parts: then two replicas, each with
        # half of the images, form the same batches together as one replica with all.
        steps = self.critic_steps
        batches = [real_images[index::steps] for index in range(steps)]
        labels = [None if labels is None else labels[index::steps] for index in range(steps)]
        latents = [
            self._labelled(self._draw_latents(_LATENTS, index, tf.shape(batch)[0]), labels[index])
            for index, batch in enumerate(batches)
        ]
        for index in range(steps - 1):
            fake_images = self.generator(latents[index], training=True)
            self._update_discriminator(index, batches[index], fake_images, labels[index])
        with tf.GradientTape() as tape:
            # The last fake images serve both updates, as in the DCGAN tutorial.
            fake_images = self.generator(latents[-1], training=True)
            with tape.stop_recording():
                sign = self._update_discriminator(steps - 1, batches[-1], fake_images, labels[-1])
            seen_images = self._seen(fake_images, _AUGMENT_AGAIN, steps - 1)
            fake_logits = self._judge(seen_images, labels[-1])
            loss = self.generator_loss(fake_logits)
            scaled = self._scale(self.generator_optimizer, loss)
        norm = self._apply(self.generator_optimizer, tape, scaled, self.generator)
        self._track(
            generator_loss=loss,
            generator_gradient_norm=norm,
            fake_score_after=self._score(fake_logits),
        )
        replicas = self.distribute_strategy.num_replicas_in_sync
        seen = tf.cast(replicas * tf.shape(real_images)[0], tf.int64)
        if self.ema_generator is not None:
            self._average_generator(seen)
        self.images_seen.assign_add(seen)
        for layer in self.fading:
            layer.follow(self.images_seen)
        if self.augmentation_target:
            self._adapt_augmentation(sign, seen)
        self.step.assign_add(1)
        results = {name: tracker.result() for name, tracker in self.trackers.items()}
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras reduces the logs of several workers along axis 0, which a scalar lacks.
            results = {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def _update_discriminator(self, index, real_images, fake_images, labels):
        """Return ADA's signal over all replicas, where there are augmentations."""
        real_seen = self._seen(real_images, _AUGMENT_REAL, index)
        fake_seen = self._seen(fake_images, _AUGMENT_FAKE, index)
        with tf.GradientTape() as tape:
            real_logits = self._judge(real_seen, labels)
            fake_logits = self._judge(fake_seen, labels)
            smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
            loss = self.discriminator_loss(real_logits, fake_logits, **smoothing)
            objective = loss
            if self.consistency_weight:
                for images, logits, stream in (
                    (real_images, real_logits, _AUGMENT_REAL),
                    (fake_images, fake_logits, _AUGMENT_FAKE),
                ):
                    again = self._judge(self._augment(images, stream, index), labels)
                    objective += self.consistency_weight * losses.consistency(logits, again)
            if self.penalty:
                penalty, norm, due = self._penalize(index, real_seen, fake_seen, labels)
                objective += self.penalty_weight * self.penalty_interval * penalty
            scaled = self._scale(self.discriminator_optimizer, objective)
        gradient_norm = self._apply(self.discriminator_optimizer, tape, scaled, self.discriminator)
        self._track(
            discriminator_loss=objective,
            discriminator_gradient_norm=gradient_norm,
            real_score=self._score(real_logits),
            fake_score_before=self._score(fake_logits),
        )
        if self.loss_name == "wasserstein":
            self._track(wasserstein_estimate=-loss)
        if self.penalty:
            self._track(due, penalty_gradient_norm=norm)
        if self.augmentations:
            return self._track(real_sign=augmentation.overfitting(real_logits))

    def _penalize(self, index, real_images, fake_images, labels):
        """Return (penalty, mean gradient norm, whether it was due), zeros where it was not."""

        lazy = self.penalty_interval > 1

        def discriminator(images):
            # In a branch no state may move: replicas cannot meet there.
            return self._judge(images, labels, training=not lazy)

        def compute():
            # Squares of gradients lose their digits in bfloat16.
            with self.in_float32:
                if self.penalty == "r1":
                    return losses.r1_penalty(discriminator, real_images)
                mixing = self._draw(_MIXING, index, tf.shape(real_images)[0], (1, 1, 1), "unit")
                return losses.gradient_penalty(discriminator, real_images, fake_images, mixing)

        if not lazy:
            return *compute(), 1.0
        update = self.step * self.critic_steps + index
        due = tf.equal(update % self.penalty_interval, 0)
        return *tf.cond(due, compute, lambda: (0.0, 0.0)), tf.cast(due, tf.float32)

    def _judge(self, images, labels, training=True):
        return self.discriminator(self._labelled(images, labels), training=training)

    def _labelled(self, inputs, labels=None):
        """Return what a network takes: the inputs, with one-hot labels where it has classes."""
        if not self.class_shares:
            return inputs
        return [inputs, tf.one_hot(labels, len(self.class_shares))]

    def _seen(self, images, stream, index):
        """Return the images as the discriminator sees them."""
        return images if self.consistency_weight else self._augment(images, stream, index)

    def _augment(self, images, stream, index):
        if not self.augmentations:
            return images
        shape = (augmentation.NUMBERS,)
        numbers = self._draw(stream, index, tf.shape(images)[0], shape, "unit")
        probability = self.augmentation_probability
        return augmentation.augment(images, numbers, self.augmentations, probability)

    def _scale(self, optimizer, loss):
        """Return a replica's loss as its share of the global batch's mean loss.

        The one place where the number of replicas enters a gradient: Keras sums gradients over
        replicas, and each replica's loss is the mean over its own images only. The optimizer's
        factor is 1, but for float16's loss scale.
        """
        return optimizer.scale_loss(loss / self.distribute_strategy.num_replicas_in_sync)

    def _apply(self, optimizer, tape, scaled_loss, network):
        """Apply the gradients; return the norm of this replica's mean gradient."""
        variables = network.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = runtime.finite_on_all(gradients)
        optimizer.apply(gradients, variables)
        return tf.linalg.global_norm(gradients) / self._scale(optimizer, tf.constant(1.0))

    def _average_generator(self, seen):
        # A short memory at first: the average would otherwise hold on to the initial weights.
        half_life = tf.minimum(
            tf.cast(self.ema_half_life, tf.float32),
            0.05 * tf.cast(self.images_seen + seen, tf.float32),
        )
        rate = 1.0 - tf.pow(0.5, tf.cast(seen, tf.float32) / half_life)
        # Moving statistics of the normalization are averaged too: they belong to the weights.
        move_towards(self.ema_generator.variables, self.generator.variables, rate)

    def _adapt_augmentation(self, sign, seen):
        signal = augmentation.smooth(self.overfitting, sign, seen, self.augmentation_memory)
        self.overfitting.assign(signal)
        ways = (self.augmentation_target, seen, self.augmentation_ramp)
        probability = augmentation.adapt(self.augmentation_probability, signal, *ways)
        self.augmentation_probability.assign(probability)
        self.trackers["augmentation_probability"].update_state(probability)

    def _track(self, weight=1.0, **values):
        """Count the means over all replicas in the metrics; return the first."""
        numbers = list(values.values())
        if self.distribute_strategy.num_replicas_in_sync > 1:
            # `RunningMean` needs the same number on every replica: the mean over all of them.
            context = tf.distribute.get_replica_context()
            numbers = context.all_reduce(tf.distribute.ReduceOp.MEAN, numbers)
        for name, number in zip(values, numbers):
            self.trackers[name].update_state(number, weight)
        return numbers[0]

    def _score(self, logits):
        if self.loss_name in losses.CROSS_ENTROPY:
            logits = tf.sigmoid(logits)
        return tf.reduce_mean(logits)

    def _draw_latents(self, stream, index, count):
        return self._draw(stream, index, count, (self.latent_dim,), self.latent_distribution)

    def _draw(self, stream, index, count, shape, distribution):
        """Return this replica's slice of the global batch's random numbers, (count, *shape)."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        position = self.step * self.critic_steps + index
        # Latents and mixing have the even and odd places; what came later, those below 0.
        position = 2 * position + stream if stream < 2 else -1 - 3 * position - (stream - 2)
        seed = tf.stack([tf.constant(self.seed, tf.int64), position])
        numbers = draw_latents([replicas * count, *shape], seed, distribution)
        return numbers[replica * count : (replica + 1) * count]

    def generate(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        batch_size: int = 64,
        truncation: float | None = None,
        label: int | None = None,
    ) -> np.ndarray:
        """Return images (count, H, W, C), float32 in [-1, 1]; image i is fixed by (seed, i).

        Args:
            start: index of the first image, so that any part of a set can be made alone.
            truncation: keep latents within this distance of 0 (standard deviations, or the
                fraction of a uniform latent's range): fewer odd images, less variety.
            label: class of all images, of a conditional pair; None for each in its share.
        """
        group = group_size(self.generator)
        begin, end = start // group * group, whole_groups(start + count, group)
        batch_size = whole_groups(batch_size, group)
        parts = [np.zeros((0, *self.generator.output_shape[1:]), np.float32)]
        for first in range(begin, end, batch_size):
            part = min(batch_size, end - first)
            inputs = [
                indexed_latents(
                    seed, first, part, self.latent_dim, self.latent_distribution, truncation
                )
            ]
            if self.class_shares:
                indices = tf.range(first, first + part, dtype=tf.int64)
                drawn = class_of(indices, self.class_shares)
                inputs.append(tf.cast(drawn if label is None else tf.fill([part], label), tf.int64))
            parts.append(self._make_images(*inputs).numpy())
        return np.concatenate(parts)[start - begin :][:count]


def _classes(network: keras.Model) -> int:
    """Return the number of classes of a network, 0 if it takes no labels."""
    return network.inputs[1].shape[-1] if len(network.inputs) > 1 else 0
