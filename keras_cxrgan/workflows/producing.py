"""What a finished run gives: its generator, images of it, exports, figures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import generated
from keras_cxrgan.data.images import decode, to_uint8
from keras_cxrgan.models.layers import group_size, whole_groups
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing.export import read_export, write_export
from keras_cxrgan.sharing.figures import compare_rows
from keras_cxrgan.training import state
from keras_cxrgan.training.noise import class_of, images_at_once, indexed_latents
from keras_cxrgan.workflows.assembly import build_networks, images_together

SAMPLE_COUNT = 64
SHOWN_PIXELS = 2**22  # of a grid: no more images than these hold, but four
GRID_GAP = 2


def sample_count(image_size: int) -> int:
    """Return how many images of a size a grid shows: 64, fewer of large ones."""
    return min(SAMPLE_COUNT, max(4, SHOWN_PIXELS // image_size**2))


def check_seed(seed: int) -> None:
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit in 64 bits, got {seed}")


def sampled(
    generator: keras.Model,
    card: dict,
    count: int,
    seed: int = 0,
    truncation: float | None = None,
    batch_size: int | None = None,
    label: int | tuple[int, ...] | None = None,
):
    """Yield (index of the first, uint8 images (n, S, S, C)) until `count` images are made.

    Args:
        label: number of a class in the card's order, or of several, each in its share; None for
            all. A generator without classes has none.
    """
    size = card["images"]["shape"][0]
    batch_size = whole_groups(batch_size or images_at_once(size), group_size(generator))

    # Whole batches always, also for the last images: see `images_at_once`.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def sample(first):
        inputs = indexed_latents(
            seed, first, batch_size, card["latent_dim"], card["latent_distribution"], truncation
        )
        if card.get("classes"):
            numbers = class_numbers(card, first + tf.range(batch_size, dtype=tf.int64), label)
            inputs = [inputs, tf.one_hot(numbers, len(card["classes"]))]
        return generator(inputs, training=False)

    for first in range(0, count, batch_size):
        yield first, to_uint8(sample(first).numpy()[: count - first])


def class_numbers(card: dict, indices, label: int | tuple[int, ...] | None = None):
    """Return the class of each image that `sampled` makes with this `label`, int32 (n,)."""
    films = np.array(list(card["classes"].values()))
    chosen = np.arange(len(films)) if label is None else np.atleast_1d(label)
    return tf.gather(tf.constant(chosen, tf.int32), class_of(indices, films[chosen]))


def check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    held = out.exists() and any(not path.name.startswith(".") for path in out.iterdir())
    if held and not overwrite:  # a .git or .DS_Store stays in any case
        raise ValueError(f"{out} already holds files; choose another --out, or pass --overwrite")
    generated.check_replaceable(out)


def load_generator(source: str | Path, best: bool = False) -> tuple[keras.Model, dict]:
    """Return (generator, card) of a run directory or an export directory.

    Args:
        best: of a run, the checkpoint that scored best and not the newest state; the card's
            `selection` then says by which score it was chosen.
    """
    source = runs.newest_stage(Path(source))
    if (source / "card.json").is_file():
        if best:
            raise ValueError(
                f"{source} is an export, which holds one generator: give the run it came from with"
                " --best, or leave --best out"
            )
        return read_export(source)
    if not (source / "recipe.json").is_file():
        raise ValueError(
            f"{source} is no run and no export: it holds neither recipe.json nor card.json;"
            " train one with cxrgan train --out RUN"
        )
    recipe = runs.read_recipe(source)
    selection = None
    if best:
        weights, selection = state.best_weights(source / "checkpoints")
        seen = selection["images_seen"]
    else:
        weights, seen = state.generator_weights(source / "backup")
    # Plain layers in float32: the weights are the same whatever trained them.
    plain = dataclasses.replace(recipe, precision="float32")
    about = source / "data.json"
    data = runs.read_json(about) if about.is_file() else {}
    classes = data.get("labels", {})
    if recipe.conditional and not classes:
        raise ValueError(
            f"{about} does not say which classes the run was trained on: bring the file back, or"
            " train again"
        )
    generator, _ = build_networks(plain, classes=len(classes), fused=False)
    generator.set_weights(weights)
    return generator, _card(recipe, data, weights, seen, selection)


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    best: bool = False,
) -> Path:
    """Write a run's generator as SavedModel, `.keras` file and card; return the folder.

    Args:
        out: a folder; None for `export` in the run, or `export-best`.
        best: the checkpoint that scored best, and not the newest state.

    Raises `ValueError` when the folder exists (unless `overwrite`) or cannot be written.
    """
    # `export` belongs to the newest state: the end of a run writes it anew.
    out = Path(out) if out else Path(run) / ("export-best" if best else "export")
    check_out(out, overwrite)
    generator, card = load_generator(run, best)

    def latents(seed, count):
        return indexed_latents(seed, 0, count, card["latent_dim"], card["latent_distribution"])

    try:
        write_export(out, generator, latents, card, group_size(generator))
    except OSError as error:
        raise ValueError(
            f"cannot write the export to {out}: {error.strerror or error}; choose another --out"
        ) from error
    return out


def is_exported(run: Path, images_seen: int) -> bool:
    card = run / "export" / "card.json"
    try:
        return json.loads(card.read_text())["images_seen"] == images_seen
    except (OSError, ValueError, KeyError, TypeError):
        return False  # none, or a damaged one: the export is made anew


def figure(
    names: list[str],
    out: str | Path,
    *,
    columns: int = 10,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write a PNG that shows real images above generated ones, a band for each run.

    Generated images are the first of the seed, and real ones the first of the run's grid; none
    is chosen by eye.

    Raises `ValueError` for what is no run, and for a file that is there unless `overwrite`.
    """
    out = Path(out)
    check_seed(seed)
    if out.exists() and (out.is_dir() or not overwrite):
        raise ValueError(f"{out} is there already; choose another --out, or pass --overwrite")
    bands = []
    for name in names:
        run = runs.newest_stage(Path(name))
        generator, card = load_generator(run)
        if not (run / "reals.png").is_file():
            raise ValueError(f"{run} holds no reals.png; a figure compares runs, not exports")
        fakes = np.concatenate([images for _, images in sampled(generator, card, columns, seed)])
        label = f"{card['recipe']['name']}, {card['images_seen']:,} images seen"
        bands.append((label, _first_reals(run, card["recipe"]["image_size"], columns), fakes))
    out.parent.mkdir(parents=True, exist_ok=True)
    compare_rows(bands, out)
    return out


