"""One name for films, wherever they are listed: what `--data` and its relatives accept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .layouts import read_layout
from .manifest import Entry, is_manifest, read_manifest, verify
from .records import TFDS, Record, check_known, select_classes
from .tables import Reading, read_table

HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Names of splits that nothing may be trained on."""

ALL = "all"
"""As a split, in `read_source`: every film, whichever split it is of."""

_VERSION = re.compile(r"\d+\.\d+\.\d+|\*")


def read_source(
    source: str | Path,
    classes: Sequence[str] = (),
    split: str | None = None,
    *,
    layout: str = "auto",
    allow_leak: bool = False,
) -> tuple[Reading, list[Entry]]:
    """List the films of a source; the manifest's entries too, where it is one.

    | source | read by |
    |---|---|
    | folder, zip or one film | `read_layout`, which recognises the public sets |
    | manifest of `cxrgan split` | `read_manifest` |
    | other CSV or TSV | `read_table` |
    | `tfds:NAME` | `read_tfds`, any tensorflow-datasets set with images |

    `SOURCE:test` names a split like `split="test"`; splits may be joined, `train,val`, and
    `ALL` takes every film. A source with several splits wants one named, so that nobody trains
    on test films unawares. Raises ValueError (one line) for everything a user can mend.
    """
    path, split = named_split(source, split)
    if is_manifest(path):
        chosen = None if split == ALL else split
        entries = read_manifest(path, chosen, classes, allow_leak=allow_leak)
        records = tuple(entry.record for entry in entries)
        _check_one_split(path, records, split)
        return Reading("manifest", records, {}, ()), entries
    if path.startswith(TFDS):
        from .tfrecords import read_tfds

        reading = read_tfds(path.removeprefix(TFDS))
    elif path.lower().endswith((".csv", ".tsv")) and Path(path).is_file():
        reading = read_table(path)
    else:
        reading = read_layout(path, layout)
    records = _of_split(path, reading.records, split)
    kept = tuple(select_classes(list(records), _several(classes), Path(path)))
    left_out = dict(reading.left_out)
    if len(records) < len(reading.records):
        left_out["other split (--split)"] = len(reading.records) - len(records)
    if len(kept) < len(records):
        left_out["other class (--class)"] = len(records) - len(kept)
    return replace(reading, records=kept, left_out=left_out), []


def check_unchanged(entries: Sequence[Entry], records: Sequence[Record], hashes: Sequence[str]):
    """Raise ValueError when files differ from what the manifest says; nothing without one."""
    if entries:
        verify(entries, records, hashes)


def held_out_splits(records: Sequence[Record]) -> list[str]:
    """Return the splits among these films that are for judging alone, sorted.

    >>> held_out_splits([Record("a.png", split="train"), Record("b.png", split="test")])
    ['test']
    """
    return sorted({r.split for r in records if r.split and r.split.lower() in HELD_OUT})


def leaks(
    source: str | Path, records: Sequence[Record], allowed: bool, *, done: str = "trained on"
) -> list[str]:
    """Refuse films of splits that are for judging; where allowed, return what to say of them.

    Raises ValueError that names them, unless `allowed`.
    """
    held_out = held_out_splits(records)
    if not held_out:
        return []
    films = [record for record in records if record.split in held_out]
    if not allowed:
        raise ValueError(
            f"{len(films)} of the {len(records)} films of {source} are of the split"
            f" {' and '.join(held_out)}, which is for judging what is trained ({films[0].name},"
            " ...): give another split (--split train), or pass --allow-leak, which every result"
            " will say"
        )
    return [f"{done} {len(films)} films of the split {' and '.join(held_out)}"]


def describe_left_out(reading: Reading) -> list[str]:
    """Return what was left out and why, in one sentence or none, before the layout's notes."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in reading.left_out.items())
    total = sum(reading.left_out.values())
    return [*([f"left out {total:,} files: {reasons}"] if total else []), *reading.notes]


def check_outside(out: str | Path, *sources: str | Path | None) -> None:
    """Refuse a folder for results inside one of films, whose films its pictures would become."""
    for source in filter(None, sources):
        folder = Path(named_split(source)[0])
        if folder.is_dir() and Path(out).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out {out} lies in {source}, where its pictures would be taken for films: name a"
                " folder outside of it"
            )


def named_split(source: str | Path, split: str | None = None) -> tuple[str, str | None]:
    """Return the path and the split of `SOURCE:SPLIT`; of anything else, it and `split`.

    >>> named_split("tfds:cxr_nih:1.0.0:test")
    ('tfds:cxr_nih:1.0.0', 'test')
    """
    text = str(source)
    path, colon, named = text.rpartition(":")
    is_split = colon and named and not _VERSION.fullmatch(named) and not Path(text).exists()
    # In `tfds:cxr_nih` a folder tfds must not be taken for the set, with cxr_nih as its split.
    is_set = path.startswith(TFDS) if text.startswith(TFDS) else Path(path).exists()
    if not (is_split and is_set):
        return text, split
    if split not in (None, ALL):
        raise ValueError(f"{source} names the split {named!r} and --split the split {split!r}")
    return path, named


def _of_split(path: str, records: tuple[Record, ...], split: str | None) -> tuple[Record, ...]:
    if split in (None, ALL):
        _check_one_split(path, records, split)
        return records
    known = sorted({record.split for record in records if record.split})
    wanted = [name.strip() for name in split.split(",")]
    if not known:
        raise ValueError(
            f"--split {split} needs a set with splits, and {path} has none; make a manifest with"
            f" cxrgan split {path} --out manifest.csv"
        )
    check_known(path, "split", wanted, known, "--split")
    return tuple(record for record in records if record.split in wanted)


def _check_one_split(path: str, records: Sequence[Record], split: str | None) -> None:
    splits = sorted({record.split for record in records if record.split})
    if split is None and len(splits) > 1:
        raise ValueError(
            f"{path} has the splits {', '.join(splits)}: name one with --split"
            f" {_training(splits)}, or as {path}:{_training(splits)}"
        )


def _training(splits: Sequence[str]) -> str:
    return "train" if "train" in splits else splits[-1]


def _several(classes: str | Sequence[str]) -> tuple[str, ...]:
    return (classes,) if isinstance(classes, str) else tuple(classes)
