"""Which films an experiment trains on: classes, nested subsets, or phantom films."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from keras_cxrgan.recipe import Recipe, recipe_for
from keras_cxrgan.workflows.presenting import write

FEWEST_SCORED = 14  # halves of them have 5 neighbours each
ENOUGH_IMAGES = 3000  # one in a hundred far from all films moves the mean of 50 sets by a tenth
MOST_SETS, MOST_PIXELS = 50, 2**28


def choose_classes(source: str, classes: tuple[str, ...], fewest: int = 1) -> tuple[str, ...]:
    """Return those of `classes` that a source has, or its largest class, which stands in for them.

    () where it has one class or none, or where none is asked for. Letter case does not matter.

    Args:
        fewest: films of `classes` below which the largest class stands in.
    """
    counts = count_classes(source)
    if not classes or len(counts) < 2:
        return ()
    wanted = {name.lower() for name in classes}
    found = tuple(name for name in counts if name.lower() in wanted)
    if found and sum(counts[name] for name in found) >= fewest:
        return found
    return (max(counts, key=counts.get),)


def count_classes(source: str, split: str | None = None) -> dict[str, int]:
    """Return the number of films of each class of a source; films without one do not count."""
    from keras_cxrgan.data.sources import read_source

    counts: dict[str, int] = {}
    for record in read_source(source, split=split)[0].records:
        if record.label:
            counts[record.label] = counts.get(record.label, 0) + 1
    return counts


def count_films(source: str, classes: tuple[str, ...] = ()) -> int:
    """Return the number of films of a source that are of these classes; () for all."""
    from keras_cxrgan.data.sources import read_source

    return len(read_source(source, classes)[0].records)


def choose_recipe(
    data: str | None,
    classes: Sequence[str] = (),
    split: str | None = None,
    layout: str = "auto",
    allow_leak: bool = False,
) -> tuple[str, int | None]:
    """Return the name of the recipe for so many films, where none is named, and their number.

    The built-in phantom, which is for a first look, takes `default`, and its number is None.
    """
    from keras_cxrgan.data.sources import read_source

    if data is None:
        return Recipe().name, None
    reading, _ = read_source(data, classes, split, layout=layout, allow_leak=allow_leak)
    count = len(reading.records)
    return recipe_for(count).name, count


def check_scorable(source: str, classes: tuple[str, ...] = ()) -> None:
    """Raise `ValueError` when a source has too few films of these classes to score against."""
    count = count_films(source, classes)
    if count < FEWEST_SCORED:
        chosen = f" of {', '.join(classes)}" if any(classes) else ""
        raise ValueError(
            f"{source} has {count} films{chosen}, and scores need {FEWEST_SCORED} or more: add films"
        )


def count_apart(data: str, held_out: str | None, classes: tuple[str, ...]) -> tuple[int, int]:
    """Return how many films are trained on and held out; refuse too few, and films of both."""
    from keras_cxrgan.data import sources
    from keras_cxrgan.data.records import content_hash
    from keras_cxrgan.data.splits import crossing

    trained_on = sources.read_source(data, classes)[0].records
    sources.leaks(data, trained_on, allowed=False)
    held = sources.read_source(held_out, classes)[0].records if held_out else ()
    chosen = ", ".join(classes)
    for source, records in ((data, trained_on), (held_out, held)):
        if source and len(records) < FEWEST_SCORED:
            raise ValueError(
                f"{source} has {len(records)} films{f' of {chosen}' if chosen else ''}, and scores"
                f" need {FEWEST_SCORED} or more: add films"
                f"{', or leave --held-out out' if source == held_out else ''}"
            )
    if held:
        ours = {content_hash(record.read()) for record in trained_on}
        ours |= {record.original for record in trained_on if record.original}
        hashes = [content_hash(record.read()) for record in held]
        shared = crossing(
            ours, [record.name for record in held], hashes, [record.original for record in held]
        )
        if shared:
            raise ValueError(
                f"{len(shared)} films of --held-out {held_out} are trained on"
                f" ({Path(shared[0]).name}, ...): hold out films of other patients"
            )
    return len(trained_on), len(held)


def sets_scored(count: int, image_size: int) -> int:
    """Return how many sets of `count` generated images are scored, so that one tells no tale.

    >>> sets_scored(70, 64), sets_scored(500, 128), sets_scored(60, 1024), sets_scored(4000, 64)
    (42, 6, 4, 1)
    """
    images = min(ENOUGH_IMAGES, MOST_PIXELS // image_size**2)
    return min(MOST_SETS, max(1, images // count))


def write_phantom(folder: Path, counts: Mapping[str, int], image_size: int = 128) -> Path:
    """Write phantom films as PNG, `counts` of each class, unless they lie there; return `folder`.

    Classes are the phantom's: normal, pneumonia, covid. The folders' names are in capitals.
    """
    from keras_cxrgan.data.images import write_png
    from keras_cxrgan.data.phantom import phantom

    for label, count in counts.items():
        (folder / label.upper()).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            path = folder / label.upper() / f"{index:05d}.png"
            if not path.exists():
                write_png(path, phantom(index, image_size, label))
    return folder


def nested_subsets(
    source: str, classes: tuple[str, ...], sizes: Iterable[int], folder: Path, seed: int
) -> dict[int, str]:
    """Write a CSV of films for each size, smaller ones inside larger ones; return size -> path.

    Raises `ValueError` when the source has fewer films than the largest size.
    """
    import numpy as np

    from keras_cxrgan.data.sources import read_source

    records = read_source(source, classes)[0].records
    sizes = sorted(sizes)
    if len(records) < sizes[-1]:
        raise ValueError(
            f"{source} holds {len(records):,} films and a subset of {sizes[-1]:,} was asked for:"
            " give more films (--data), or a smaller --scale"
        )
    if any(record.archive or not Path(record.path).exists() for record in records):
        raise ValueError(
            f"subsets are lists of files: unpack {source} and give the folder (--data)"
        )
    order = np.random.default_rng(seed).permutation(len(records))
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for size in sizes:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        known = ("label", "patient", "split", "source", "original")
        writer.writerow(("path", *known[:-1], "original_sha256"))
        for record in (records[index] for index in order[:size]):
            told = (getattr(record, name) for name in known)
            writer.writerow((Path(record.path).resolve(), *told))
        paths[size] = str(folder / f"films-{size}-seed-{seed}.csv")
        write(Path(paths[size]), table.getvalue())
    return paths


def some_films(
    source: str, classes: tuple[str, ...], count: int, folder: Path, seed: int
) -> tuple[str, int]:
    """Return (a source of so many films, how many they are): all of them where there are fewer."""
    available = count_films(source, classes)
    if available <= count:
        return source, available
    return nested_subsets(source, classes, [count], folder, seed)[count], count
