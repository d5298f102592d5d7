"""The sets of images that an evaluation compares: folders, zips, runs, exports, the phantom."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_cxrgan import runs
from keras_cxrgan.data import sources
from keras_cxrgan.data.generated import read_listing
from keras_cxrgan.data.headers import read_header
from keras_cxrgan.data.images import decode, encode_png
from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.data.prepare import prepare_images
from keras_cxrgan.data.records import Record, content_hash, fingerprint
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.workflows.producing import load_generator, sampled

PHANTOM = "phantom"
PHANTOM_COUNT = 500


@dataclass(frozen=True)
class Preparation:
    """How real films become what the generator was trained on."""

    image_size: int
    fit: str = "crop"
    window: tuple[float, ...] = ()
    clahe_clip_limit: float = 0.0
    clahe_tiles: int = 8
    clahe_size: int = 0
    origin: str = ""  # where these settings come from, in words


@dataclass(frozen=True, eq=False)
class Side:
    """One set of images, uint8 (N, S, S), and everything a report must say of it."""

    label: str
    images: np.ndarray
    hashes: tuple[str, ...]  # of the files; of the pixels where there are no files
    names: tuple[str, ...]
    about: dict  # ready for JSON
    warnings: tuple[str, ...] = ()
    trained_on: frozenset[str] | None = frozenset()  # of a run: hashes of its films; None unknown
    originals: tuple[str | None, ...] = ()  # hashes of the files that the films were made of
    judging: bool = False  # of a split that nothing may be trained on


def is_generator(source: str | Path) -> bool:
    """Whether a path is a run or an export, and not a set of films."""
    source = Path(source)
    return (source / "recipe.json").is_file() or (source / "card.json").is_file()


def choose_preparation(
    sources: Sequence[str],
    *,
    image_size: int | None = None,
    fit: str | None = None,
    clahe: float | None = None,
    window: Sequence[float] | None = None,
) -> Preparation:
    """Return the preparation of the real side: as asked for, as a run's recipe, or by size.

    Args:
        sources: the generated sides; the first run or export decides where nothing is asked.

    Raises `ValueError` when runs disagree, or when no size can be found.
    """
    asked = {"image_size": image_size, "fit": fit, "clahe_clip_limit": clahe, "window": window}
    asked = {name: value for name, value in asked.items() if value is not None}
    recipes = {source: recipe_of(source) for source in sources if is_generator(source)}
    fields = ("image_size", "fit", "window", "clahe_clip_limit", "clahe_tiles", "clahe_size")
    if recipes:
        first, recipe = next(iter(recipes.items()))
        for other, theirs in recipes.items():
            equalized = recipe["clahe_clip_limit"] or theirs["clahe_clip_limit"]
            for name in fields[: None if equalized else 4]:
                if name not in asked and theirs[name] != recipe[name]:
                    flags = {"image_size": "--image-size", "fit": "--fit", "window": "--window"}
                    flag = (flags | {"clahe_clip_limit": "--clahe"}).get(name)
                    raise ValueError(
                        f"{first} and {other} were trained on differently prepared films"
                        f" ({name} {recipe[name]} and {theirs[name]}): evaluate them apart"
                        + (f", or say {flag}" if flag else "")
                    )
        settings = {name: recipe[name] for name in fields} | asked
        return Preparation(**settings, origin=f"the recipe of {first}")
    if "image_size" not in asked:
        sizes = Counter(size for source in sources for size in native_sizes(source))
        if not sizes:
            raise ValueError(f"{sources[0]} holds no PNG, JPEG or DICOM whose size can be read")
        (height, width), _ = sizes.most_common(1)[0]
        asked["image_size"] = min(height, width)
        return Preparation(**asked, origin=f"the size of the images of {sources[0]}")
    return Preparation(**asked, origin="the command")


def recipe_of(source: str | Path) -> dict:
    """Return the recipe of a run or an export; what an older one lacks has its default."""
    source = runs.newest_stage(Path(source))
    path = source / "recipe.json"
    try:
        if path.is_file():
            text = path.read_text()
        else:
            text = json.dumps(json.loads((source / "card.json").read_text())["recipe"])
        return dataclasses.asdict(Recipe.from_json(text))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{source} has a damaged recipe ({error}); export the run again") from None


def native_sizes(source: str) -> list[tuple[int, int]]:
    """Return (height, width) of the images of a folder or zip, as their headers say."""
    if source == PHANTOM:
        return []
    headers = (_header(record) for record in _read(source, "fake")[0].records)
    return [(header.height, header.width) for header in headers if header]


def _header(record: Record):
    try:
        return read_header(record.read())
    except (OSError, ValueError):
        return None  # preparing the file reports it


def load_side(
    source: str,
    preparation: Preparation,
    *,
    role: str,
    count: int | None = None,
    classes: Sequence[str] = (),
    layout: str = "auto",
    allow_leak: bool = False,
    seed: int = 0,
    phantom_seed: int = 0,
    best: bool = False,
    on_bad_file: str = "error",
    cache_dir: Path | None = None,
    memory_budget: int = 2 * 2**30,
    progress=None,
) -> Side:
    """Return the images of a source, prepared.

    Args:
        role: "real" films are prepared as for training; "fake" images are taken as they are, but
            for their size.
        classes: of real films, those to take. Of generated images that have classes, the same
            ones are taken; a run or export makes each in its share of the films.
        count: of a run or export, how many images to make; of films, a seeded choice of so many.
        phantom_seed: of the phantom, that of the recipe which was trained on it.
        best: of a run, take the checkpoint kept by `--evaluate-every`.
    """
    if is_generator(source):
        return _generated_side(
            source, preparation, count, classes, seed, best, memory_budget, progress
        )
    asked, classes = classes, () if role == "fake" else classes
    if source == PHANTOM:
        return _phantom_side(preparation, role, count, classes, phantom_seed)
    reading, entries = _read(source, role, classes, layout, allow_leak)
    records, left_out = _listed(source, list(reading.records))
    if role == "fake":
        records, classes, unknown = _of_classes(source, records, asked)
        left_out += unknown
    found = len(records)
    if count and count < found:
        chosen = np.sort(np.random.default_rng(seed).permutation(found)[:count])
        records = [records[index] for index in chosen]
    headers = [header for header in map(_header, records) if header]
    as_trained = {} if role == "fake" else {
        "window": preparation.window or None,
        "clahe_clip_limit": preparation.clahe_clip_limit,
        "clahe_tiles": preparation.clahe_tiles,
        "clahe_size": preparation.clahe_size,
    }  # fmt: skip
    images = prepare_images(
        records,
        preparation.image_size,
        fit=preparation.fit,
        on_bad_file=on_bad_file,
        cache_dir=cache_dir,
        memory_budget=memory_budget,
        progress=progress,
        **as_trained,
    )
    sources.check_unchanged(entries, images.records, images.hashes)
    codecs = Counter(header.codec for header in headers)
    sizes = Counter((header.height, header.width) for header in headers)
    deep = 0 if preparation.window else sum(
        header.bits > 8 for header in headers if header.codec == "PNG"
    )  # fmt: skip
    about = {
        "source": str(source),
        "kind": "files",
        "classes": list(classes),
        "layout": reading.layout,
        "notes": sources.describe_left_out(reading),
        "count": len(images.images),
        "found": found,
        "fingerprint": images.fingerprint,
        "codecs": dict(codecs),
        "native_sizes": {f"{height}x{width}": n for (height, width), n in sizes.most_common(10)},
        "deeper_than_8_bits": deep,
        "rejected": [list(item) for item in images.rejected],
    }
    return Side(
        label=_label(source, classes),
        images=images.images,
        hashes=images.hashes,
        names=tuple(record.name for record in images.records),
        about=about,
        warnings=(
            *left_out,
            *_file_warnings(source, sizes, deep, images, preparation),
        ),
        originals=tuple(record.original for record in images.records),
        judging=bool(sources.held_out_splits(images.records)),
    )


def _read(source: str, role: str, classes: Sequence[str] = (), layout="auto", allow_leak=False):
    # Generated images lie in plain folders, whatever their names may look like.
    layout = "folder" if role == "fake" else layout
    return sources.read_source(source, tuple(classes), layout=layout, allow_leak=allow_leak)


def _listed(source: str, records: list[Record]) -> tuple[list[Record], list[str]]:
    """Leave out what `cxrgan generate` did not list: somebody put it there."""
    rows = read_listing(source)
    if not rows:
        return records, []
    names = {row["file"] for row in rows}
    kept = [record for record in records if _name_in(source, record) in names]
    others = sorted(
        Path(record.path).name for record in records if _name_in(source, record) not in names
    )
    if not others:
        return records, []
    return kept, [
        f"left out of {source}, because manifest.csv does not list it: {', '.join(others)}"
    ]


def _name_in(source: str, record: Record) -> str:
    if record.archive is not None:
        return record.path
    return Path(record.path).relative_to(source).as_posix()


def _of_classes(source, records, asked):
    """Return the records of the classes asked for, by the listing, a table or folders."""
    listed = {row["file"]: row["label"] for row in read_listing(source) if "label" in row}
    labels = [listed[_name_in(source, r)] if listed else r.label for r in records]
    known = sorted({label for label in labels if label})
    if not known or not asked:
        return records, (), []
    if not listed and not set(known) & set(asked):  # folders that are no classes
        return records, (), [f"all images of {source} were taken: none is of {', '.join(asked)}"]
    chosen, unknown = _known(source, known, asked)
    return [r for r, label in zip(records, labels) if label in chosen], chosen, unknown


def _known(source, known, asked) -> tuple[tuple[str, ...], list[str]]:
    """Return which classes of generated images are asked for, and a warning of others."""
    chosen = tuple(name for name in known if name in asked)
    others = ", ".join(name for name in asked if name not in known)
    if not chosen:
        raise ValueError(
            f"{source} has no images of the class {others} (--class), but of {', '.join(known)}:"
            " name one of these, or give a folder of its images alone (cxrgan generate --class)"
        )
    return chosen, [f"{source} has no images of the class {others}"] if others else []


def _file_warnings(source, sizes, deep, images, preparation):
    if images.rejected:
        names = ", ".join(f"{name} ({reason})" for name, reason in images.rejected[:3])
        more = f" and {len(images.rejected) - 3} more" if len(images.rejected) > 3 else ""
        yield f"left out of {source}: {_count(len(images.rejected), 'file')}: {names}{more}"
    if len(sizes) > 1:
        (height, width), common = sizes.most_common(1)[0]
        yield (
            f"mixed sizes in {source}: {len(sizes)} sizes among {sum(sizes.values())} images, most"
            f" often {height}x{width} ({common}); all were brought to {preparation.image_size}x{preparation.image_size}"
        )
    if deep:
        yield (
            f"{source}: {_count(deep, 'image')} of more than 8 bits without a stated window,"
            " windowed between the 0.1 and 99.9 percentiles of each"
        )
    repeated = len(images.hashes) - len(set(images.hashes))
    if repeated:
        yield f"{source}: {_count(repeated, 'file')} repeating another byte for byte"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _generated_side(
    source, preparation, count, classes, seed, best, memory_budget, progress
) -> Side:
    generator, card = load_generator(source, best=best)
    size = card["recipe"]["image_size"]
    if size != preparation.image_size:
        raise ValueError(
            f"{source} makes images of {size} pixels and the evaluation is at"
            f" {preparation.image_size}: say --image-size {size}"
        )
    count = count or PHANTOM_COUNT
    known, unknown = list(card.get("classes", ())), []
    chosen = tuple(known)
    if known and classes:
        chosen, unknown = _known(source, known, classes)
    numbers = tuple(known.index(name) for name in chosen) or None
    images = _room(count, size, memory_budget)
    for first, block in sampled(generator, card, count, seed=seed, label=numbers):
        images[first : first + len(block)] = grey(block)
        if progress:
            progress(first + len(block), count)
    hashes = tuple(content_hash(image.tobytes()) for image in images)
    label = _label(source, chosen if len(chosen) < len(known) else ())
    label += " (best)" if best else ""
    return Side(
        label=label,
        images=images,
        hashes=hashes,
        names=tuple(f"{label} #{index}" for index in range(count)),
        about={
            "source": str(source),
            "kind": "generator",
            "count": count,
            "fingerprint": fingerprint(hashes),
            "seed": seed,
            **({"classes": list(chosen)} if known else {}),
            **{
                key: card.get(key)
                for key in ("model", "images_seen", "averaged_weights", "selection", "data")
            },
        },
        warnings=tuple(unknown),
        trained_on=runs.films_of(Path(source)),
    )


def grey(images: np.ndarray) -> np.ndarray:
    """Return uint8 (n, S, S) of generated images (n, S, S, C), as their files would be read."""
    if images.shape[-1] == 1:
        return images[..., 0]
    # What reading the written PNG file gives, to the bit.
    return np.stack([decode(encode_png(image)) for image in images])


def _room(count: int, size: int, memory_budget: int) -> np.ndarray:
    shape = (count, size, size)
    if count * size * size <= memory_budget:
        return np.empty(shape, np.uint8)
    # The file has no name any more and goes away with the array.
    return np.memmap(tempfile.TemporaryFile(), np.uint8, shape=shape)


def _phantom_side(preparation, role, count, classes, seed) -> Side:
    seed += role == "held-out"  # those are other patients
    images, _ = phantoms(
        count or PHANTOM_COUNT,
        preparation.image_size,
        labels=tuple(classes) or ("normal",),
        seed=seed,
    )
    hashes = tuple(content_hash(image.tobytes()) for image in images)
    about = {
        "source": PHANTOM,
        "kind": "phantom",
        "classes": list(classes),
        "count": len(images),
        "fingerprint": fingerprint(hashes),
        "seed": seed,
    }
    names = tuple(f"phantom-{seed}-{index:05d}" for index in range(len(images)))
    return Side(_label(PHANTOM, classes), images, hashes, names, about)


def _label(source, classes) -> str:
    return "-".join([Path(source).resolve().name if source != PHANTOM else PHANTOM, *classes])


def trained_on_all(fake: Side, films: Side) -> bool:
    """Whether a generator says that it was trained on just these films: all that an export knows."""
    return (fake.about.get("data") or {}).get("fingerprint") == films.about["fingerprint"]


def pair_warnings(real: Side, fake: Side) -> list[str]:
    """Return what is suspicious about two sides being compared with each other."""
    warned = []
    same = len(set(real.hashes) & set(fake.hashes))
    if same:
        warned.append(
            f"{same} of {len(fake.hashes)} images of {fake.label} are in {real.label}, byte for byte"
        )
    seen = len(real.hashes) if trained_on_all(fake, real) else 0
    seen = seen or sum(digest in (fake.trained_on or ()) for digest in real.hashes)
    if seen:
        warned.append(
            f"{fake.label} was trained on {seen:,} of the {len(real.hashes):,} images of"
            f" {real.label}: a generator that copies its films scores best here; judge it with"
            " --held-out films it never saw"
        )
    codecs = set(real.about.get("codecs", {})) | set(fake.about.get("codecs", {}))
    mixed = [side.label for side in (real, fake) if len(side.about.get("codecs", {})) > 1]
    if mixed or len(codecs) > 1:
        warned.append(
            "mixed codecs ("
            + "; ".join(
                f"{side.label}: " + ", ".join(f"{n} {codec}" for codec, n in codecs.items())
                for side in (real, fake)
                if (codecs := side.about.get("codecs"))
            )
            + "): JPEG alone moves these scores; write generated images as PNG and know your reals"
        )
    theirs, ours = (set(side.about.get("native_sizes", {})) for side in (fake, real))
    if ours and theirs and ours != theirs:
        warned.append(
            "different preprocessing of the two sides: "
            + f"{real.label} came as {_few(ours)}, {fake.label} as {_few(theirs)}; both were"
            " brought to one size here (areas averaged, centre cropped), which must be what the"
            " generator was trained on: see --fit and --clahe"
        )
    return warned


def _few(sizes) -> str:
    return ", ".join(sorted(sizes)[:3]) + (" and others" if len(sizes) > 3 else "")
