"""What `cxrgan generate` leaves in a folder: PNG files, and the manifest that lists them."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from .records import content_hash

MANIFEST = "manifest.csv"
GRID = "grid.png"
COLUMNS = ["file", "index", "seed", "truncation", "sha256", "model"]
"""The columns of every such manifest; `label` follows where the generator knows classes."""


def read_listing(folder: str | Path) -> list[dict[str, str]]:
    """Return the rows of the manifest that `cxrgan generate` wrote; [] where there is none.

    `file` is relative to the folder, with forward slashes: `000000.png` or `COVID/000000.png`.

    >>> read_listing("films")
    []
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        return list(rows) if rows.fieldnames in (COLUMNS, [*COLUMNS, "label"]) else []


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
