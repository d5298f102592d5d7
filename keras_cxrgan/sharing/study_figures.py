"""Figures of a classifier study: differences, confusion matrices, reliability, scores over films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_cxrgan.sharing.experiment_figures import _figure, _save

BINS = 10
COLOURS = {"helps": "#1f77b4", "hurts": "#c44e00"}  # where nothing was shown, grey


def differences(
    panels: Sequence[tuple[str, Sequence[tuple[str, float, float, float, str]]]], path: Path
) -> Path:
    """Write a PNG of titled panels of (row, difference, low, high, verdict), as shares.

    A point and its interval a row, in percentage points, from the top; grey where no difference
    was shown. An interval across the line leaves open whether it helps or hurts.
    """
    longest = max(len(rows) for _, rows in panels)
    figure = _figure(7.5, len(panels) * (0.3 * longest + 1.1))
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axis, (title, rows) in zip(axes, panels):
        axis.axvline(0, color="0.7", linewidth=0.8)
        for place, (_, middle, low, high, verdict) in enumerate(rows):
            colour = COLOURS.get(verdict, "0.45")
            axis.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.2)
            axis.plot(100 * middle, place, "o", color=colour, markersize=5)
        axis.set_yticks(range(len(rows)), _plain([row for row, *_ in rows]), fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(title, fontsize=9, parse_math=False)
    axes[-1].set_xlabel("balanced accuracy, percentage points from the baseline", fontsize=9)
    return _save(figure, path)


def confusions(
    panels: Sequence[tuple[str, np.ndarray]], classes: Sequence[str], path: Path
) -> Path:
    """Write a PNG of titled confusion matrices (K, K): rows are true classes, shades their shares.

    Counts stand in the cells.
    """
    figure, axes = _panels(len(panels), 0.55 * len(classes) + 1.6)
    for axis, (title, counts) in zip(axes, panels):
        counts = np.asarray(counts)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axis.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(classes)), _plain(classes), rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(classes)), _plain(classes), fontsize=7)
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_xlabel("said", fontsize=7)
        axis.set_ylabel("is", fontsize=7)
    return _save(figure, path)


def reliability(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], path: Path) -> Path:
    """Write a PNG of titled reliability diagrams, of labels (N,) and probabilities (S, N, K).

    Accuracy over confidence in ten bins, all seeds together; on the diagonal a classifier is as
    often right as it says.
    """
    figure, axes = _panels(len(panels), 2.6)
    for axis, (title, labels, probabilities) in zip(axes, panels):
        confidence = probabilities.max(axis=2).ravel()
        right = (probabilities.argmax(axis=2) == labels).ravel()
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        films = np.bincount(bins, minlength=BINS)
        some = films > 0
        xs = np.bincount(bins, confidence, BINS)[some] / films[some]
        ys = np.bincount(bins, right, BINS)[some] / films[some]
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axis.plot(xs, ys, marker="o", markersize=3, linewidth=0.9)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
        axis.set_title(title, fontsize=9, parse_math=False)
    return _save(figure, path)


def learning_curve(
    curves: Mapping[str, Sequence[tuple[float, Sequence[float]]]], path: Path, baseline: str
) -> Path:
    """Write a PNG of each row's scores, as shares, over the share of the training films, in percent.

    A panel for each row, with the baseline in grey behind it; bars are one standard deviation over
    seeds, of other trainings.
    """
    names = [name for name in curves if name != baseline] or [baseline]
    figure, axes = _panels(len(names), 2.4)
    drawn = {
        name: [(size, 100 * np.mean(v), 100 * np.std(v, ddof=len(v) > 1)) for size, v in points]
        for name, points in curves.items()
    }
    ends = [
        mean + sign * sd for points in drawn.values() for _, mean, sd in points for sign in (-1, 1)
    ]
    for axis, name in zip(axes, names):
        for row, colour in ((baseline, "0.65"), (name, "#1f77b4")):
            if drawn.get(row):
                sizes, means, sds = zip(*drawn[row])
                axis.errorbar(
                    sizes,
                    means,
                    sds,
                    color=colour,
                    linewidth=1.1,
                    marker="o",
                    markersize=3,
                    capsize=2,
                )
        axis.set_xticks(sorted({size for points in drawn.values() for size, *_ in points}))
        axis.set_ylim(min(ends) - 1, max(ends) + 1)
        axis.set_title(
            name if name == baseline else f"{name} ({baseline}: grey)", fontsize=8, parse_math=False
        )
        axis.set_xlabel("% of the training films", fontsize=7)
        axis.set_ylabel("balanced accuracy, %", fontsize=7)
        axis.tick_params(labelsize=7)
    return _save(figure, path)


def _panels(count: int, side: float):
    columns = min(4, count)
    rows = -(-count // columns)
    figure = _figure(side * columns, side * rows)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes


def _plain(names: Sequence[str]) -> list[str]:
    # A $ would begin a formula.
    return [name.replace("$", r"\$") for name in names]
