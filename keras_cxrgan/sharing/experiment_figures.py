"""Figures of experiments: grids over epochs, loss curves, scores beside published ones."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

TITLE_WIDTH = 38  # letters above a grid of 3.4 inches
GAP = 2  # pixels between the images of a sample grid
INK, ACCENT, SOFT = "#222222", "#c1440e", "#8795a0"
_COLOURS = (INK, ACCENT, SOFT, "#3b6ea5", "#5a8f29", "#8e5ea2", "#c9a227", "#2a9d8f")
_CURVES = {"discriminator_loss": ("discriminator", INK), "generator_loss": ("generator", ACCENT)}


def grids(
    panels: Sequence[tuple[str, np.ndarray]], path: Path, *, columns: int = 3, side: float = 3.4
) -> Path:
    """Write a PNG of titled images, uint8 (H, W) or (H, W, 3), `columns` in a row.

    Args:
        side: inches of a panel.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(side * columns, (side + 0.25) * lines)
    axes = list(np.atleast_1d(figure.subplots(lines, columns)).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes, panels):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        # A panel has room for so many letters; more would run into the next one, or off the figure.
        room = int(TITLE_WIDTH * side / 3.4)
        axis.set_title(textwrap.fill(title, room), fontsize=10, parse_math=False)
    return _save(figure, path)


def corner(grid: np.ndarray, image_size: int, side: int = 4) -> np.ndarray:
    """Return the first `side` rows and columns of a sample grid.

    >>> corner(np.zeros((262, 262), np.uint8), 64, side=2).shape
    (130, 130)
    """
    stop = side * (image_size + GAP) - GAP
    return grid[:stop, :stop]


def tiles(grid: np.ndarray, image_size: int) -> np.ndarray:
    """Return the images of a sample grid, (N, S, S) or (N, S, S, 3), row by row; black ones too."""
    step = image_size + GAP
    rows, columns = ((side + GAP) // step for side in grid.shape[:2])
    return np.stack(
        [
            grid[row * step :, column * step :][:image_size, :image_size]
            for row in range(rows)
            for column in range(columns)
        ]
    )


def losses(runs: Sequence[tuple[str, Sequence[Mapping]]], path: Path) -> Path:
    """Write a PNG with a panel of both losses against epochs for each (title, log records)."""
    columns = min(2, len(runs))
    lines = -(-len(runs) // columns)
    figure = _figure(5.2 * columns, 3.0 * lines)
    axes = list(np.atleast_1d(figure.subplots(lines, columns)).flat)
    for axis, (title, records) in zip(axes, runs):
        epochs = [record["epoch"] for record in records]
        for key, (label, colour) in _CURVES.items():
            values = [record[key] for record in records]
            axis.plot(epochs, values, label=label, color=colour, linewidth=0.8, marker=_dot(epochs))
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss")
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    return _save(figure, path)


def lines(
    panels: Sequence[tuple[str, str, Mapping[str, tuple[Sequence, Sequence]]]],
    path: Path,
    *,
    x: str = "epoch",
    logarithmic: Collection[str] = (),
) -> Path:
    """Write a PNG with a panel for each (title, y label, {name: (x values, y values)}).

    Args:
        logarithmic: titles of the panels whose y axis is.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(5.2 * columns, 3.0 * rows)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for axis, (title, label, curves) in zip(axes, panels):
        for place, (name, (xs, ys)) in enumerate(curves.items()):
            turn, colour = divmod(place, len(_COLOURS))
            axis.plot(
                xs,
                ys,
                label=name,
                color=_COLOURS[colour],
                linestyle=("-", "--", ":")[turn % 3],
                linewidth=0.9,
                marker=_dot(xs),
            )
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set_xlabel(x)
        axis.set_ylabel(label)
        axis.set_yscale("log" if title in logarithmic else "linear")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        if max((max(xs, default=0) for xs, _ in curves.values()), default=0) >= 10_000:
            axis.xaxis.set_major_formatter("{x:,.0f}")
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return _save(figure, path)


def scores(
    rows: Mapping[str, Sequence[float]],
    published: Mapping[str, float],
    path: Path,
    *,
    ours: str,
    theirs: str,
    floor: float | None = None,
) -> Path:
    """Write a PNG of our scores (each seed, and their mean) beside the published ones.

    Two panels with a scale each: scores of different extractors do not share one.

    Args:
        rows: row -> our scores, one a seed.
        floor: what real films score against each other.
    """
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for place, values in enumerate(rows.values()):
        left.plot([place] * len(values), values, "o", color=SOFT, markersize=5)
        if values:
            left.plot(place, np.mean(values), "_", color=ACCENT, markersize=24, markeredgewidth=2)
    if floor is not None:
        left.axhline(floor, color=INK, linestyle=":", linewidth=1, label="floor: real halves")
        left.legend(frameon=False, fontsize=8)
    left.set_xticks(range(len(rows)), [row.replace(" (", "\n(") for row in rows], fontsize=7)
    left.set_title(f"ours: {ours} (dots: seeds, line: mean)", fontsize=9, parse_math=False)
    right.plot(range(len(published)), list(published.values()), "s", color=INK, markersize=6)
    right.set_xticks(range(len(published)), list(published), fontsize=7)
    right.set_title(theirs, fontsize=9, parse_math=False)
    for axis in (left, right):
        axis.set_ylim(0, axis.dataLim.ymax * 1.12)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def nearest_distances(images: np.ndarray) -> np.ndarray:
    """Return each image's RMS distance in grey levels to its nearest other, (N,).

    Near 0 for images that repeat: a generator that has collapsed.

    >>> nearest_distances(np.array([[[0]], [[3]], [[10]]], np.uint8))
    array([3., 3., 7.])
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    return np.sqrt(np.maximum(distances.min(axis=1), 0) / flat.shape[1])


def _dot(values) -> str | None:
    return "o" if len(values) < 3 else None  # a line of one point is invisible


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # drawing to a file needs no display and no pyplot state

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # No date and no version in the file: the same numbers give the same bytes.
    figure.savefig(temporary, format="png", metadata={"Software": None})
    os.replace(temporary, path)
    return path
