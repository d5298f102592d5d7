"""Noori 2024: the tutorial's DCGAN on normal chest films, its figures, line and variants."""

from __future__ import annotations

import statistics

from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

PUBLISHED_ROW, STEADIED = "as published", "512x512, steadied"
LINE = {
    "discriminator_loss": "Loss_D",
    "generator_loss": "Loss_G",
    "real_score": "D(x)",
    "fake_score_before": "D(G(z)) before",
    "fake_score_after": "D(G(z)) after",
}
# Three more doublings at the fine end: the maps of 4 to 32 pixels are the tutorial's own.
LARGE = {"image_size": 512, "width": 8}
# What the literal row lacks: its discriminator wins at once, and the images stay grey.
STEADY = {
    "residual": True,
    "upsampling": "resize",
    "generator_kernel_size": 3,
    "convention": "keras",
    "generator_learning_rate": 0.001,
    "discriminator_normalization": "none",
    "penalty": "r1",
    "penalty_interval": 8,
    "ema_half_life": 500,
    "batch_size": 8,
}

EXPERIMENT = Experiment(
    name="noori2024",
    citation=(
        "A. Y. Noori, Generating Medical Chest X-Ray Images using Generative Adversarial Network,"
        " 2024."
    ),
    recipe="noori2024",
    data="1,341 films train/NORMAL of Kermany's chest X-rays (the paper writes 5,863 in all)",
    classes=("NORMAL",),
    published={
        PUBLISHED_ROW: {
            "discriminator_loss": 1.2223,
            "generator_loss": 2.1597,
            "real_score": 0.6463,
            "fake_score_before": 0.0906,
            "fake_score_after": 0.3155,
        }
    },
    left_open=(
        "The paper's image sizes 512, 256, 128, 64 (and 64 to 512) are the channels of the DCGAN"
        " tutorial's networks, so its images are 64x64; the row 512x512 takes its words literally,"
        " and the one below it adds what lets such networks train: skips around blocks, resizing"
        " instead of transposed convolutions, R1, smaller batches, an averaged generator.",
        "The table says lr 0.002, the text that 0.0002 gave high quality: 0.0002 is used, 0.002 is"
        " a row.",
        "Epochs: 500 in the table, also 2,000 in the text: both are rows, the second goes on with"
        " the run of the first.",
        "beta_1 is 0.55 as stated, beta_2 0.999. The number of channels is not stated: one.",
        "The log line (1.2223, 2.1597) is taken for the result; the abstract's losses 2.222 and"
        " 1.160 have the same decimals with leading digits swapped.",
    ),
    cannot_compare=(
        "The paper gives no score of the images (its word is superior): ours stand alone.",
        "A loss line is one moment of a game without a fixed point: a lower or higher loss says"
        " nothing about the images. Ours are means over the last pass; the paper's are of one"
        " batch.",
        "The published D(G(z)) rises from .0906 to .3155 after the discriminator's own update; an"
        " update of the discriminator should lower it.",
    ),
    scales={
        "smoke": {
            "recipe": {"width": 8, "batch_size": 20, "epochs": 30},
            "phantom": {"normal": 60},
            "generate": 60,
            "grid_epochs": (0, 10, 20, 30),
            "long": {"epochs": 60},
            "large": LARGE | {"width": 2, "epochs": 3},
            "steady": LARGE | STEADY | {"width": 2, "epochs": 3},
        },
        "small": {
            "recipe": {"width": 16},
            "phantom": {"normal": 500},
            "generate": 1000,
            "grid_epochs": (0, 10, 50, 100, 250, 500),
            "long": {"epochs": 2000},
            "large": LARGE | {"width": 4, "epochs": 20},
            "steady": LARGE | STEADY | {"width": 4, "epochs": 30},
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 1341},
            "generate": 1000,
            "grid_epochs": (0, 10, 50, 100, 250, 500),
            "long": {"epochs": 2000},
            "large": LARGE,
            "steady": LARGE | STEADY,
        },
    },
)


def cells(setting):
    """Yield the recipe as published, longer, with the other learning rate, and 512x512 twice."""
    films, classes = setting.films(), setting.trained_on()
    interval = max(1, setting["grid_epochs"][1] * reproducing.count_films(films, classes))
    fast = {"generator_learning_rate": 0.002, "discriminator_learning_rate": 0.002}
    for seed in setting.seeds:
        changes = {"seed": seed, "sample_interval": interval}
        run = f"published-seed-{seed}"
        for row, name, fields, goes_on in (
            (PUBLISHED_ROW, "published", {}, ""),
            ("longer", "long", setting["long"], run),
            ("lr 0.002", "fast", fast, ""),
            ("512x512", "large", setting["large"], ""),
            (STEADIED, "steady", setting["steady"], ""),
        ):
            yield Cell(
                f"{name}-seed-{seed}",
                setting.recipe(**changes, **fields),
                films,
                row,
                classes,
                generate=setting["generate"],
                run=goes_on,
            )


def present(setting, results):
    """Return the statistics line beside the published one, the scores, figures 6 and 7."""
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import beside_table, by_row, results_table

    rows = by_row(results)
    published = EXPERIMENT.published
    tables = [
        beside_table(
            "The final statistics line",
            LINE,
            {row: (found, published.get(row, {})) for row, found in rows.items()},
        ),
        results_table("Scores", results, {}, same_extractor=reproducing.same_extractor(setting)),
    ]
    first = reproducing.complete(results, seed=setting.seeds[0])
    drawn = []
    for result in reproducing.complete(first, PUBLISHED_ROW):
        panels = reproducing.grid_panels(setting, result, setting["grid_epochs"])
        figures.grids(panels, setting.out / "figure6.png")
        drawn.append(("figure6.png", "Figure 6: the same latents over the epochs"))
    if first:
        logs = [
            (result["row"], reproducing.read_log(setting, result["run"], result["images_seen"]))
            for result in first
        ]
        figures.losses(logs, setting.out / "figure7.png")
        drawn.append(("figure7.png", "Figure 7: losses of both networks"))
    large = [*reproducing.complete(first, "512x512"), *reproducing.complete(first, STEADIED)]
    if large:
        panels = [
            (f"{result['row']}, {title}", grid)
            for result in large
            for title, grid in reproducing.grid_panels(setting, result, [result["epochs"]], side=2)
        ]
        figures.grids(panels, setting.out / "large.png")
        drawn.append(("large.png", "512x512: three more doublings"))
    findings = []
    for result in reproducing.complete(first, PUBLISHED_ROW):
        log = reproducing.read_log(setting, result["run"], result["images_seen"])
        findings += late_losses(log)
    return Page(tuple(tables), tuple(drawn), tuple(findings))


def late_losses(log):
    """Return a sentence for each loss: its last value among those of the last tenth of the log."""
    late = log[-max(2, len(log) // 10) :]
    sentences = []
    for key in ("discriminator_loss", "generator_loss"):
        values = sorted(record[key] for record in late)
        sentences.append(
            f"{LINE[key]} ends at {log[-1][key]:.3g}; over the last {len(values)} passes its median"
            f" is {statistics.median(values):.3g}, from {values[0]:.3g} to {values[-1]:.3g}: the"
            " line depends on the pass at which one stops."
        )
    return sentences


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
