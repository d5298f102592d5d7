"""What lies in a data set as it was downloaded: its images, and the tables beside them."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from keras_cxrgan.data.generated import GRID, is_listing
from keras_cxrgan.data.records import Record, find_records

MAX_COLUMNS, MAX_TABLE = 200, 64 * 2**20


@dataclass(frozen=True)
class Table:
    """A CSV or TSV file; column names are in lower case, cells without outer blanks."""

    path: PurePosixPath
    columns: tuple[str, ...]
    rows: list[dict[str, str]]

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Files:
    """What a set holds, by name relative to `source` with forward slashes."""

    source: Path
    images: dict[str, Record]
    others: dict[str, Record]
    tables: tuple[Table, ...]
    unread: dict[str, str]
    leftovers: int
    overviews: int

    def table(self, *columns: str) -> Table | None:
        """The table with these columns; of two versions the later by name."""
        fitting = [table for table in self.tables if {*columns} <= {*table.columns}]
        return max(fitting, key=lambda table: (table.name, -len(table.path.parts)), default=None)

    def misfit(self, layout: str, needs: str) -> ValueError:
        """The error that says what a layout needs and what is there."""
        folders = Counter(str(PurePosixPath(name).parent) for name in self.images)
        found = ", ".join(f"{folder}/ {count}" for folder, count in folders.most_common(4))
        more = ", ..." if len(folders) > 4 else ""
        tables = [f"{table.name} ({', '.join(table.columns[:4])})" for table in self.tables[:3]]
        tables += [f"{name} (not read: {reason})" for name, reason in self.unread.items()]
        return ValueError(
            f"{self.source} does not fit the layout {layout}: it needs {needs}; it has images in "
            f"{found}{more} and tables: {', '.join(tables) or 'none'} (--layout auto or folder)"
        )


def list_files(source: Path) -> Files:
    """Lists a folder or zip; a table that cannot be read is kept as the reason in `unread`."""
    records = find_records(source)
    archive = records[0].archive
    prefix = "" if archive else str(source / "_")[:-1]
    images = {_relative(record.path, prefix): record for record in records}
    paths = _zip_paths(source) if archive else _paths_beside(source, images)
    leftovers, others = 0, {}
    for path in sorted(paths):
        name = _relative(path, prefix)
        suffix = PurePosixPath(name).suffix.lower()
        if "__MACOSX" in name.split("/") or base(name).startswith("._"):
            leftovers += suffix in (".png", ".jpg", ".jpeg")
        elif suffix in (".csv", ".tsv", ".txt", ".xlsx", ".json"):
            others[name] = Record(path, archive=archive)
    tables, unread, drawn = [], {}, set()
    for name, record in others.items():
        if name.lower().endswith((".csv", ".tsv")):
            try:
                text = read_text(record)
                if is_listing(text.partition("\n")[0].strip().split(",")):
                    # The one image in a folder of generated ones that is none of them.
                    drawn.add(str(PurePosixPath(name).parent / GRID))
                tables.append(parse_table(PurePosixPath(name), text))
            except (OSError, ValueError, csv.Error) as error:
                unread[base(name)] = str(error)
    films = {name: record for name, record in images.items() if name not in drawn}
    overviews = len(images) - len(films)
    return Files(source, films, others, tuple(tables), unread, leftovers, overviews)


def _zip_paths(source: Path) -> list[str]:
    with zipfile.ZipFile(source) as opened:
        return list(dict.fromkeys(opened.namelist()))


def _paths_beside(source: Path, images: Iterable[str]) -> Iterator[str]:
    """Files in the folders that hold images or lie above them, and all below a __MACOSX."""
    if not source.is_dir():
        return
    folders = {str(PurePosixPath(name).parent) for name in images}
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    for folder in {*folders, "."}:
        yield from (str(source / folder / name) for name in os.listdir(source / folder))
        for above, _, names in os.walk(source / folder / "__MACOSX"):
            yield from (os.path.join(above, name) for name in names)


def parse_table(path: PurePosixPath, text: str) -> Table:
    """A table of any of the three usual separators, as its first line shows it."""
    header = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header.count))
    columns = tuple(column.strip().lower() for column in next(lines, ()))
    if len(columns) > MAX_COLUMNS or len(text) > MAX_TABLE:
        # Every short row becomes a whole one: a small file could fill the memory.
        raise ValueError(
            f"a table has at most {MAX_COLUMNS:,} columns and {MAX_TABLE // 2**20} MiB, and this"
            f" {len(columns):,} and {len(text) / 2**20:.0f}"
        )
    # A row may be shorter than the header; what is longer (a comma too many) is ignored.
    width = len(columns)
    rows = [
        {column: cell.strip() for column, cell in zip(columns, line[:width] + [""] * width)}
        for line in lines
        if line
    ]
    return Table(path, columns, rows)


def read_text(record: Record) -> str:
    """A text file, with or without a byte order mark; Latin-1 where it is not UTF-8."""
    data = record.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _relative(path: str, prefix: str) -> str:
    return path.removeprefix(prefix).replace("\\", "/")


def base(name: str) -> str:
    """The file's own name: `a/b.png` gives `b.png`."""
    return name.replace("\\", "/").rpartition("/")[2]


def stem(name: str) -> str:
    """The file's own name without its extension."""
    return PurePosixPath(base(name)).stem


def folders_of(name: str) -> list[str]:
    """The folders above a file, the outermost first."""
    return name.split("/")[:-1]


def is_mask(name: str) -> bool:
    """Whether the file or a folder above it is named as a mask."""
    return any(part.lower().endswith(("mask", "masks")) for part in (*folders_of(name), stem(name)))


def rows_by_image(files: Files, table: Table, column: str) -> tuple[dict[str, dict[str, str]], int]:
    """What rows tell of each image, by its path or its unique base name, and the rows of none.

    Of several rows the first counts; what it leaves empty is told by the next.
    """
    bases = {}
    for name in files.images:
        bases.setdefault(base(name), []).append(name)
    rows, absent = {}, 0
    for row in table.rows:
        cell = row[column].replace("\\", "/")
        folders = (row.get("folder", ""), "images", "")
        paths = [(table.path.parent / folder / cell).as_posix() for folder in folders]
        alone = bases.get(base(cell), ())
        name = next((path for path in paths if path in files.images), None)
        name = alone[0] if name is None and len(alone) == 1 else name
        if name is None:
            absent += 1
        else:
            told = {column: value for column, value in rows.get(name, {}).items() if value}
            rows[name] = {**row, **told}
    return rows, absent
