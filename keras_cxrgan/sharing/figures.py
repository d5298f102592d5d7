"""Figures for people: real and generated images side by side."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_cxrgan.data.images import image_grid


def compare_rows(bands: list[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Write a PNG with a band for each (label, real images, generated images).

    Images are uint8 (N, S, S) or (N, S, S, C); sizes may differ between bands.
    """
    from matplotlib.figure import Figure  # drawing to a file needs no display and no pyplot state

    columns = max(len(band[1]) for band in bands)
    # A title is as high over small images as over large ones, and many images need more pixels.
    height = 10 * 2 / columns + 0.45
    figure = Figure(
        figsize=(10, height * len(bands)), layout="constrained", dpi=max(80, 8 * columns)
    )
    axes = figure.subplots(len(bands), 1, squeeze=False)[:, 0]
    for axis, (label, reals, fakes) in zip(axes, bands):
        rows = [image_grid(images, columns=len(images)) for images in (_grey(reals), _grey(fakes))]
        gap = np.full((rows[0].shape[0] // 20 + 2, rows[0].shape[1]), 255, np.uint8)
        axis.imshow(np.vstack([rows[0], gap, rows[1]]), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"real (above) and {label} (below)", fontsize=10, loc="left")
        axis.axis("off")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def _grey(images):
    return images if images.ndim == 3 else np.rint(images.mean(axis=-1)).astype(np.uint8)
