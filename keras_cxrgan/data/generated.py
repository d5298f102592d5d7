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


def remove_listed(folder: Path) -> None:
    """Remove what an earlier `generate` wrote, so that no folder mixes images of two models."""
    rows = read_listing(folder)
    for row in rows:
        parts = PurePosixPath(row["file"]).parts
        # A manifest can come from anywhere; what it names below the folder alone is its own.
        if len(parts) > 2 or not {"/", ".."}.isdisjoint(parts):
            continue
        image = folder.joinpath(*parts)
        # The hash keeps a file that somebody else put under this name.
        if image.is_file() and content_hash(image.read_bytes()) == row["sha256"]:
            image.unlink()
            if image.parent != folder and not any(image.parent.iterdir()):
                image.parent.rmdir()
    if rows:
        (folder / MANIFEST).unlink()
        (folder / GRID).unlink(missing_ok=True)
