"""Files of generated images, from a run or an export."""

from __future__ import annotations

import csv
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import generated, sources
from keras_cxrgan.data.images import encode_png, image_grid, write_png
from keras_cxrgan.data.records import check_folders, check_known, class_folder, content_hash
from keras_cxrgan.data.splits import crossing
from keras_cxrgan.workflows.producing import (
    SAMPLE_COUNT,
    check_out,
    check_seed,
    class_numbers,
    load_generator,
    sample_count,
    sampled,
)


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
    check_seed(seed)
    out, source = Path(out), runs.newest_stage(Path(source))
    check_out(out, overwrite)
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
