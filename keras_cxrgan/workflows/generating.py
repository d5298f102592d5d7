"""Files of generated images, from a run or an export."""

from __future__ import annotations

import csv
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import generated, sources
from keras_cxrgan.data.images import encode_png, image_grid, write_png
from keras_cxrgan.data.records import check_folders, check_known, class_folder, content_hash
from keras_cxrgan.data.splits import crossing
from keras_cxrgan.workflows import screening
from keras_cxrgan.workflows.producing import (
    SAMPLE_COUNT,
    check_out,
    check_seed,
    class_numbers,
    load_generator,
    sample_count,
    sampled,
)

FEWEST_SPARE = 64  # images that may be left out as copies, however few are asked for


class _Image(NamedTuple):
    index: int
    pixels: np.ndarray  # uint8 (S, S, C)
    label: str | None
    copy: bool  # as near to a film as a copy would be


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
    without_copies_of: str | None = None,
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
        without_copies_of: films that it was trained on: leave out every image that `audit` would
            flag as a copy of one, and make another. Indices then have gaps.
        batch_size: images made at once; None for 32, fewer of large ones.

    Raises `ValueError` when `out` already holds files and `overwrite` is false, for classes that
    the generator does not know, when the run was trained on films of `held_out`, and when more
    than half of the images are copies.
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
    sources.check_outside(out, without_copies_of)
    generator, card = load_generator(source, best)
    parts = _parts(source, card, classes) or {None: count or SAMPLE_COUNT}
    leaks = list(card["data"].get("leaks", ()))
    if held_out:
        leaks += _crossed(source, held_out, allow_leak)
    _check_room(out, sum(parts.values()), card)
    is_copy, warnings = None, []
    if without_copies_of:
        is_copy, warnings = screening.screen(
            source, without_copies_of, held_out=held_out, best=best, allow_leak=allow_leak,
            report=report,
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    generated.remove_listed(out)

    total = sum(parts.values())
    shown = sample_count(card["images"]["shape"][0])
    in_grid = {name: max(1, shown * number // total) for name, number in parts.items()}
    digits = max(6, len(str(2 * max(parts.values()) - 1)))
    first_images, made, left_out = [], Counter(), []
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
        for part, images in _images(generator, card, parts, seed, truncation, batch_size, is_copy):
            folder = class_folder(part)
            (out / folder).mkdir(exist_ok=True)
            for image in images:
                name = name_of(folder, image.index)
                if image.copy:
                    left_out.append(name)
                    continue
                data = encode_png(image.pixels, _text(card, seed, image, truncation, leaks))
                begun[folder] = image.index + 1
                (out / name).write_bytes(data)
                limit = "" if truncation is None else truncation
                row = [name, image.index, seed, limit, content_hash(data), card["model"]]
                writer.writerow(row if image.label is None else [*row, image.label])
                if grid and in_grid[part]:
                    first_images.append(image.pixels)
                    in_grid[part] -= 1
                made[image.label] += 1
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
        "left_out": left_out,
        "warnings": warnings,
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


def _images(generator, card, parts, seed, truncation, batch_size, is_copy):
    """Yield (class asked for or None, list of `_Image`), block after block, until all are made."""
    known = list(card.get("classes", ()))
    for part, number in parts.items():
        label = None if part is None else known.index(part)
        # Half of the images may be copies: a generator that makes more of them is of no use.
        spare = max(number, FEWEST_SPARE) if is_copy else 0
        missing, end = number, number + spare
        for first, images in sampled(generator, card, end, seed, truncation, batch_size, label):
            indices = np.arange(first, first + len(images))
            copies = is_copy(images) if is_copy else np.zeros(len(images), bool)
            # The last one needed ends it: what comes after is not made.
            wanted = np.searchsorted(np.cumsum(~copies), missing) + 1
            labels = [None] * len(images)
            if known:
                labels = [known[n] for n in class_numbers(card, indices, label).numpy()]
            block = [_Image(*each) for each in zip(indices.tolist(), images, labels, copies)]
            yield part, block[:wanted]
            missing -= int((~copies[:wanted]).sum())
            if not missing:
                break
        if missing:
            raise ValueError(
                f"{end - number + missing:,} of the first {end:,} images"
                f"{'' if part is None else f' of {part}'} lie as near to a film as a copy would: this"
                " generator has learnt its films by heart (cxrgan audit shows the pairs); train it on"
                " more films, or for fewer images"
            )


def _text(card: dict, seed, image: _Image, truncation, leaks: list[str]) -> dict[str, str]:
    about = {
        "Class": image.label,
        "Seed": seed,
        "Index": image.index,
        "Truncation": truncation,
    }
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
