"""The loss curves of a run, drawn from its log."""

from __future__ import annotations

import os
from pathlib import Path

from keras_cxrgan.training.callbacks import read_log


def plot_losses(log: Path, path: Path, images_per_epoch: int) -> None:
    """Write a PNG of both losses and of the discriminator's scores against images seen."""
    from matplotlib.figure import Figure  # drawing to a file needs no display and no pyplot state

    records = read_log(log)
    if not records:
        return
    figure = Figure(figsize=(9, 3.4), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    seen = [record["images_seen"] for record in records]
    curves = {
        left: {"discriminator_loss": "discriminator loss", "generator_loss": "generator loss"},
        right: {
            "real_score": "D(x)",
            "fake_score_before": "D(G(z)) before the update",
            "fake_score_after": "D(G(z)) after",
        },
    }
    if "wasserstein_estimate" in records[-1]:
        curves[right] = {"wasserstein_estimate": "Wasserstein estimate"}
    for axes, names in curves.items():
        for name, label in names.items():
            axes.plot(seen, [record.get(name) for record in records], label=label, linewidth=1)
        axes.set_xlabel(f"images seen ({images_per_epoch:,} an epoch)")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_title("Losses", fontsize=10)
    right.set_title("Discriminator", fontsize=10)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
