"""What `cxrgan generate` leaves in a folder: PNG files, and the manifest that lists them."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .records import Record, content_hash

MANIFEST = "manifest.csv"
GRID = "grid.png"
COLUMNS = ["file", "index", "seed", "truncation", "sha256", "model"]
"""The columns of every such manifest; `label` follows where the generator knows classes."""


def is_listing(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is a manifest that `cxrgan generate` wrote."""
    return list(columns) in (COLUMNS, [*COLUMNS, "label"])


def read_listing(source: str | Path) -> list[dict[str, str]]:
    """Return the rows of the manifest that `cxrgan generate` wrote; [] where there is none.

    `file` is relative to the folder, with forward slashes: `000000.png` or `COVID/000000.png`. Of
    a zip, it is the member's name, with the folder that was packed: `images/COVID/000000.png`.

    >>> read_listing("films")
    []
    """
    path, within = Path(source) / MANIFEST, ""
    if path.is_file():
        data = path.read_bytes()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == MANIFEST]
        name = min(names, key=lambda name: name.count("/"), default="")
        if not name:
            return []
        data, within = Record(name, archive=str(source)).read(), name.removesuffix(MANIFEST)
    else:
        return []
    lines = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    rows = csv.DictReader(lines)
    if not is_listing(rows.fieldnames or ()):
        return []
    return [{**row, "file": within + row["file"]} for row in rows]


def check_replaceable(folder: Path) -> None:
    """Raise `ValueError` if a folder's manifest.csv is not what `cxrgan generate` writes."""
    path = folder / MANIFEST
    if path.is_file():
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header = next(csv.reader(file), [])
        if not is_listing(header):
            raise ValueError(
                f"{path} is another table, such as a split, and would be lost: choose another --out"
            )


def own_file(folder: Path, name: str, digest: str) -> Path | None:
    """Return a file that a table in a folder lists, if it is the one that was written; else None.

    A table can come from anywhere, so that what it names below the folder alone is its own; and
    the hash keeps a file that somebody else put under the name.
    """
    parts = PurePosixPath(name).parts
    if len(parts) > 2 or not {"/", ".."}.isdisjoint(parts):
        return None
    path = folder.joinpath(*parts)
    return path if path.is_file() and content_hash(path.read_bytes()) == digest else None


def remove_listed(folder: Path) -> None:
    """Remove what an earlier `generate` wrote, so that no folder mixes images of two models."""
    rows = read_listing(folder)
    for row in rows:
        image = own_file(folder, row["file"], row["sha256"])
        if image:
            image.unlink()
            if image.parent != folder and not any(image.parent.iterdir()):
                image.parent.rmdir()
    if rows:
        (folder / MANIFEST).unlink()
        (folder / GRID).unlink(missing_ok=True)
