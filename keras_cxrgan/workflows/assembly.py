"""What a recipe says, built: its images, its networks, its GAN."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.data import sources
from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.data.prepare import ImageSet, prepare_images
from keras_cxrgan.data.records import Record, content_hash, fingerprint
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.runs import check_batch_size
from keras_cxrgan.training import runtime
from keras_cxrgan.training.gan import GAN

PHANTOM_COUNT = 500


def load_images(
    data: str | None,
    recipe: Recipe,
    *,
    classes: tuple[str, ...] = (),
    split: str | None = None,
    layout: str = "auto",
    allow_leak: bool = False,
    on_bad_file: str = "error",
    cache_dir: Path | None = None,
    memory_budget: int = 2 * 2**30,
    report=None,
) -> ImageSet:
    """Return the prepared uint8 images of a source of films, or of the built-in chest phantom.

    Films of a split that is for judging alone are refused, or with `allow_leak` noted in the
    `leaks` of the set.
    """
    if data is None:
        if split:
            raise ValueError(f"--split {split} needs --data manifest.csv")
        if report:
            report("phantom", 0, PHANTOM_COUNT)
        labels = classes or ("normal",)
        images, names = phantoms(PHANTOM_COUNT, recipe.image_size, labels=labels, seed=recipe.seed)
        hashes = tuple(content_hash(image.tobytes()) for image in images)
        records = tuple(
            Record(f"phantom-{recipe.seed}-{index:05d}", label) for index, label in enumerate(names)
        )
        if report:
            report("phantom", PHANTOM_COUNT, PHANTOM_COUNT)
        return ImageSet(images, records, hashes, fingerprint(hashes), ())
    reading, entries = sources.read_source(
        data, classes, split, layout=layout, allow_leak=allow_leak
    )
    notes, leaks = (
        sources.describe_left_out(reading),
        sources.leaks(data, reading.records, allow_leak),
    )
    if report:
        # What a plain folder is taken for needs no words; a public set's reading does.
        spoken = notes if reading.layout != "folder" else notes[: bool(reading.left_out)]
        for note in [*spoken, *leaks]:
            report("", 0, 0, note)
    images = prepare_films(
        reading.records,
        recipe,
        on_bad_file=on_bad_file,
        cache_dir=cache_dir,
        memory_budget=memory_budget,
        report=report,
    )
    sources.check_unchanged(entries, images.records, images.hashes)
    return dataclasses.replace(images, notes=tuple(notes), leaks=tuple(leaks))


def prepare_films(records, recipe: Recipe, *, report=None, **options) -> ImageSet:
    """Return films as a recipe shows them to its networks; `options` are of `prepare_images`."""
    return prepare_images(
        records,
        recipe.image_size,
        fit=recipe.fit,
        clahe_clip_limit=recipe.clahe_clip_limit,
        clahe_tiles=recipe.clahe_tiles,
        clahe_size=recipe.clahe_size,
        window=recipe.window or None,
        progress=(lambda done, total: report("images", done, total)) if report else None,
        **options,
    )


def number_classes(
    recipe: Recipe, image_set: ImageSet, data: str | None = None
) -> tuple[dict[str, int], np.ndarray | None]:
    """Return (films of each class by name, number of each film's class) for a conditional recipe.

    Classes are numbered in the order of their names, which is that of the dict. For any other
    recipe ({}, None).

    Raises `ValueError` for films of fewer than two classes, or of none.
    """
    if not recipe.conditional:
        return {}, None
    counts = Counter(image_set.labels)
    without = [record.name for record in image_set.records if record.label is None]
    if without and len(counts) > 1:
        raise ValueError(
            f"conditional=true needs the class of every film, and {len(without)} of the"
            f" {len(image_set.records)} films of {data} have none ({without[0]}"
            f"{', ...' if len(without) > 1 else ''}): put each in the folder of its class, or name"
            " the classes to use with --class"
        )
    if len(counts) < 2:
        name, films = next(iter(counts.items()))
        got = "none" if without else f"one ({name}, {films} films)"
        mend = (
            "the phantom has --class normal --class pneumonia --class covid"
            if data is None
            else "give --data with a folder a class, and all of its classes"
        )
        raise ValueError(
            f"conditional=true needs films of two or more classes, got {got}: {mend}; or leave"
            " conditional out"
        )
    counts = dict(sorted(counts.items()))
    numbers = {name: number for number, name in enumerate(counts)}
    return counts, np.array([numbers[label] for label in image_set.labels])


def build_networks(
    recipe: Recipe, *, classes: int = 0, synchronized: bool = False, fused: bool = True
):
    """Return (generator, discriminator) as the recipe says.

    Args:
        classes: number of classes of a conditional recipe's films.
        synchronized: batch statistics over all replicas, for use under a strategy.
        fused: compute UpSampling2D + Conv2D in one step; False gives plain Keras layers.
    """

    def optional(name):
        return None if name == "none" else name

    shared = {
        "residual": recipe.residual,
        "classes": classes,
        "grown_from": recipe.grown_from,
        "growth_width": recipe.growth_width,
        "previous_size": recipe.previous_size,
        "fade_in": recipe.fade_in,
    }
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
            self_modulation=recipe.self_modulation,
            group_size=images_together(recipe),
            convention=recipe.convention,
            synchronized=synchronized,
            **shared,
        )
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
            spectral=recipe.discriminator_spectral,
            minibatch_stddev=recipe.minibatch_stddev,
            minibatch_group=recipe.minibatch_group,
            minibatch_features=recipe.minibatch_features,
            convention=recipe.convention,
            # Also of one replica where a penalty passes through: of two ways in which Keras
            # computes a variance, the other has a wrong gradient of the gradient (layers.py).
            synchronized=synchronized or recipe.penalty != "none",
            **shared,
        )
    return generator, discriminator


def build_gan(
    recipe: Recipe,
    strategy: tf.distribute.Strategy | None = None,
    *,
    class_counts: tuple[int, ...] = (),
    fused: bool = True,
) -> GAN:
    """Return the compiled GAN of a recipe, its variables placed by the strategy.

    Args:
        class_counts: films of each class, of a conditional recipe and no other.

    Example:
        >>> gan = build_gan(Recipe().override(image_size=32, epochs=1))
        >>> gan.fit(training_batches(images, 32), steps_per_epoch=10, shuffle=False)
    """
    strategy = strategy or tf.distribute.get_strategy()
    check_batch_size(recipe, strategy.num_replicas_in_sync)
    if recipe.conditional != bool(class_counts):
        raise ValueError(
            f"a recipe with conditional={str(recipe.conditional).lower()} needs"
            f" {'the films of each class' if recipe.conditional else 'no'} class_counts,"
            f" got {class_counts}"
        )
    # Here and not only at the start of the process: whatever drew random numbers since, a library
    # or a network built for something else, would change the initial weights.
    keras.utils.set_random_seed(recipe.seed % 2**32)
    with strategy.scope():
        generator, discriminator = build_networks(
            recipe,
            classes=len(class_counts),
            synchronized=strategy.num_replicas_in_sync > 1,
            fused=fused,
        )
        gan = GAN(
            generator,
            discriminator,
            latent_distribution=recipe.latent_distribution,
            ema_half_life=recipe.ema_half_life,
            class_shares=class_counts,
            seed=recipe.seed,
        )

        def adam(learning_rate):
            optimizer = keras.optimizers.Adam(
                learning_rate,
                recipe.beta_1,
                recipe.beta_2,
                epsilon=recipe.adam_epsilon,
                gradient_accumulation_steps=recipe.accumulation
                if recipe.accumulation > 1
                else None,
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
            penalty_weight=penalty_weight(recipe),
            penalty_interval=recipe.penalty_interval,
            critic_steps=recipe.critic_steps,
            augmentations=recipe.augmentations,
            augmentation_probability=recipe.augmentation_probability,
            augmentation_target=recipe.augmentation_target,
            augmentation_ramp=recipe.augmentation_ramp,
            augmentation_memory=recipe.augmentation_memory,
            consistency_weight=recipe.consistency_weight,
            jit_compile=runtime.use_xla(strategy),
        )
    return gan


def images_together(recipe: Recipe) -> int:
    """Return how many images of a recipe's generator are normalized together in use; 0 for none.

    As many as in training. Not where classes are asked for, for a group of one class is no batch
    of training; nor in networks that grow, which would not begin as they ended.

    >>> images_together(Recipe(batch_size=16, batches_in_use=True))
    16
    """
    together = recipe.batches_in_use and recipe.generator_normalization == "batch"
    if not together or recipe.conditional or recipe.grown_from:
        return 0
    return recipe.batch_size // recipe.accumulation


def penalty_weight(recipe: Recipe) -> float:
    """Return how much the penalty weighs at the recipe's size.

    R1 adds up squared gradients of pixels. Seen at twice the side, the same feature of an image
    spreads over four times as many, each with a quarter of its gradient: the sum is a quarter, and
    a weight of four times holds the discriminator as much.

    >>> [penalty_weight(Recipe.load("small_data").override(image_size=s)) for s in (64, 128)]
    [0.05, 0.2]
    """
    if not recipe.penalty_size:
        return recipe.penalty_weight
    return recipe.penalty_weight * (recipe.image_size / recipe.penalty_size) ** 2
