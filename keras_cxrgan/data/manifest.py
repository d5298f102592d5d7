"""The manifest: which file belongs to which split, and what its content was."""

from __future__ import annotations

import csv
import os
import re
import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .records import TFDS, Record, check_known
from .splits import straddling

COLUMNS = ("path", "sha256", "label", "patient", "source", "split")
"""The columns that every manifest has; `fold` and `original_sha256` follow where they are known."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENCODING = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}


@dataclass(frozen=True)
class Entry:
    """One row: the file with its label, patient and split, the hash of its content, its origin."""

    record: Record
    sha256: str
    source: str = ""
    fold: int | None = None


def write_manifest(path: str | os.PathLike, entries: Iterable[Entry]) -> None:
    """Writes a manifest; a reader sees the whole file or none.

    Files below the manifest's folder are named relative to it, so that both can be moved
    together; others by absolute path. A zip's members are `set.zip!NORMAL/a.png`.
    """
    path, entries = Path(path), list(entries)
    folder = os.path.abspath(path.parent)
    # Columns that most manifests have no use for are written where something is to be said.
    more = {"fold": any(entry.fold is not None for entry in entries)}
    more["original_sha256"] = any(entry.record.original for entry in entries)
    more = [name for name, used in more.items() if used]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "w", **{**_ENCODING, "encoding": "utf-8"}) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*COLUMNS, *more])
            for entry in entries:
                record = entry.record
                row = [_written(record, folder), entry.sha256, record.label, record.patient]
                row += [entry.source, record.split]
                said = {"fold": entry.fold, "original_sha256": record.original}
                writer.writerow([*row, *(said[name] for name in more)])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_manifest(path: str | os.PathLike) -> bool:
    """Whether a path is a manifest, told by the first line of the file."""
    try:
        with open(path, **_ENCODING) as file:
            header = next(csv.reader([file.readline(4096)]), [])
    except OSError:
        return False
    except csv.Error:
        return False
    return {"path", "sha256", "split"} <= set(header)


def read_manifest(
    path: str | os.PathLike,
    split: str | Sequence[str] | None = None,
    classes: Sequence[str] = (),
    *,
    allow_leak: bool = False,
) -> list[Entry]:
    """Reads the rows of a split (or several: `"train,val"`) and of the classes, in file order.

    Raises ValueError (one line) for a file that is no manifest, empty or repeated values, a
    split or class that is not there, selected files that do not exist, and, unless
    `allow_leak`, for a patient or a content that lies in two splits.

    >>> records = [e.record for e in read_manifest("m.csv", "train")]  # doctest: +SKIP
    """
    path = Path(path)
    entries = _parsed(path)
    if not allow_leak:
        _refuse_leaks(path, entries)
    if split is not None:
        wanted = split.split(",") if isinstance(split, str) else split
        wanted = [name.strip() for name in wanted]
        known = list(dict.fromkeys(entry.record.split for entry in entries))
        check_known(path, "split", wanted, known, "--split")
        entries = [entry for entry in entries if entry.record.split in wanted]
    if classes:
        classes = (classes,) if isinstance(classes, str) else tuple(classes)
        labels = sorted({entry.record.label for entry in entries if entry.record.label})
        if not labels:
            raise ValueError(f"{path} has no labels here: leave out the classes (--class)")
        check_known(path, "class", classes, labels, "--class")
        entries = [entry for entry in entries if entry.record.label in classes]
    return _located(path, entries)


def verify(entries: Iterable[Entry], records: Sequence[Record], hashes: Sequence[str]) -> None:
    """Compares what was read (`records` and their `hashes`) with the manifest's rows.

    Raises ValueError that names the files whose content changed since it was written.
    """
    expected = {entry.record.name: entry.sha256 for entry in entries}
    changed = [
        record.name
        for record, digest in zip(records, hashes)
        if expected.get(record.name, digest) != digest
    ]
    if changed:
        named = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        raise ValueError(
            f"{_files(changed)} changed since the manifest was written: {named}; "
            "restore them, or make a new manifest (cxrgan split)"
        )


def _written(record: Record, folder: str) -> str:
    if record.archive is not None and record.archive.startswith(TFDS):
        return record.name  # a name, and no place on this disk
    file = os.path.abspath(record.path if record.archive is None else record.archive)
    below = os.path.join(folder, "")
    name = Path(file.removeprefix(below)).as_posix()
    return name if record.archive is None else f"{name}!{record.path}"


def _parsed(path: Path) -> list[Entry]:
    """All rows, their paths still as written."""
    try:
        with open(path, **_ENCODING) as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            header = reader.fieldnames or []
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise ValueError(
                    f"{path} is no manifest: it has no column {', '.join(missing)}; "
                    "make one with cxrgan split"
                )
            entries, lines = [], {}
            for row in reader:
                place = f"{path} line {reader.line_num}"
                entry = _entry(row, place)
                first = lines.setdefault(entry.record.path, reader.line_num)
                if first != reader.line_num:
                    raise ValueError(
                        f"{place} repeats the path {entry.record.path} of line {first}: "
                        "remove one, or make a new manifest (cxrgan split)"
                    )
                entries.append(entry)
    except (csv.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot read the manifest {path} ({reason}): make one with cxrgan split"
        ) from None
    if not entries:
        raise ValueError(f"{path} lists no files: make a new manifest (cxrgan split)")
    return entries


def _entry(row: Mapping[str, str | None], place: str) -> Entry:
    advice = "mend the line, or make a new manifest (cxrgan split)"
    if "" in row or any(row[name] is None for name in COLUMNS):
        raise ValueError(f"{place} has more or fewer values than the header: {advice}")
    for name in ("path", "sha256", "split"):
        if not row[name].strip():
            raise ValueError(f"{place} has an empty {name}: {advice}")
    digest = row["sha256"].strip().lower()
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"{place} has the sha256 {digest!r}, not 64 hex digits: {advice}")
    fold = row.get("fold") or ""
    if fold and not fold.isdecimal():
        raise ValueError(f"{place} has the fold {fold!r}, not a number: {advice}")
    record = Record(
        row["path"], row["label"] or None, row["patient"].strip() or None, row["split"].strip(),
        original=row.get("original_sha256") or None,
    )  # fmt: skip
    return Entry(record, digest, row["source"], int(fold) if fold else None)


def _refuse_leaks(path: Path, entries: Sequence[Entry]) -> None:
    splits = [entry.record.split for entry in entries]
    patients = straddling(splits, [entry.record.patient for entry in entries])
    if patients:
        named = ", ".join(patients[:3]) + (", ..." if len(patients) > 3 else "")
        raise ValueError(
            f"{path} leaks: {len(patients)} patient{'s' * (len(patients) > 1)} on two sides "
            f"({named}); make a new manifest (cxrgan split), or pass --allow-leak"
        )
    # A film, its copies, and what was made of it.
    made = [(entry.sha256, entry.record.original) for entry in entries]
    twice, several = [*splits, *splits], [digest for both in zip(*made) for digest in both]
    contents = set(straddling(twice, several))
    if contents:
        names = [e.record.path for e, both in zip(entries, made) if contents & {*both}]
        raise ValueError(
            f"{path} leaks: the same content, or copies of it, on two sides ({', '.join(names[:2])}; "
            f"{_files(names)} in all); make a new manifest (cxrgan split), or pass --allow-leak"
        )


def _located(path: Path, entries: list[Entry]) -> list[Entry]:
    """The entries with paths that can be opened from the working directory."""
    members: dict[str, frozenset[str]] = {}
    located, missing = [], []
    for entry in entries:
        written = entry.record.path
        if written.startswith(TFDS):
            archive, _, example = written.partition("!")
            record = Record(example, archive=archive)
        else:
            record = _find(str(path.parent / written), members)
        if record is None:
            missing.append(entry.record.path)
        else:
            record = replace(entry.record, path=record.path, archive=record.archive)
            located.append(replace(entry, record=record))
    if missing:
        raise ValueError(
            f"{len(missing)} of the {_files(entries)} that {path} lists cannot be found, the first "
            f"{missing[0]}: keep the manifest beside its data, or make a new one (cxrgan split)"
        )
    return located


def _find(name: str, members: dict[str, frozenset[str]]) -> Record | None:
    """A file, or a member of a zip; both may have an exclamation mark in their names."""
    if os.path.isfile(name):
        return Record(name)
    for mark in re.finditer("!", name):
        archive, member = name[: mark.start()], name[mark.end() :]
        if archive not in members:
            try:
                with zipfile.ZipFile(archive) as opened:
                    members[archive] = frozenset(opened.namelist())
            except (OSError, zipfile.BadZipFile):
                members[archive] = frozenset()
        if member in members[archive]:
            return Record(member, archive=archive)
    return None


def _files(found: Sequence) -> str:
    return f"{len(found):,} file{'s' * (len(found) != 1)}"
