"""One picture of a set of films: rows of captioned images under titles."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def contact_sheet(rows: list[tuple[str, list[tuple[np.ndarray, str]]]], path: Path) -> None:
    """Write a PNG with a titled row for each of `rows`; images are uint8 (S, S) with a caption.

    Characters outside ASCII are shown as question marks: the font may not hold them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # drawing to a file needs no display and no pyplot state

    columns = max(5, *(len(items) for _, items in rows))  # a title needs the width of five
    width, height = 1.3 * columns + 0.2, 1.75 * len(rows) + 0.1
    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(rows),
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0.1 / width, "right": 1 - 0.1 / width, "bottom": 0.25 / height,
            "top": 1 - 0.3 / height, "wspace": 0.06, "hspace": 0.4,
        },
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (title, items) in zip(grid, rows):
        for axes, (image, caption) in zip(line, items):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.text(
                0.5, -0.03, _plain(caption), transform=axes.transAxes, ha="center", va="top",
                fontsize=5, parse_math=False,
            )  # fmt: skip
        line[0].text(
            0, 1.04, _plain(title), transform=line[0].transAxes, fontsize=8, parse_math=False
        )
    temporary = path.with_name(f".{path.name}.tmp")
    # No date and no version in the file: the same films give the same bytes.
    figure.savefig(temporary, format="png", metadata={"Software": None})
    os.replace(temporary, path)


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()
