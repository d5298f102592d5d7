"""Tables that somebody wrote about films: a CSV beside them, or a CSV that lists them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from keras_cxrgan.data.listing import Files, Table, parse_table, read_text, rows_by_image
from keras_cxrgan.data.records import Record

_COLUMNS = {
    "file": ("path", "file", "filename", "file_name", "image", "image_path"),
    "label": ("label", "finding", "class"),
    "patient": ("patient", "patient_id", "patientid", "subject_id"),
    "split": ("split",),
    "source": ("source",),
    "original": ("original_sha256",),
}


@dataclass(frozen=True)
class Reading:
    """The films of a set as some layout reads it, and what was left out, by reason."""

    layout: str
    records: tuple[Record, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def columns_used(table: Table) -> dict[str, str]:
    """What is asked of a table (file, label, patient, split, source) -> its column for that."""
    found = {
        wanted: next((name for name in names if name in table.columns), None)
        for wanted, names in _COLUMNS.items()
    }
    return {wanted: name for wanted, name in found.items() if name}


def plain_table(files: Files) -> tuple[Table | None, dict[str, dict[str, str]], int]:
    """The table that tells labels or patients of most images: it, its rows by image, rows of none.

    A row holds what `columns_used` names and is not empty. Raises ValueError (one line) when
    two rows give one image different patients, which no split could respect.
    """
    best: tuple[Table | None, dict[str, dict[str, str]], int] = (None, {}, 0)
    for table in files.tables:
        columns = columns_used(table)
        # A manifest beside the films speaks when it is given, and not when their folder is.
        if "sha256" in table.columns:
            continue
        if "file" in columns and ("label" in columns or "patient" in columns):
            rows, absent = rows_by_image(files, table, columns["file"])
            if len(rows) > len(best[1]):
                best = (table, {name: _told(row, columns) for name, row in rows.items()}, absent)
    if best[0] is not None:
        _check_patients(best[0], f"{files.source}/{best[0].path}")
    return best


def read_table(path: str | Path) -> Reading:
    """Reads a CSV or TSV that lists films: a column of paths, and label, patient, split, source.

    Paths are relative to the table's folder, or absolute. A film of several rows is listed
    once. Raises ValueError (one line) for a table without a column of files or without rows,
    and for rows that contradict each other.

    >>> read_table("films.csv").records[0].label  # doctest: +SKIP
    'NORMAL'
    """
    path = Path(path)
    try:
        table = parse_table(PurePosixPath(path.name), read_text(Record(str(path))))
    except csv.Error as error:
        raise ValueError(f"{path} is not a readable table ({error}): save it as CSV") from None
    columns = columns_used(table)
    if "file" not in columns:
        raise ValueError(
            f"{path} has the columns {', '.join(table.columns[:6]) or 'none'}: a table of films"
            f" needs one of {', '.join(_COLUMNS['file'])}; for a public set give its folder"
        )
    _check_patients(table, str(path))
    records: dict[str, Record] = {}
    for number, row in enumerate(table.rows, 2):
        told = _told(row, columns)
        name = told.pop("file", None)
        if name is None:
            raise ValueError(f"{path} line {number} names no file: fill in {columns['file']}")
        record = Record(str(path.parent / name.replace("\\", "/")), **told)
        first = records.setdefault(name, record)
        if first.label != record.label:
            raise ValueError(
                f"{path} gives {name} two labels ({first.label!r} and {record.label!r}): keep one"
            )
    if not records:
        raise ValueError(f"{path} lists no films: below its header there is nothing")
    used = ", ".join(columns.values())
    notes = (f"{path.name} ({used}) lists {len(records)} films in {len(table.rows)} rows",)
    return Reading("table", tuple(records.values()), {}, notes)


def _told(row: dict[str, str], columns: dict[str, str]) -> dict[str, str]:
    return {wanted: row[name] for wanted, name in columns.items() if row[name]}


def _check_patients(table: Table, name: str) -> None:
    columns = columns_used(table)
    if "patient" not in columns:
        return
    pairs = {(row[columns["file"]], row[columns["patient"]]) for row in table.rows}
    several = Counter(file for file, patient in pairs if patient).most_common(1)
    if several and several[0][1] > 1:
        file = several[0][0]
        one, other = sorted(patient for name, patient in pairs if name == file and patient)[:2]
        raise ValueError(
            f"{name} gives {file} two patients ({one!r} and {other!r}): correct or remove one of"
            " the lines"
        )
