"""What a recipe may say: one line for each field that is wrong, and how to mend it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from keras_cxrgan.fields import spell

CHOICES = {
    "fit": ("crop", "pad", "stretch"),
    "latent_distribution": ("normal", "uniform"),
    "upsampling": ("transpose", "resize"),
    "generator_activation": ("relu", "leaky_relu"),
    "generator_normalization": ("batch", "instance", "none"),
    "discriminator_normalization": ("batch", "instance", "none"),
    "convention": ("pytorch", "keras"),
    "growth_start": ("random", "former_image"),
    "loss": ("non_saturating", "minimax", "wasserstein", "hinge", "least_squares"),
    "penalty": ("none", "gradient_penalty", "r1"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "evaluate_metric": ("kid", "frechet", "precision", "recall", "density", "coverage"),
}
# As in training/augmentation.py, whose functions these are.
AUGMENTATIONS = ("brightness", "contrast", "scale", "translation", "cutout")
POSITIVE = (
    "image_size",
    "latent_dim",
    "base_size",
    "width",
    "generator_max_width",
    "discriminator_max_width",
    "generator_kernel_size",
    "discriminator_kernel_size",
    "clahe_tiles",
    "minibatch_features",
    "penalty_interval",
    "critic_steps",
    "augmentation_ramp",
    "augmentation_memory",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "adam_epsilon",
    "batch_size",
    "accumulation",
    "epochs",
)
NOT_NEGATIVE = (
    "clahe_clip_limit",
    "clahe_size",
    "penalty_weight",
    "penalty_size",
    "grown_from",
    "previous_size",
    "fade_in",
    "native_ramp",
    "consistency_weight",
    "training_images",
    "ema_half_life",
    "sample_interval",
    "evaluate_interval",
    "evaluate_count",
    "seed",
)
FRACTIONS = ("label_smoothing", "beta_1", "beta_2", "augmentation_target", "rate_decay")
# Fields that act on nothing while another one is off (0, none, no items): field -> the other.
SWITCHES = {
    "clahe_tiles": "clahe_clip_limit",
    "clahe_size": "clahe_clip_limit",
    "normalize_base": "generator_normalization",
    "discriminator_normalization_affine": "discriminator_normalization",
    "minibatch_group": "minibatch_stddev",
    "minibatch_features": "minibatch_stddev",
    "growth_width": "grown_from",
    "penalty_weight": "penalty",
    "penalty_size": "penalty",
    "penalty_interval": "penalty",
    "augmentation_probability": "augmentations",
    "augmentation_ramp": "augmentation_target",
    "augmentation_memory": "augmentation_target",
    "evaluate_count": "evaluate_interval",
    "evaluate_features": "evaluate_interval",
    "evaluate_metric": "evaluate_interval",
}
OFF = (0, "none", ())
LARGEST = 2048  # pixels
FEWEST_ADAPTED = 4  # images of a step: ADA's sign of a mean holds .01 with 1, .4 with 2, for .6
FEWEST_FILMS_EVALUATED = 14  # real ones; a score needs halves in which each has 5 neighbours
FEWEST_EVALUATED = 10  # generated ones; the neighbours of fewer say nothing


def check_effect(recipes: Sequence, named: Collection[str]) -> None:
    """Raise `ValueError` for a field that was named and changes nothing in any of the recipes.

    Who names its switch too, such as penalty=none, has said what is meant.
    """
    for field in named:
        switch = SWITCHES.get(field)
        if switch in named or not switch:
            continue
        values = [getattr(recipe, switch) for recipe in recipes]
        if values and all(value in OFF for value in values):
            raise ValueError(
                f"{field} would change nothing, for {switch} is {spell(values[0])}: set {switch} too"
            )


def wrong_values(recipe) -> list[str]:
    """Return which fields are outside of what they may be, each for itself."""
    wrong = []
    for name, choices in CHOICES.items():
        if getattr(recipe, name) not in choices:
            wrong.append(
                f"{name} must be one of {', '.join(choices)}, got {getattr(recipe, name)!r}"
            )
    for name in POSITIVE:
        if not getattr(recipe, name) > 0:
            wrong.append(f"{name} must be above 0, got {getattr(recipe, name)}")
    for name in NOT_NEGATIVE:
        if getattr(recipe, name) < 0:
            wrong.append(f"{name} must not be negative, got {getattr(recipe, name)}")
    for name in FRACTIONS:
        if not 0 <= getattr(recipe, name) < 1:
            wrong.append(f"{name} must be at least 0 and below 1, got {getattr(recipe, name)}")
    if recipe.seed >= 2**63:
        wrong.append(f"seed must fit in 64 bits, got {recipe.seed}")
    if recipe.minibatch_group < 2:
        wrong.append(
            f"minibatch_group must be 2 or more, to compare images, got {recipe.minibatch_group}"
        )
    if 0 < recipe.evaluate_count < FEWEST_EVALUATED:
        wrong.append(
            f"evaluate_count must be 0 or at least {FEWEST_EVALUATED}, got {recipe.evaluate_count}"
        )
    return wrong


def wrong_sizes(recipe) -> list[str]:
    """Return what is wrong with sizes, channels, window and networks."""
    wrong = []
    size, base = recipe.image_size, recipe.base_size
    if size & (size - 1) or not 32 <= size <= LARGEST:
        lower = 2 ** int(math.log2(min(max(size, 32), LARGEST)))
        near = lower if lower == LARGEST or size - lower < 2 * lower - size else 2 * lower
        wrong.append(
            f"image_size must be a power of two from 32 to {LARGEST}, got {size};"
            f" the nearest is --image-size {near}"
        )
    elif base & (base - 1) or not 2 <= base <= size // 4:
        wrong.append(
            f"base_size must be a power of two from 2 to image_size / 4 = {size // 4}, got {base}"
        )
    elif recipe.discriminator_dropout:
        blocks = int(math.log2(size // base))
        if len(recipe.discriminator_dropout) != blocks:
            wrong.append(
                f"discriminator_dropout needs one rate for each of the {blocks} blocks"
                f" at image_size {size}, got {len(recipe.discriminator_dropout)}"
            )
    if recipe.window and not (
        len(recipe.window) == 2 and 0 <= recipe.window[0] < recipe.window[1] <= 65535
    ):
        wrong.append(
            "window needs two grey levels, 0 <= black < white <= 65535, such as --window"
            f" 0,4095; got {', '.join(f'{level:g}' for level in recipe.window)}"
        )
    if recipe.self_modulation and recipe.generator_normalization == "none":
        wrong.append(
            "self_modulation scales what is normalized: set generator_normalization=batch or"
            " instance, or self_modulation=false"
        )
    if recipe.channels not in (1, 3):
        wrong.append(f"channels must be 1 or 3, got {recipe.channels}")
    if any(not 0 <= rate < 1 for rate in recipe.discriminator_dropout):
        wrong.append(
            f"discriminator_dropout rates must be at least 0 and below 1,"
            f" got {recipe.discriminator_dropout}"
        )
    if recipe.upsampling == "resize" and recipe.generator_kernel_size % 2 == 0:
        wrong.append(
            "generator_kernel_size must be odd with upsampling=resize,"
            f" got {recipe.generator_kernel_size}"
        )
    return wrong


def wrong_objective(recipe) -> list[str]:
    """Return what of the objective does not go together."""
    wrong = []
    if recipe.penalty != "none" and recipe.precision == "mixed_float16":
        wrong.append(
            f"precision mixed_float16 cannot be used with penalty {recipe.penalty}: squared"
            " gradients overflow float16 and the loss scale collapses;"
            " use --precision mixed_bfloat16 or float32"
        )
    if recipe.penalty == "gradient_penalty" and recipe.discriminator_normalization == "batch":
        wrong.append(
            "penalty gradient_penalty needs a gradient for each image, and batch normalization"
            " mixes the images of a batch; set discriminator_normalization=instance"
        )
    if recipe.penalty_size and recipe.penalty == "gradient_penalty":
        wrong.append("penalty_size is of penalty r1; set penalty_size=0 with gradient_penalty")
    if recipe.accumulation > 0 and recipe.batch_size % recipe.accumulation:
        wrong.append(
            f"accumulation must divide batch_size = {recipe.batch_size}, got {recipe.accumulation}"
        )
    if recipe.accumulation > 0:
        wrong += _wrong_parts(recipe, recipe.batch_size // recipe.accumulation)
    if recipe.accumulation > 1 and recipe.precision == "mixed_float16":
        wrong.append("accumulation cannot be used with mixed_float16; use mixed_bfloat16")
    if recipe.label_smoothing and recipe.loss != "non_saturating" and recipe.loss != "minimax":
        wrong.append(
            "label_smoothing applies to the cross-entropy losses non_saturating and minimax,"
            f" got loss={recipe.loss}"
        )
    return wrong + _wrong_augmentation(recipe)


def _wrong_parts(recipe, images: int) -> list[str]:
    """Return what needs more images at a time than a step, or its part, has."""
    wrong = []
    if recipe.minibatch_stddev and images < 2:
        wrong.append(
            "minibatch_stddev compares the images of a step, which has 1: use a larger batch_size,"
            " a smaller accumulation, or minibatch_stddev=false"
        )
    if recipe.augmentation_target and max(images, recipe.augmentation_memory) < FEWEST_ADAPTED:
        wrong.append(
            f"augmentation_target follows the scores of a step, whose {images} images are too few"
            f" (it then holds another value): {FEWEST_ADAPTED} are needed; use"
            " augmentation_memory=256, a larger batch_size, or augmentation_target=0 with an"
            " augmentation_probability"
        )
    return wrong


def _wrong_augmentation(recipe) -> list[str]:
    wrong = []
    if unknown := [name for name in recipe.augmentations if name not in AUGMENTATIONS]:
        wrong.append(
            f"augmentations must be among {', '.join(AUGMENTATIONS)}, got {', '.join(unknown)}"
        )
    if not 0 <= recipe.augmentation_probability <= 1:
        wrong.append(
            f"augmentation_probability must be from 0 to 1, got {recipe.augmentation_probability}"
        )
    for name in ("augmentation_target", "consistency_weight"):
        if getattr(recipe, name) and not recipe.augmentations:
            wrong.append(f"{name} needs augmentations, such as --set augmentations=translation")
    if recipe.augmentation_target and recipe.loss not in ("non_saturating", "minimax", "hinge"):
        wrong.append(
            "augmentation_target needs a loss that decides at a logit of 0 (non_saturating,"
            f" minimax or hinge), got loss={recipe.loss}"
        )
    if recipe.balanced and not recipe.conditional:
        wrong.append("balanced is of the classes of a conditional recipe: pass conditional=true")
    if recipe.conditional and (recipe.grown_from or recipe.generator_normalization != "batch"):
        wrong.append(
            "conditional networks need generator_normalization=batch and do not grow"
            " (grown_from=0): classes have scales and offsets in the batch normalization"
        )
    return wrong
