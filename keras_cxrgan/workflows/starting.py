"""What a training begins with that goes on from another run: its weights, class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cxrgan import runs
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.fields import meanings, spell
from keras_cxrgan.models.incremental import transfer
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import state
from keras_cxrgan.workflows.assembly import build_networks

# What weights do not tell: networks that differ in these may have the same layers, or one of them
# a few more, and would take over the others' weights to make other images of them.
SAME = (
    "image_size",
    "upsampling",
    "latent_distribution",
    "generator_activation",
    "generator_normalization",
    "normalize_base",
    "discriminator_normalization",
    "discriminator_normalization_affine",
    "residual",
)


def begin_with(gan, ours: Recipe, earlier: Path, images, classes: tuple[str, ...]) -> list[str]:
    """Give the networks what those of another run have learnt; optimizers start afresh.

    Args:
        gan: as its recipe (`ours`) builds it.
        earlier: the other run; of one with stages, its newest.
        images: uint8 films (N, S, S), some of which set the statistics of new normalizations.
        classes: those of a conditional generator, in its order.

    Returns what is to be said of classes that the other run does not know. Raises `ValueError`
    for a run without a state, or whose networks do not fit.
    """
    earlier = runs.newest_stage(Path(earlier))
    recipe = runs.read_recipe(earlier)
    arrays, _ = state.read_newest(earlier / "backup")
    if arrays is None:
        raise ValueError(f"{earlier} holds no complete state to start from; train it first")
    if recipe.image_size == ours.image_size and ours.fade_in:
        raise ValueError(
            f"{earlier} has images of {ours.image_size} pixels as this run has, whose last block has"
            " learnt already and has nothing to come in after: pass --set fade_in=0"
        )
    other = _differences(recipe, ours)
    if unlike := {name: way for name, way in other.items() if name in SAME}:
        raise ValueError(_other_networks(earlier, unlike))
    total = ours.total_images(len(images))
    if ours.fade_in > total:
        raise ValueError(
            f"the training ends after {total:,} images, before its new blocks have come in: pass"
            f" --set fade_in={total // 2} or less, or more epochs"
        )
    before = ours.previous_size or ours.image_size // 2
    blends = ours.fade_in or ours.native_ramp
    if recipe.image_size not in (ours.image_size, before) and blends:
        # What comes in blends with images of that size, which no block has learnt to make.
        raise ValueError(
            f"{earlier} has images of {recipe.image_size} pixels, and fade_in and native_ramp blend"
            f" with those of {before}: pass --set previous_size={recipe.image_size}"
        )
    known = list(runs.read_json(earlier / "data.json").get("labels", {}))
    generator, discriminator = build_networks(recipe, classes=len(known))
    for network in (generator, discriminator):
        # Dropout's own counters are among the variables, and not among Keras' weights.
        values = state.weights_of(network.name, arrays)
        for variable, value in zip(network.variables, values, strict=True):
            variable.assign(value)
    places, new = (), []
    if known and classes:
        places = tuple(known.index(name) if name in known else None for name in classes)
        new = [name for name in classes if name not in known]
    latents, films = (), ()
    start = ours.growth_start if recipe.image_size < images.shape[1] else "random"
    if start == "former_image":
        # Four batches as in training, whose statistics the new normalizations pass on. Those of
        # real films: with the generator's, the discriminator no longer told them apart.
        count = recipe.batch_size // recipe.accumulation
        random = np.random.default_rng(recipe.seed)
        shape = (4, count, recipe.latent_dim)
        uniform = recipe.latent_distribution == "uniform"
        latents = random.uniform(-1, 1, shape) if uniform else random.normal(size=shape)
        some = images[np.sort(random.permutation(len(images))[: 4 * count])]
        times = images.shape[1] // recipe.image_size
        films = [
            tf.nn.avg_pool2d(batch, times, times, "VALID").numpy()
            for batch in training_batches(some, count, channels=recipe.channels).take(4)
        ]
    try:
        transfer(generator, gan.generator, start=start, batches=latents, classes=places)
        transfer(discriminator, gan.discriminator, start=start, batches=films, classes=places)
    except ValueError as error:
        if not other:
            raise
        # Its advice is general, and the fields to pass have just been named.
        reason = str(error).partition(";")[0]
        raise ValueError(f"{_other_networks(earlier, other)} ({reason})") from None
    if gan.ema_generator is not None:
        gan.ema_generator.set_weights(gan.generator.get_weights())
    if not new:
        return []
    return [
        f"{earlier} knows no class {', '.join(new)}: what is of these classes alone begins anew"
    ]


def _differences(recipe: Recipe, ours: Recipe) -> dict[str, tuple]:
    """Return `{field: (then, now)}` of the networks, where two recipes differ."""
    networks = {name for head, of in meanings(Recipe).items() if "models/" in head for name in of}
    # Networks that grow are of several sizes.
    networks |= {"channels"} if ours.grown_from else {"channels", "image_size"}
    return {name: way for name, way in recipe.difference(ours).items() if name in networks}


def _other_networks(earlier: Path, other: dict[str, tuple]) -> str:
    told = ", ".join(f"{name} {then} and not {now}" for name, (then, now) in other.items())
    fields = " ".join(f"--set {name}={spell(then)}" for name, (then, _) in other.items())
    return f"{earlier} has networks of {told}: pass {fields}"
