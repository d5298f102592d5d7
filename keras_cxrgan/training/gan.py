"""The GAN: a generator and a discriminator trained against each other by one `train_step`.

Resolution, loss, penalty, number of critic steps and averaging are arguments; there is no
subclass for any of them.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.models.layers import FadeIn
from keras_cxrgan.training import losses

# Streams of random numbers: each purpose draws from its own.
_LATENTS, _MIXING = 0, 1


class GAN(keras.Model):
    """A generator and a discriminator that `fit` trains on batches of real images.

    Random numbers are a pure function of (seed, step, purpose), drawn for the global batch and
    sliced by replica. So a run continues exactly from its step counter, replicas never share
    noise, and the number of replicas does not change what is learnt.

    Args:
        generator: functional model, latents (N, latent_dim) -> images (N, H, W, C) in [-1, 1].
        discriminator: functional model, images -> logits (N, 1).
        latent_distribution: `"normal"` N(0, 1) or `"uniform"` on [-1, 1].
        ema_half_life: images after which a weight counts half in the generator's moving average
            (`ema_generator`, which `generate` then uses); 0 for no average.
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
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if latent_distribution not in ("normal", "uniform"):
            raise ValueError(
                f"latent_distribution must be normal or uniform, got {latent_distribution!r}"
            )
        if generator.output_shape[1:] != discriminator.input_shape[1:]:
            raise ValueError(
                f"the generator makes images {generator.output_shape[1:]} and the discriminator"
                f" takes {discriminator.input_shape[1:]}: give both the same size and channels"
            )
        self.generator = generator
        self.discriminator = discriminator
        self.latent_dim = generator.input_shape[-1]
        self.latent_distribution = latent_distribution
        self.ema_half_life = ema_half_life
        self.seed = seed
        self.ema_generator = None
        if ema_half_life:
            self.ema_generator = keras.models.clone_model(generator)
            self.ema_generator.trainable = False
            # A clone has new weights of its own; the average starts at the generator's.
            self.ema_generator.set_weights(generator.get_weights())
        networks = (self.generator, self.discriminator, self.ema_generator)
        self.fading = [
            layer
            for network in networks
            if network is not None
            for layer in network.layers
            if isinstance(layer, FadeIn)
        ]
        self._make_images = tf.function(
            lambda latents: self(latents, training=False),
            input_signature=[tf.TensorSpec([None, self.latent_dim], tf.float32)],
        )
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.images_seen = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="images_seen",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

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
        critic_steps: int = 1,
        **kwargs,
    ):
        """Set the objective and the optimizers.

        Args:
            loss: a name in `keras_cxrgan.training.losses.LOSSES`.
            label_smoothing: one-sided, for the cross-entropy losses: real labels are 1 minus it.
            penalty: `"gradient_penalty"`, `"r1"` or None; computed in float32.
            critic_steps: discriminator updates in one step, each on fresh images: `fit` then
                needs batches `critic_steps` times as large.
            **kwargs: of `keras.Model.compile`, for example `jit_compile`, `run_eagerly`.
        """
        if loss not in losses.LOSSES:
            raise ValueError(f"loss must be one of {', '.join(losses.LOSSES)}, got {loss!r}")
        if penalty not in (None, "gradient_penalty", "r1"):
            raise ValueError(f"penalty must be gradient_penalty, r1 or None, got {penalty!r}")
        if label_smoothing and loss not in losses.CROSS_ENTROPY:
            raise ValueError(f"label_smoothing does not apply to loss {loss!r}")
        if critic_steps < 1:
            raise ValueError(f"critic_steps must be 1 or more, got {critic_steps}")
        if penalty and any(layer.compute_dtype != "float32" for layer in self.discriminator.layers):
            raise ValueError(
                f"penalty {penalty} needs a discriminator that computes in float32 (squared"
                " gradients lose their digits below it); build it under the float32 policy"
            )
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
        self.critic_steps = critic_steps
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
        self.trackers = {name: RunningMean(name=name) for name in names}

    @property
    def metrics(self):
        return list(getattr(self, "trackers", {}).values())

    def call(self, latents, training=False):
        """Latents (N, latent_dim) -> images (N, H, W, C), of the averaged generator if any."""
        return (self.ema_generator or self.generator)(latents, training=training)

    def train_step(self, real_images):
        """Update the discriminator `critic_steps` times and the generator once.

        Args:
            real_images: this replica's share, (critic_steps * N, H, W, C) in [-1, 1].

        Returns the metrics, as means since the epoch began. `*_score` is D's probability that an
        image is real (its raw output for the losses that are no cross-entropy):
        `fake_score_before` and `_after` the discriminator's update, on the same images.
        """
        # Every critic_steps-th image, and not consecutive parts: then two replicas, each with
        # half of the images, form the same batches together as one replica with all.
        batches = [real_images[index :: self.critic_steps] for index in range(self.critic_steps)]
        latents = [
            self._draw_latents(_LATENTS, index, tf.shape(batch)[0])
            for index, batch in enumerate(batches)
        ]
        for index in range(self.critic_steps - 1):
            fake_images = self.generator(latents[index], training=True)
            self._update_discriminator(index, batches[index], fake_images)
        with tf.GradientTape() as tape:
            # The last fake images serve both updates, as in the DCGAN tutorial.
            fake_images = self.generator(latents[-1], training=True)
            with tape.stop_recording():
                self._update_discriminator(self.critic_steps - 1, batches[-1], fake_images)
            fake_logits = self.discriminator(fake_images, training=True)
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
        self.step.assign_add(1)
        results = {name: tracker.result() for name, tracker in self.trackers.items()}
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras reduces the logs of several workers along axis 0, which a scalar lacks.
            results = {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def _update_discriminator(self, index, real_images, fake_images):
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(real_images, training=True)
            fake_logits = self.discriminator(fake_images, training=True)
            smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
            loss = self.discriminator_loss(real_logits, fake_logits, **smoothing)
            objective = loss
            if self.penalty:
                penalty, penalty_norm = self._penalize(index, real_images, fake_images)
                objective += self.penalty_weight * penalty
            scaled = self._scale(self.discriminator_optimizer, objective)
        norm = self._apply(self.discriminator_optimizer, tape, scaled, self.discriminator)
        self._track(
            discriminator_loss=objective,
            discriminator_gradient_norm=norm,
            real_score=self._score(real_logits),
            fake_score_before=self._score(fake_logits),
        )
        if self.loss_name == "wasserstein":
            self._track(wasserstein_estimate=-loss)
        if self.penalty:
            self._track(penalty_gradient_norm=penalty_norm)

    def _penalize(self, index, real_images, fake_images):
        def discriminator(images):
            return self.discriminator(images, training=True)

        if self.penalty == "r1":
            return losses.r1_penalty(discriminator, real_images)
        mixing = self._draw(_MIXING, index, tf.shape(real_images)[0], (1, 1, 1), "unit")
        return losses.gradient_penalty(discriminator, real_images, fake_images, mixing)

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
        optimizer.apply(gradients, variables)
        return tf.linalg.global_norm(gradients) / self._scale(optimizer, tf.constant(1.0))

    def _average_generator(self, seen):
        # A short memory at first: the average would otherwise hold on to the initial weights.
        half_life = tf.minimum(
            tf.cast(self.ema_half_life, tf.float32),
            0.05 * tf.cast(self.images_seen + seen, tf.float32),
        )
        rate = 1.0 - tf.pow(0.5, tf.cast(seen, tf.float32) / half_life)

        def average(strategy, averages, values, rate):
            def step_towards(average, value, rate):
                average.assign_add(tf.cast(rate, average.dtype) * (value - average))

            for average, value in zip(averages, values):
                strategy.extended.update(average, step_towards, args=(value, rate), group=False)

        # Moving statistics of the normalization are averaged too: they belong to the weights.
        tf.distribute.get_replica_context().merge_call(
            average,
            args=(
                [variable.value for variable in self.ema_generator.variables],
                [variable.value for variable in self.generator.variables],
                rate,
            ),
        )

    def _track(self, **values):
        numbers = list(values.values())
        if self.distribute_strategy.num_replicas_in_sync > 1:
            # `RunningMean` needs the same number on every replica: the mean over all of them.
            context = tf.distribute.get_replica_context()
            numbers = context.all_reduce(tf.distribute.ReduceOp.MEAN, numbers)
        for name, number in zip(values, numbers):
            self.trackers[name].update_state(number)

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
        position = (self.step * self.critic_steps + index) * 2 + stream
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
    ) -> np.ndarray:
        """Return images (count, H, W, C), float32 in [-1, 1]; image i is fixed by (seed, i).

        Args:
            start: index of the first image, so that any part of a set can be made alone.
            truncation: keep latents within this distance of 0 (standard deviations, or the
                fraction of a uniform latent's range): fewer odd images, less variety.
        """
        parts = []
        for first in range(start, start + count, batch_size):
            part = min(batch_size, start + count - first)
            latents = indexed_latents(
                seed, first, part, self.latent_dim, self.latent_distribution, truncation
            )
            parts.append(self._make_images(latents).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, *self.generator.output_shape[1:]))


