"""Figures of an evaluation: where the scores lie, spectra, grey levels, nearest films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_cxrgan.evaluation.report import short

REAL_RUNGS = ("another half of the real films", "held-out films")
INK, ACCENT, SOFT = "#222222", "#c1440e", "#b8c4cc"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no global state, no display
    return figure


def _save(figure: Figure, path: Path) -> None:
    # No date and no version in the file: the same numbers give the same bytes.
    figure.savefig(path, metadata={"Software": None})


def ladder(result: dict, path: Path) -> None:
    """Draw each rung of the ladder: real films, degraded ones, generated ones."""
    blocks = [block for block in result["extractors"] if block["ladder"]]
    rungs = max(len(block["ladder"]["rows"]) for block in blocks)
    figure = _figure(7, (0.7 + 0.26 * rungs) * len(blocks))
    for axes, block in zip(np.atleast_1d(figure.subplots(len(blocks))), blocks):
        rows, fakes = block["ladder"]["rows"][::-1], block["ladder"]["fakes"]
        for place, row in enumerate(rows):
            real = row["name"] in REAL_RUNGS
            colour = ACCENT if row["name"] in fakes else INK if real else SOFT
            axes.plot(max(row["frechet"], 1e-9), place, "o", color=colour, markersize=6)
            axes.annotate(
                f"{short(row['frechet'])}   recall {row['recall']:.2f}",
                (max(row["frechet"], 1e-9), place),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.xaxis.set_minor_formatter("")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.35)  # room for the last number
        axes.grid(axis="y", color=SOFT, linewidth=0.5)
        axes.set_title(
            f"{block['features']['score']} to one half of the real films,"
            f" {block['ladder']['n']:,} images each",
            fontsize=9,
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
    _save(figure, path)


def spectra(result: dict, path: Path) -> None:
    """Draw the radially averaged power spectra of real and generated images."""
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    for number, entry in enumerate(result["appearance"]):
        spectrum = entry["spectrum"]
        if number == 0:
            axes.plot(
                spectrum["cycles_per_pixel"], spectrum["real_log10_power"], color=INK, label="real"
            )
        axes.plot(
            spectrum["cycles_per_pixel"],
            spectrum["fake_log10_power"],
            label=entry["fake"],
            linewidth=1,
        )
    axes.set_xlabel("cycles per pixel")
    axes.set_ylabel("log10 power")
    axes.set_title("Checkerboards and blur show at the right end", fontsize=9)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def histograms(real: np.ndarray, fakes: dict[str, np.ndarray], path: Path) -> None:
    """Draw the share of each grey level in the real and the generated images (256 each)."""
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    axes.fill_between(np.arange(256), 100 * real, step="mid", color=SOFT, label="real")
    for name, shares in fakes.items():
        axes.step(np.arange(256), 100 * shares, where="mid", linewidth=1, label=name)
    # Black borders would hide everything else.
    axes.set_ylim(0, 1.2 * 100 * max(shares[1:-1].max() for shares in (real, *fakes.values())))
    axes.set_xlabel("grey level")
    axes.set_ylabel("% of pixels")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def quantiles(result: dict, path: Path) -> None:
    """Draw how near generated, held-out and training films come to the training films."""
    figure = _figure(7, 3.6)
    for axes, name in zip(figure.subplots(2), ("pixels", "features")):
        space = result["audit"][name]
        sets = list(space["quantiles"].items())[::-1]
        for place, (label, at) in enumerate(sets):
            colour = ACCENT if label == "fake" else INK
            axes.plot([at["0"], at["1"]], [place, place], color=colour, linewidth=1)
            axes.plot([at["0.25"], at["0.75"]], [place, place], color=colour, linewidth=6)
            axes.plot(at["0.5"], place, "|", color="white", markersize=8)
        axes.axvline(space["threshold"], color=INK, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(sets)), [label for label, _ in sets], fontsize=8)
        axes.set_ylim(-0.5, len(sets) - 0.5)
        axes.set_xlim(left=0)
        axes.set_title(
            f"distance in {name} to the nearest training film: range, middle half, median;"
            " dotted: the threshold for a copy",
            fontsize=8,
        )
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def pairs(rows: list[tuple[str, list[tuple[np.ndarray, np.ndarray, str]]]], path: Path) -> None:
    """Draw generated images above the films they are nearest to, a titled double row each.

    Each pair is (generated, real, caption).
    """
    columns = max(len(items) for _, items in rows)
    width, height = columns + 0.2, 2.5 * len(rows)
    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        2 * len(rows),
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0.1 / width, "right": 1 - 0.1 / width, "bottom": 0.1 / height,
            "top": 1 - 0.25 / height, "wspace": 0.06, "hspace": 0.22,
        },
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (title, items) in enumerate(rows):
        for column, (fake, real, caption) in enumerate(items):
            for line, image in ((2 * row, fake), (2 * row + 1, real)):
                grid[line, column].imshow(image, cmap="gray", vmin=0, vmax=255)
            grid[2 * row + 1, column].set_title(caption, fontsize=6, pad=2)
        grid[2 * row, 0].set_title(title, fontsize=8, loc="left", pad=3)
    _save(figure, path)
