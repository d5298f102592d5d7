"""One name for films, wherever they are listed: a folder, a zip, a file, or a manifest's split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .manifest import Entry, is_manifest, read_manifest, verify
from .records import Record, find_records


def read_source(
    source: str | Path,
    classes: Sequence[str] = (),
    split: str | None = None,
    *,
    allow_leak: bool = False,
) -> tuple[list[Record], list[Entry]]:
    """Return the records of a source, and the manifest's entries where it is one.

    `manifest.csv:test` names a split like `split="test"`; splits may be joined, `train,val`. A
    manifest with several splits wants one named, so that nobody trains on test films unawares.
    Raises ValueError (one line) as `read_manifest` and `find_records` do.
    """
    path, named = _suffix(source)
    if named and split:
        raise ValueError(f"{source} names the split {named!r} and --split the split {split!r}")
    split = split or named
    if not is_manifest(path):
        if split:
            raise ValueError(
                f"--split {split} needs a manifest as data, and {path} is none; make one with"
                f" cxrgan split {path} --out manifest.csv"
            )
        return find_records(path, tuple(classes)), []
    entries = read_manifest(path, split, classes, allow_leak=allow_leak)
    splits = sorted({entry.record.split for entry in entries if entry.record.split})
    if split is None and len(splits) > 1:
        raise ValueError(
            f"{path} has the splits {', '.join(splits)}: name one with --split {splits[-1]}, or as"
            f" {path}:{splits[-1]}"
        )
    return [entry.record for entry in entries], entries


def check_unchanged(entries: Sequence[Entry], records: Sequence[Record], hashes: Sequence[str]):
    """Raise ValueError when files differ from what the manifest says; nothing without one."""
    if entries:
        verify(entries, records, hashes)


def _suffix(source: str | Path) -> tuple[str, str | None]:
    text = str(source)
    path, colon, split = text.rpartition(":")
    if colon and path.lower().endswith(".csv") and not Path(text).exists():
        return path, split
    return text, None