class RunningMean(keras.metrics.Metric):
    """The mean of a number over the steps since the last reset.

    Under a strategy the number must be the same on every replica. (Keras' own `Mean` lets each
    replica add to the sum of all in Keras 3.9, so that later steps count ever more.)
    """

    def __init__(self, name: str):
        super().__init__(name=name)
        self.total, self.count = (
            tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
            for _ in range(2)
        )

    def update_state(self, value):
        self.total.assign_add(tf.cast(value, tf.float32))
        self.count.assign_add(1.0)

    def result(self):
        return tf.math.divide_no_nan(self.total, self.count)

    def reset_state(self):
        self.total.assign(0.0)
        self.count.assign(0.0)


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
    seed, start, count = (tf.cast(value, tf.int64) for value in (seed, start, count))

    def one(index):
        key = tf.stack([seed, index])
        if truncation is None:
            return draw_latents([latent_dim], key, distribution)
        if distribution == "uniform":
            return truncation * draw_latents([latent_dim], key, distribution)
        # The inverse of the normal distribution function, on the probabilities within the bound.
        outside = 0.5 * (1.0 + tf.math.erf(-tf.cast(truncation, tf.float32) / tf.sqrt(2.0)))
        unit = draw_latents([latent_dim], key, "unit")
        return tf.math.ndtri(outside + tf.clip_by_value(unit, 1e-6, 1 - 1e-6) * (1 - 2 * outside))

    return tf.map_fn(one, start + tf.range(count), fn_output_signature=tf.float32)