def _first_reals(run: Path, image_size: int, count: int) -> np.ndarray:
    grid = decode((run / "reals.png").read_bytes())
    rows, per_row = ((side + GRID_GAP) // (image_size + GRID_GAP) for side in grid.shape)
    if count > rows * per_row:
        raise ValueError(
            f"{run / 'reals.png'} holds {rows * per_row} images; pass --columns {rows * per_row} or less"
        )
    starts = [divmod(index, per_row) for index in range(count)]
    step = image_size + GRID_GAP
    return np.stack(
        [grid[row * step :, column * step :][:image_size, :image_size] for row, column in starts]
    )


def _card(recipe: Recipe, data: dict, weights, images_seen: int, selection: dict | None) -> dict:
    classes = data.get("labels", {})
    of_class, said = ("", "") if not classes else (
        ", label int32",
        "; label is the number of a class, " + ", ".join(f"{n} {c}" for n, c in enumerate(classes)),
    )  # fmt: skip
    together, imported = images_together(recipe), ""
    if together:
        imported = "; import keras_cxrgan.models.layers before it is loaded"
        said += f"; each {together} consecutive are normalized together"
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return {
        "format": 1,
        "what": "generator of synthetic chest X-rays; research use only, not for diagnosis",
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "model": digest.hexdigest()[:16],
        "images_seen": images_seen,
        "averaged_weights": recipe.ema_half_life > 0,
        "selection": selection,  # the newest state is not chosen by any score
        "latent_dim": recipe.latent_dim,
        "latent_distribution": recipe.latent_distribution,
        # By name, films of each; their order is that of the labels.
        **({"classes": classes} if classes else {}),
        "images": {
            "shape": [recipe.image_size, recipe.image_size, recipe.channels],
            "generator.keras": f"float32 in [-1, 1]{imported}",
            "saved_model": "uint8 in [0, 255], rint((x + 1) * 127.5)",
        },
        "signatures": {
            "serving_default": f"latents (n, latent_dim) float32{of_class} -> images{said}",
            "sample": f"n int32, seed int32{of_class} -> images; image i is fixed by (seed, i"
            f"{', label' if classes else ''}){said}",
        },
        "data": {
            key: data[key]
            for key in ("source", "classes", "split", "count", "fingerprint", "leaks")
            if key in data
        },
        "recipe": json.loads(recipe.to_json()),
    }
