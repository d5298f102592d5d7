"""What a finished run gives: images, exports, figures."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import generated, sources
from keras_cxrgan.data.images import decode, encode_png, image_grid, to_uint8, write_png
from keras_cxrgan.data.records import check_folders, check_known, class_folder, content_hash
from keras_cxrgan.data.splits import crossing
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing.export import read_export, write_export
from keras_cxrgan.sharing.figures import compare_rows
from keras_cxrgan.training import state
from keras_cxrgan.training.noise import class_of, images_at_once, indexed_latents
from keras_cxrgan.workflows.assembly import build_networks

SAMPLE_COUNT = 64
SHOWN_PIXELS = 2**22  # of a grid: no more images than these hold, but four
GRID_GAP = 2


def sample_count(image_size: int) -> int:
    """Return how many images of a size a grid shows: 64, fewer of large ones."""
    return min(SAMPLE_COUNT, max(4, SHOWN_PIXELS // image_size**2))


def generate(
    source: str | Path,
    out: str | Path,
    count: int | None = None,
    *,
    classes: dict[str, int] | None = None,
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
    """Write generated PNG files and `manifest.csv` into a folder; return a summary.

    Image i depends on the model, seed, truncation, i and its class alone. Memory does not grow
    with the number of images. The manifest of a conditional generator's has a column `label`.

    Args:
        source: a run directory (its newest state) or an export directory.
        count: number of images, of a conditional generator each class in its share of the films;
            None for 64.
        classes: of a conditional generator, the number of images of each class. They go to
            `out/CLASS/`, so that `out` is a set of films with labels.
        grid: also write `grid.png` with the first images.
        truncation: keep latents within this distance of 0; None for all.
        best: use a run's best checkpoint (`train --evaluate-every`) and not its newest state.
        held_out: films (as `read_source` names them) that the run must not have been trained on.
        allow_leak: make the images all the same; each then says so in its text.
        batch_size: images made at once; None for 32, fewer of large ones.

    Raises `ValueError` when `out` already holds files and `overwrite` is false, for classes that
    the generator does not know, and when the run was trained on films of `held_out`.
    """
    if classes and count is not None:
        raise ValueError(
            f"-n {count} and --class NAME=COUNT both say how many images: leave -n out, or"
            " leave --class out for all classes in their shares"
        )
    asked = [("-n", count)] + [(f"--class {name}", n) for name, n in (classes or {}).items()]
    for option, number in asked:
        if number is not None and number < 1:
            raise ValueError(f"{option} must be 1 or more, got {number}")
    if truncation is not None and not truncation > 0:
        raise ValueError(f"--truncation must be above 0, got {truncation}")
    _check_seed(seed)
    out, source = Path(out), runs.newest_stage(Path(source))
    _check_out(out, overwrite)
    generator, card = load_generator(source, best)
    parts = _parts(source, card, classes) or {None: count or SAMPLE_COUNT}
    leaks = list(card["data"].get("leaks", ()))
    if held_out:
        leaks += _crossed(source, held_out, allow_leak)
    _check_room(out, sum(parts.values()), card)
    out.mkdir(parents=True, exist_ok=True)
    generated.remove_listed(out)

    total = sum(parts.values())
    shown = sample_count(card["images"]["shape"][0])
    in_grid = {name: max(1, shown * number // total) for name, number in parts.items()}
    digits = max(6, len(str(max(parts.values()) - 1)))
    first_images, made = [], Counter()
    begun: dict[str, int] = {}  # images of each folder; their names alone would fill the memory

    def name_of(folder: str, index: int) -> str:
        return f"{folder}{index:0{digits}d}.png"

    manifest = out / generated.MANIFEST
    with (
        runs.removed_on_error(
            lambda: (out / name_of(folder, i) for folder, end in begun.items() for i in range(end))
        ),
        runs.replacing(manifest) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*generated.COLUMNS, *(["label"] if card.get("classes") else [])])
        blocks = _blocks(generator, card, parts, seed, truncation, batch_size)
        for part, first, images, labels in blocks:
            folder = class_folder(part)
            (out / folder).mkdir(exist_ok=True)
            for index, (image, label) in enumerate(zip(images, labels), first):
                name = name_of(folder, index)
                data = encode_png(image, _text(card, seed, index, truncation, label, leaks))
                begun[folder] = index + 1
                (out / name).write_bytes(data)
                limit = "" if truncation is None else truncation
                row = [name, index, seed, limit, content_hash(data), card["model"]]
                writer.writerow(row if label is None else [*row, label])
            made.update(labels)
            if grid and first < in_grid[part]:
                first_images.extend(images[: in_grid[part] - first])
            if report:
                report("generating", made.total(), total)
    if grid:
        write_png(out / generated.GRID, image_grid(np.stack(first_images)))
    return {
        "out": str(out),
        "images": total,
        "classes": {name: made[name] for name in card.get("classes", ()) if made[name]} or None,
        "seed": seed,
        "manifest": str(manifest),
        "grid": str(out / generated.GRID) if grid else None,
        "model": card["model"],
        "selection": card.get("selection"),  # exports of earlier versions lack it
        "leaks": leaks,
    }


def _parts(source: Path, card: dict, classes: dict[str, int] | None) -> dict[str, int]:
    """Return the number of images of each class, as asked for; refuse classes not known."""
    if not classes:
        return {}
    known = card.get("classes")
    if not known:
        raise ValueError(
            f"{source} knows no classes, so --class does not apply: train one that does with"
            " cxrgan train --set conditional=true on films of two classes or more, or leave"
            " --class out"
        )
    check_known(source, "class", classes, list(known), "--class")
    check_folders(classes)
    return classes


def _check_room(out: Path, count: int, card: dict) -> None:
    """Refuse more images than the disk can hold: a film's PNG takes some two thirds of its pixels."""
    needed = count * math.prod(card["images"]["shape"]) * 2 / 3
    place = next(path for path in (out, *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ValueError(
            f"{count:,} images need some {needed / 2**30:,.1f} GiB and {place} has"
            f" {free / 2**30:,.1f}: ask for fewer, or choose another --out"
        )


def _check_seed(seed: int) -> None:
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit in 64 bits, got {seed}")


def _blocks(generator, card, parts, seed, truncation, batch_size):
    """Yield (class asked for or None, index of the first, images, class of each or None)."""
    known = list(card.get("classes", ()))
    for part, number in parts.items():
        label = None if part is None else known.index(part)
        for first, images in sampled(generator, card, number, seed, truncation, batch_size, label):
            labels = [None] * len(images)
            if known:
                indices = np.arange(first, first + len(images))
                labels = [known[n] for n in class_numbers(card, indices, label).numpy()]
            yield part, first, images, labels


def _text(card: dict, seed, index, truncation, label, leaks: list[str]) -> dict[str, str]:
    about = {"Class": label, "Seed": seed, "Index": index, "Truncation": truncation}
    return {
        "Software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "Comment": "Synthetic chest X-ray made by a generative model; not a patient.",
        "Model": card["model"],
        **{key: str(value) for key, value in about.items() if value is not None},
        **({"Warning": f"Leak allowed: {'; '.join(leaks)}"} if leaks else {}),
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
    label: int | tuple[int, ...] | None = None,
):
    """Yield (index of the first, uint8 images (n, S, S, C)) until `count` images are made.

    Args:
        label: number of a class in the card's order, or of several, each in its share; None for
            all. A generator without classes has none.
    """
    size = card["images"]["shape"][0]
    batch_size = batch_size or images_at_once(size)

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


def _check_out(out: Path, overwrite: bool) -> None:
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
    _check_seed(seed)
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
            "generator.keras": "float32 in [-1, 1]",
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
