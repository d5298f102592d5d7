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


def plain_tables(files: Files) -> tuple[list[tuple[Table, int, int]], dict[str, dict[str, str]]]:
    """The tables that tell labels or patients, each with its images and rows of none; rows by image.

    A row holds what `columns_used` names and is not empty; of several tables, that about the most
    images counts first. Raises ValueError (one line) when two rows, or two tables, give one image
    different patients, which no split could respect.
    """
    fitting = []
    for table in files.tables:
        columns = columns_used(table)
        # A manifest beside the films speaks when it is given, and not when their folder is.
        if "sha256" in table.columns:
            continue
        if "file" in columns and ("label" in columns or "patient" in columns):
            rows, absent = rows_by_image(files, table, columns["file"])
            if rows:
                _check_patients(table, f"{files.source}/{table.path}")
                told = {name: _told(row, columns) for name, row in rows.items()}
                fitting.append((table, told, absent))
    fitting.sort(key=lambda each: -len(each[1]))
    together: dict[str, dict[str, str]] = {}
    for table, told, _ in fitting:
        for name, row in told.items():
            first = together.setdefault(name, {})
            one, other = first.get("patient"), row.get("patient")
            if one and other and one != other:
                raise ValueError(
                    f"{files.source}/{table.path} gives {name} the patient {other!r}, and another"
                    f" table {one!r}: correct or remove one of them"
                )
            together[name] = row | first
    return [(table, len(told), absent) for table, told, absent in fitting], together


def read_table(path: str | Path) -> Reading:
    """Reads a CSV or TSV that lists films: a column of paths, and label, patient, split, source.

    Paths are relative to the table's folder, or absolute. A film of several rows is listed
    once, with what any of them tells. Raises ValueError (one line) for a table without a column
    of files or without rows, and for rows that contradict each other.

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
    films: dict[str, dict[str, str]] = {}
    for number, row in enumerate(table.rows, 2):
        told = _told(row, columns)
        name = told.pop("file", None)
        if name is None:
            raise ValueError(f"{path} line {number} names no file: fill in {columns['file']}")
        film = films.setdefault(name, {})
        for wanted, value in told.items():
            if film.setdefault(wanted, value) != value:
                raise ValueError(
                    f"{path} gives {name} two {wanted}s ({film[wanted]!r} and {value!r}): keep one"
                )
    if not films:
        raise ValueError(f"{path} lists no films: below its header there is nothing")
    used = ", ".join(columns.values())
    records = tuple(
        Record(str(path.parent / name.replace("\\", "/")), **film) for name, film in films.items()
    )
    notes = (f"{path.name} ({used}) lists {len(records)} films in {len(table.rows)} rows",)
    return Reading("table", records, {}, notes)


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
