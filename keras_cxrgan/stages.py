"""What a recipe says of growth: its stages as recipes of their own, and what is wrong with them."""

from __future__ import annotations

import dataclasses

# What each stage may set for itself, and the fields that it sets.
OWN = {
    "stage_batch_sizes": ("batch_size",),
    "stage_accumulations": ("accumulation",),
    "stage_learning_rates": ("generator_learning_rate", "discriminator_learning_rate"),
    "stage_generator_learning_rates": ("generator_learning_rate",),  # wins over the one above
    "stage_epochs": ("epochs",),
    "stage_precisions": ("precision",),
}


def by_stage(recipe) -> list:
    """Return the `Recipe` of each stage, itself of one size; none for a recipe without `stages`.

    >>> [stage.previous_size for stage in by_stage(RECIPES["incremental"])]
    [0, 64, 128, 256, 512, 1024]
    """
    found = []
    for index, size in enumerate(recipe.stages):
        own = {
            field: getattr(recipe, name)[index]
            for name, fields in OWN.items()
            for field in fields
            if getattr(recipe, name)
        }
        if index == 0:
            own.update(fade_in=0, native_ramp=0)
        found.append(
            dataclasses.replace(
                recipe,
                image_size=size,
                previous_size=recipe.stages[index - 1] if index else 0,
                stages=(),
                **dict.fromkeys(OWN, ()),
                **own,
            )
        )
    return found


def wrong_growth(recipe) -> list[str]:
    """Return one line for each field of growth that is wrong; sizes must be powers of two."""
    size, trunk = recipe.image_size, recipe.grown_from
    if not trunk:
        return [
            f"{name} is of networks that grow: set grown_from=64 too"
            for name in ("previous_size", "fade_in", "native_ramp", "stages", "growth_start", *OWN)
            if getattr(recipe, name) not in (0, (), "random")
        ]
    sizes = tuple(2**power for power in range(12) if trunk <= 2**power <= size)
    if trunk not in sizes or trunk < 4 * recipe.base_size:
        return [
            f"grown_from must be a power of two from {4 * recipe.base_size} (4 base_size) to"
            f" {size} (image_size), got {trunk}"
        ]
    wrong = []
    if recipe.previous_size and recipe.previous_size not in sizes[:-1]:
        wrong.append(
            "previous_size must be a power of two from grown_from to below image_size,"
            f" got {recipe.previous_size}"
        )
    blocks = len(sizes) - 1
    if 1 != len(recipe.growth_width) < blocks or any(maps < 1 for maps in recipe.growth_width):
        wrong.append(
            f"growth_width needs one number above 0, or one for each of the {blocks} blocks"
            f" from {trunk} to {size}, got {recipe.growth_width}"
        )
    if recipe.discriminator_dropout:
        wrong.append("discriminator_dropout has no place in networks that grow; leave it out")
    if recipe.fade_in and recipe.residual:
        wrong.append("fade_in has no place in networks with ways around (residual); leave one out")
    if recipe.stages and recipe.training_images:
        wrong.append("training_images has no place in a recipe with stages; set stage_epochs")
    if recipe.growth_start == "former_image":
        wrong += _wrong_start(recipe)
    if recipe.stages and (
        recipe.stages != tuple(other for other in sizes if other in recipe.stages)
        or (recipe.stages[0], recipe.stages[-1]) != (trunk, size)
    ):
        wrong.append(
            f"stages must rise from grown_from = {trunk} to image_size = {size} by doublings,"
            f" such as --set stages={','.join(map(str, sizes))}; got"
            f" {','.join(map(str, recipe.stages))}"
        )
    wrong += [
        f"{name} needs one value for each of the {len(recipe.stages)} stages, got"
        f" {len(getattr(recipe, name))}"
        for name in OWN
        if getattr(recipe, name) and len(getattr(recipe, name)) != len(recipe.stages)
    ]
    return wrong


def _wrong_start(recipe) -> list[str]:
    """Return one line for each field with which networks cannot start from the former image."""
    maps = 2 * recipe.channels
    reasons = {
        f"growth_width of {maps} or more, a plus and a minus map for each channel;"
        f" got {recipe.growth_width}": min(recipe.growth_width, default=maps) < maps,
        "fade_in=0, for nothing is there to fade in": recipe.fade_in,
        "residual=false, for ways around the blocks add to the image": recipe.residual,
        "discriminator_spectral=false, for it scales what carries the image": (
            recipe.discriminator_spectral
        ),
        "kernels of 2 pixels or more; set generator_kernel_size and discriminator_kernel_size": min(
            recipe.generator_kernel_size, recipe.discriminator_kernel_size
        )
        < 2,
        "generator_normalization=batch or none, for instance normalization takes each image's"
        " brightness": recipe.generator_normalization == "instance",
        "discriminator_normalization_affine=true, for it passes on what a scale and offset put"
        " back": recipe.discriminator_normalization != "none"
        and not recipe.discriminator_normalization_affine,
    }
    return [
        f"growth_start=former_image needs {needed} (or set growth_start=random)"
        for needed, missing in reasons.items()
        if missing
    ]
