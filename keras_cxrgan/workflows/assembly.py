"""What a recipe says, built: its images, its networks, its GAN."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from keras_cxrgan.data import phantom
from keras_cxrgan.data.prepare import ImageSet, prepare_images
from keras_cxrgan.data.records import Record, content_hash, fingerprint
from keras_cxrgan.data.sources import check_unchanged, read_source
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import runtime
from keras_cxrgan.training.gan import GAN

PHANTOM_COUNT = 500


def load_images(
    data: str | None,
    recipe: Recipe,
    *,
    classes: tuple[str, ...] = (),
    split: str | None = None,
    on_bad_file: str = "error",
    cache_dir: Path | None = None,
    memory_budget: int = 2 * 2**30,
    report=None,
) -> ImageSet:
    """Return the prepared uint8 images of a source of films, or of the built-in chest phantom."""
    if data is None:
        if split:
            raise ValueError(f"--split {split} needs --data manifest.csv")
        if report:
            report("phantom", 0, PHANTOM_COUNT)
        labels = classes or ("normal",)
        images, names = phantom.phantoms(
            PHANTOM_COUNT, recipe.image_size, labels=labels, seed=recipe.seed
        )
        hashes = tuple(content_hash(image.tobytes()) for image in images)
        records = tuple(
            Record(f"phantom-{recipe.seed}-{index:05d}", label) for index, label in enumerate(names)
        )
        if report:
            report("phantom", PHANTOM_COUNT, PHANTOM_COUNT)
        return ImageSet(images, records, hashes, fingerprint(hashes), ())
    records, entries = read_source(data, classes, split)
    images = prepare_images(
        records,
        recipe.image_size,
        fit=recipe.fit,
        clahe_clip_limit=recipe.clahe_clip_limit,
        clahe_tiles=recipe.clahe_tiles,
        clahe_size=recipe.clahe_size,
        on_bad_file=on_bad_file,
        cache_dir=cache_dir,
        memory_budget=memory_budget,
        progress=(lambda done, total: report("images", done, total)) if report else None,
    )
    check_unchanged(entries, images.records, images.hashes)
    return images


def build_networks(recipe: Recipe, *, synchronized: bool = False, fused: bool = True):
    """Return (generator, discriminator) as the recipe says.

    Args:
        synchronized: batch statistics over all replicas, for use under a strategy.
        fused: compute UpSampling2D + Conv2D in one step; False gives plain Keras layers.
    """

    def optional(name):
        return None if name == "none" else name

    with runtime.dtype_policy(recipe.precision):
        generator = build_generator(
            recipe.image_size,
            recipe.channels,
            recipe.latent_dim,
            base_size=recipe.base_size,
            width=recipe.width,
            max_width=recipe.generator_max_width,
            upsampling=recipe.upsampling,
            fused=fused,
            kernel_size=recipe.generator_kernel_size,
            activation=recipe.generator_activation,
            normalization=optional(recipe.generator_normalization),
            normalize_base=recipe.normalize_base,
            convention=recipe.convention,
            synchronized=synchronized,
        )
    # A penalty squares gradients of the discriminator, which reduced precision cannot hold.
    with runtime.dtype_policy("float32" if recipe.penalty != "none" else recipe.precision):
        discriminator = build_discriminator(
            recipe.image_size,
            recipe.channels,
            base_size=recipe.base_size,
            width=recipe.width,
            max_width=recipe.discriminator_max_width,
            kernel_size=recipe.discriminator_kernel_size,
            normalization=optional(recipe.discriminator_normalization),
            normalization_affine=recipe.discriminator_normalization_affine,
            dropout=recipe.discriminator_dropout,
            convention=recipe.convention,
            synchronized=synchronized,
        )
    return generator, discriminator


def build_gan(
    recipe: Recipe, strategy: tf.distribute.Strategy | None = None, *, fused: bool = True
) -> GAN:
    """Return the compiled GAN of a recipe, its variables placed by the strategy.

    Example:
        >>> gan = build_gan(Recipe().override(image_size=32, epochs=1))
        >>> gan.fit(training_batches(images, 32), steps_per_epoch=10, shuffle=False)
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        generator, discriminator = build_networks(
            recipe, synchronized=strategy.num_replicas_in_sync > 1, fused=fused
        )
        gan = GAN(
            generator,
            discriminator,
            latent_distribution=recipe.latent_distribution,
            ema_half_life=recipe.ema_half_life,
            seed=recipe.seed,
        )

        def adam(learning_rate):
            optimizer = keras.optimizers.Adam(
                learning_rate, recipe.beta_1, recipe.beta_2, epsilon=recipe.adam_epsilon
            )
            if recipe.precision == "mixed_float16":
                return keras.optimizers.LossScaleOptimizer(optimizer)
            return optimizer

        gan.compile(
            adam(recipe.generator_learning_rate),
            adam(recipe.discriminator_learning_rate),
            loss=recipe.loss,
            label_smoothing=recipe.label_smoothing,
            penalty=None if recipe.penalty == "none" else recipe.penalty,
            penalty_weight=recipe.penalty_weight,
            critic_steps=recipe.critic_steps,
            jit_compile=runtime.use_xla(strategy),
        )
    return gan
