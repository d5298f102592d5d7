"""What a finished run gives: images, exports, figures."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import sources
from keras_cxrgan.data.images import decode, encode_png, image_grid, to_uint8, write_png
from keras_cxrgan.data.records import content_hash
from keras_cxrgan.data.splits import crossing
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing.export import read_export, write_export
from keras_cxrgan.sharing.figures import compare_rows
from keras_cxrgan.training import state
from keras_cxrgan.training.gan import indexed_latents
from keras_cxrgan.workflows.assembly import build_networks

SAMPLE_COUNT = 64
SHOWN_PIXELS = 2**22  # of a grid: no more images than these hold, but four
MANIFEST_COLUMNS = ["file", "index", "seed", "truncation", "sha256", "model"]
GRID_GAP = 2


def sample_count(image_size: int) -> int:
    """Return how many images of a size a grid shows: 64, fewer of large ones."""
    return min(SAMPLE_COUNT, max(4, SHOWN_PIXELS // image_size**2))


def generate(
    source: str | Path,
    out: str | Path,
    count: int,
    *,
    seed: int = 0,
    grid: bool = False,
    truncation: float | None = None,
    overwrite: bool = False,
    best: bool = False,
    held_out: str | None = None,
    allow_leak: bool = False,
    batch_size: int | None = None,
    report=None,
) -> dict:
    """Write `count` generated PNG files and `manifest.csv` into a folder; return a summary.

    Image i depends on the model, the seed and i alone. Memory does not grow with `count`.

    Args:
        source: a run directory (its newest state) or an export directory.
        grid: also write `grid.png` with the first images.
        truncation: keep latents within this distance of 0; None for all.
        best: use a run's best checkpoint (`train --evaluate-every`) and not its newest state.
        held_out: films (as `read_source` names them) that the run must not have been trained on.
        allow_leak: make the images all the same; each then says so in its text.
        batch_size: images made at once; None for 32, fewer of large ones.

    Raises `ValueError` when `out` already holds files and `overwrite` is false, and when the
    run was trained on films of `held_out`.
    """
    if count < 1:
        raise ValueError(f"-n must be 1 or more, got {count}")
    if truncation is not None and not truncation > 0:
        raise ValueError(f"--truncation must be above 0, got {truncation}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit in 64 bits, got {seed}")
    out, source = Path(out), runs.newest_stage(Path(source))
    _check_out(out, overwrite)
    generator, card = load_generator(source, best)
    leaks = list(card["data"].get("leaks", ()))
    if held_out:
        leaks += _crossed(source, held_out, allow_leak)
    out.mkdir(parents=True, exist_ok=True)
    _remove_generated(out)

    shown_at_most = sample_count(card["images"]["shape"][0])
    digits = max(6, len(str(count - 1)))
    first_images = []
    manifest = out / "manifest.csv"
    with runs.replacing(manifest) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(MANIFEST_COLUMNS)
        for first, images in sampled(generator, card, count, seed, truncation, batch_size):
            for offset, image in enumerate(images):
                index = first + offset
                name = f"{index:0{digits}d}.png"
                text = {
                    "Software": f"keras_cxrgan {keras_cxrgan.__version__}",
                    "Comment": "Synthetic chest X-ray made by a generative model; not a patient.",
                    "Model": card["model"],
                    "Seed": str(seed),
                    "Index": str(index),
                    **({"Warning": f"Leak allowed: {'; '.join(leaks)}"} if leaks else {}),
                }
                data = encode_png(image, text)
                (out / name).write_bytes(data)
                shown = "" if truncation is None else truncation
                writer.writerow([name, index, seed, shown, content_hash(data), card["model"]])
            if grid and len(first_images) < shown_at_most:
                first_images.extend(images[: shown_at_most - len(first_images)])
            if report:
                report("generating", first + len(images), count)
    if grid:
        write_png(out / "grid.png", image_grid(np.stack(first_images)))
    return {
        "out": str(out),
        "images": count,
        "seed": seed,
        "manifest": str(manifest),
        "grid": str(out / "grid.png") if grid else None,
        "model": card["model"],
        "selection": card.get("selection"),  # exports of earlier versions lack it
        "leaks": leaks,
    }


def _crossed(run: Path, held_out: str, allowed: bool) -> list[str]:
    """Refuse a run that was trained on held-out films; or say so, where that is allowed."""
    trained_on = runs.films_of(run)
    if trained_on is None:
        raise ValueError(
            f"{run} does not list the films it was trained on, so --held-out cannot be checked:"
            " give the run and not its export"
        )
    reading, entries = sources.read_source(held_out, allow_leak=allowed)
    hashes = [entry.sha256 for entry in entries] or [
        content_hash(r.read()) for r in reading.records
    ]
    names, originals = zip(*((record.name, record.original) for record in reading.records))
    crossed = crossing(trained_on, names, hashes, originals)
    if crossed and not allowed:
        more = ", ..." if len(crossed) > 3 else ""
        raise ValueError(
            f"{run} was trained on {len(crossed)} of the {len(hashes)} films of {held_out}"
            f" ({', '.join(crossed[:3])}{more}): train a run without them, or pass --allow-leak,"
            " which every image will say"
        )
    return [f"trained on {len(crossed)} of the films of {held_out}"] if crossed else []


def sampled(
    generator: keras.Model,
    card: dict,
    count: int,
    seed: int = 0,
    truncation: float | None = None,
    batch_size: int | None = None,
):
    """Yield (index of the first, uint8 images (n, S, S, C)) until `count` images are made."""
    size = card["images"]["shape"][0]
    batch_size = batch_size or min(32, max(1, 32 * 256**2 // size**2))

    # Whole batches always, also for the last images: the size of a batch decides the order in
    # which TensorFlow adds, and so the last digit.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def sample(first):
        latents = indexed_latents(
            seed, first, batch_size, card["latent_dim"], card["latent_distribution"], truncation
        )
        return generator(latents, training=False)

    for first in range(0, count, batch_size):
        yield first, to_uint8(sample(first).numpy()[: count - first])


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} already holds files; choose another --out, or pass --overwrite")


def _remove_generated(out: Path) -> None:
    """Remove what an earlier `generate` wrote, so that no folder mixes images of two models."""
    manifest = out / "manifest.csv"
    if not manifest.exists():
        return
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        earlier = list(rows) if rows.fieldnames == MANIFEST_COLUMNS else []
    for row in earlier:
        image = out / Path(row["file"]).name
        # The hash keeps a file that somebody else put under this name.
        if image.is_file() and content_hash(image.read_bytes()) == row["sha256"]:
            image.unlink()
    if earlier:
        manifest.unlink()
        (out / "grid.png").unlink(missing_ok=True)


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
    recipe = Recipe.from_json((source / "recipe.json").read_text())
    selection = None
    if best:
        weights, selection = state.best_weights(source / "checkpoints")
        seen = selection["images_seen"]
    else:
        weights, seen = state.generator_weights(source / "backup")
    # Plain layers in float32: the weights are the same whatever trained them.
    plain = dataclasses.replace(recipe, precision="float32")
    generator, _ = build_networks(plain, fused=False)
    generator.set_weights(weights)
    return generator, _card(recipe, source, weights, seen, selection)


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
    _check_out(out, overwrite)
    generator, card = load_generator(run, best)

    def latents(seed, count):
        return indexed_latents(seed, 0, count, card["latent_dim"], card["latent_distribution"])

    try:
        write_export(out, generator, latents, card)
    except OSError as error:
        raise ValueError(
            f"cannot write the export to {out}: {error.strerror or error}; choose another --out"
        ) from error
    return out


def is_exported(run: Path, images_seen: int) -> bool:
    card = run / "export" / "card.json"
    return card.is_file() and json.loads(card.read_text())["images_seen"] == images_seen


def figure(names: list[str], out: str | Path, *, columns: int = 10, seed: int = 0) -> Path:
    """Write a PNG that shows real images above generated ones, a band for each run.

    Generated images are the first of the seed, and real ones the first of the run's grid; none
    is chosen by eye.
    """
    bands = []
    for name in names:
        run = runs.newest_stage(Path(name))
        generator, card = load_generator(run)
        if not (run / "reals.png").is_file():
            raise ValueError(f"{run} holds no reals.png; a figure compares runs, not exports")
        latents = indexed_latents(seed, 0, columns, card["latent_dim"], card["latent_distribution"])
        fakes = to_uint8(generator(latents, training=False).numpy())
        label = f"{card['recipe']['name']}, {card['images_seen']:,} images seen"
        bands.append((label, _first_reals(run, card["recipe"]["image_size"], columns), fakes))
    out = Path(out)
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


def _card(recipe: Recipe, run: Path, weights, images_seen: int, selection: dict | None) -> dict:
    data = json.loads((run / "data.json").read_text()) if (run / "data.json").is_file() else {}
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
        "images": {
            "shape": [recipe.image_size, recipe.image_size, recipe.channels],
            "generator.keras": "float32 in [-1, 1]",
            "saved_model": "uint8 in [0, 255], rint((x + 1) * 127.5)",
        },
        "signatures": {
            "serving_default": "latents (n, latent_dim) float32 -> images",
            "sample": "n int32, seed int32 -> images; image i is fixed by (seed, i)",
        },
        "data": {
            key: data[key]
            for key in ("source", "classes", "split", "count", "fingerprint", "leaks")
            if key in data
        },
        "recipe": json.loads(recipe.to_json()),
    }
