"""From films to classic-augmented films: a folder and a table that training takes as data."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import keras_cxrgan
from keras_cxrgan.data import sources
from keras_cxrgan.data.augmentation import ClassicAugmentation, augment
from keras_cxrgan.data.generated import own_file
from keras_cxrgan.data.images import decode, encode_png, fit_square
from keras_cxrgan.data.inspection import FileFacts, read_facts
from keras_cxrgan.data.prepare import BadFiles, in_order
from keras_cxrgan.data.records import (
    Record,
    check_folders,
    class_folder,
    content_hash,
    fingerprint,
)

TABLE = "films.csv"
SUMMARY = "augmentation.json"
CLASSIC = ClassicAugmentation()
# No column is named sha256: a folder's reading passes such tables over, as manifests, and the
# patients would be lost with them.
COLUMNS = ("file", "label", "patient", "split", "source", "original", "original_sha256", "content")


@dataclass(frozen=True)
class _Job:
    """One film with all that is made of it: (index, None) is the film itself."""

    record: Record
    facts: FileFacts
    files: tuple[tuple[str, int | None], ...]  # name below `out`, index of the copy


def augment_films(
    source: str | os.PathLike,
    out: str | os.PathLike,
    count: int,
    *,
    classes: Sequence[str] = (),
    split: str | None = None,
    layout: str = "auto",
    seed: int = 0,
    settings: ClassicAugmentation = CLASSIC,
    image_size: int | None = None,
    fit: str = "crop",
    window: Sequence[float] | None = None,
    keep_originals: bool = True,
    allow_leak: bool = False,
    on_bad_file: str = "error",
    overwrite: bool = False,
    report_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `count` classic-augmented PNG files of each class, and the films; return a summary.

    Every film of a class is used equally often, in an order the seed decides; image i of a class
    depends on the seed, the class, i and the films alone. `films.csv`, or the folder itself, is
    then what `train` and the others take as data, and `augmentation.json` says how it was made.
    A film's patient goes with its copies. Films without one are given the patient `film-` and
    the hash of their content, so that a split by patient keeps them and their copies together.

    Args:
        out: a folder; films go to `out/CLASS/`, and those without a label to `out/`.
        split: of a manifest or a set with splits; films for judging alone are refused.
        settings: ranges and probability of the changes.
        image_size: pixels; None leaves the films as large as they are. Films are changed at
            their own size, before `fit` (crop, pad or stretch) makes them square.
        window: of 16-bit PNGs, see `decode`.
        keep_originals: also write the films themselves, as PNG.
        allow_leak: augment films for judging all the same; every image then says so.
        on_bad_file: "skip" leaves files out that cannot be read.

    Raises `ValueError` when `out` already holds files and `overwrite` is false, and for all else
    a user can mend.

    >>> augment_films("chest_xray/train", "augmented/", 1000, seed=1)  # doctest: +SKIP
    """
    _check_numbers(count, seed, image_size)
    settings.check()
    out = Path(out)
    _check_out(out, overwrite)
    reading, entries = sources.read_source(
        source, tuple(classes), split, layout=layout, allow_leak=allow_leak
    )
    _check_apart(source, reading.records, out)
    leaks = sources.leaks(source, reading.records, allow_leak, done="augmented")
    records, facts, rejected = _look(reading.records, on_bad_file, report_progress)
    sources.check_unchanged(entries, records, [fact.sha256 for fact in facts])
    jobs = _jobs(records, facts, count, seed, keep_originals)
    asked = {
        "source": str(source),
        "classes": list(classes),
        "split": split,
        "count": count,
        "seed": seed,
        "settings": dataclasses.asdict(settings),
        "image_size": image_size,
        "fit": fit,
        "window": None if window is None else list(window),
        "keep_originals": keep_originals,
    }
    wanted = sum(len(job.files) for job in jobs)
    origin = Path(source).resolve().name

    def work(job: _Job) -> list[tuple]:
        data = job.record.read()
        if content_hash(data) != job.facts.sha256:
            raise ValueError(f"{job.record.name} changed while it was read: run the command again")
        film = decode(data, window)
        rows = []
        for name, index in job.files:
            image = film
            if index is not None:
                image = augment(film, settings, _random(seed, job.record.label, index))
            image = image if image_size is None else fit_square(image, image_size, fit)
            png = encode_png(image, _text(job, index, seed, leaks))
            (out / name).write_bytes(png)
            about = (job.record.label, _patient(job), job.record.split, job.record.source or origin)
            rows.append((name, *about, job.record.name, job.facts.sha256, content_hash(png)))
        return rows

    out.mkdir(parents=True, exist_ok=True)
    _remove_augmented(out)
    for folder in {Path(name).parent for job in jobs for name, _ in job.files}:
        (out / folder).mkdir(exist_ok=True)
    rows = []
    for made in in_order(work, jobs, min(os.cpu_count() or 1, 32)):
        rows += made
        if report_progress:
            report_progress("augmenting", len(rows), wanted)
    _write_table(out / TABLE, sorted(rows))
    unknown = sum(fact.patient is None for fact in facts)
    told = (
        f"{unknown:,} of {len(records):,} films have no known patient and each counts as one of"
        " its own, together with its copies"
    )
    summary = {
        **asked,
        "films": len(records),
        "fingerprint": fingerprint(fact.sha256 for fact in facts),
        "images": {
            label or "": sum(row[1] == label for row in rows)
            for label in sorted({record.label for record in records}, key=str)
        },
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "notes": sources.describe_left_out(reading),
        "leaks": leaks,
        "rejected": rejected,
        "warnings": [told] if unknown else [],
    }
    _write(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return {"out": str(out), "table": str(out / TABLE), **summary}


def read_summary(out: str | os.PathLike) -> dict[str, Any] | None:
    """Return `augmentation.json` of a folder of augmented films; None where there is none.

    It is written last, so that a folder that has it is complete.
    """
    try:
        return json.loads((Path(out) / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _check_numbers(count: int, seed: int, image_size: int | None) -> None:
    if count < 1:
        raise ValueError(f"--count must be 1 or more, got {count}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed must be 0 or more and fit in 63 bits, got {seed}")
    if image_size is not None and not 1 <= image_size <= 4096:
        raise ValueError(f"--image-size must be from 1 to 4096, got {image_size}")


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} already holds files; choose another --out, or pass --overwrite")


def _check_apart(source, records: Sequence[Record], out: Path) -> None:
    """Refuse films that --overwrite would remove, and copies that would be found among the films."""
    here, place = out.resolve(), Path(sources.named_split(source)[0]).resolve()
    below = [r for r in records if Path(r.archive or r.path).resolve().is_relative_to(here)]
    if below or (place.is_dir() and here.is_relative_to(place)):
        raise ValueError(
            f"--out {out} and the films of {source} lie in one another: choose a folder apart from"
            " them"
        )


def _look(records: Sequence[Record], on_bad_file: str, report_progress: Callable | None):
    """Return the records that can be read, what each is, and (name, reason) of the others."""
    facts: list[FileFacts] = []
    for fact in in_order(read_facts, records, min(os.cpu_count() or 1, 32)):
        # The picture itself is made again from the file; thousands of thumbnails are not needed.
        facts.append(dataclasses.replace(fact, thumbnail=None))
        if report_progress:
            report_progress("films", len(facts), len(records))
    rejected = [(fact.name, fact.reason) for fact in facts if fact.reason]
    advice = "Remove or repair them, or pass --on-bad-file skip."
    if rejected and (on_bad_file != "skip" or len(rejected) == len(facts)):
        raise BadFiles(rejected, len(facts), advice)
    good = [(record, fact) for record, fact in zip(records, facts) if not fact.reason]
    return [record for record, _ in good], [fact for _, fact in good], rejected


def _jobs(records, facts, count: int, seed: int, keep_originals: bool) -> list[_Job]:
    """Share the copies of each class out over its films."""
    members: dict[str | None, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        members[record.label].append(index)
    check_folders(members)
    files: dict[int, list[tuple[str, int | None]]] = {index: [] for index in range(len(records))}
    for label, indices in members.items():
        folder = class_folder(label)
        # By content, so that neither names nor folders decide what is drawn.
        indices = sorted(indices, key=lambda index: (facts[index].sha256, records[index].name))
        digits = max(6, len(str(max(count, len(indices)))))
        if keep_originals:
            for number, index in enumerate(indices):
                files[index].append((f"{folder}original-{number:0{digits}d}.png", None))
        order = _random(seed, label, -1).permutation(len(indices))
        for copy in range(count):
            index = indices[order[copy % len(indices)]]
            files[index].append((f"{folder}augmented-{copy:0{digits}d}.png", copy))
    return [_Job(records[i], facts[i], tuple(files[i])) for i in files if files[i]]


def _random(seed: int, label: str | None, index: int) -> np.random.Generator:
    # The class is part of the seed, or all classes would be turned and shifted alike.
    return np.random.default_rng([seed, zlib.crc32((label or "").encode()), index + 1])


def _patient(job: _Job) -> str:
    return job.facts.patient or f"film-{job.facts.sha256[:16]}"


def _text(job: _Job, index: int | None, seed: int, leaks: Sequence[str]) -> dict[str, str]:
    comment = "A film as it was, as PNG."
    if index is not None:
        comment = "Classic augmentation of a film: turned, shifted, scaled or exposed differently."
    return {
        "Software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "Comment": comment,
        "Original": Path(job.record.path).name,
        "Original SHA-256": job.facts.sha256,
        **({} if index is None else {"Seed": str(seed), "Index": str(index)}),
        **({"Warning": f"Leak allowed: {'; '.join(leaks)}"} if leaks else {}),
    }


def _remove_augmented(out: Path) -> None:
    """Remove what an earlier `augment_films` wrote, so that no folder mixes two settings."""
    table = out / TABLE
    if not table.is_file():
        return
    with open(table, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        earlier = list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else []
    for row in earlier:
        if image := own_file(out, row["file"], row["content"]):
            image.unlink()
    if earlier:
        table.unlink()
        (out / SUMMARY).unlink(missing_ok=True)


def _write_table(path: Path, rows: Sequence[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    # As `tables` reads: names of files may be bytes that are no text.
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    os.replace(temporary, path)
