"""Ng and Hargreaves 2023, table 3: DCGAN or WGAN-GP, at equal epochs, updates and time?"""

from __future__ import annotations

import dataclasses

from experiments.ng2023_size import CITATION, DATA, EXTRACTOR, LEFT_OPEN
from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

DCGAN, WGAN = "DCGAN", "WGAN-GP"
UPDATES, TIME = "WGAN-GP, equal generator updates", "equal time"
RECIPE_OF = {DCGAN: "ng2023_dcgan", WGAN: "ng2023_wgan_gp"}
FOLDER_OF = {DCGAN: "dcgan", WGAN: "wgan-gp"}
NEAR = 0.05  # times that differ by less are equal

EXPERIMENT = Experiment(
    name="ng2023_wgan_gp",
    citation=CITATION,
    recipe="ng2023_dcgan",
    data=f"1,000 of {DATA} (700 epochs; which films is not stated)",
    classes=("COVID",),
    fewest=500,
    published={DCGAN: {"frechet": 1.399}, WGAN: {"frechet": 1.583}},
    left_open=(
        *LEFT_OPEN,
        "Penalty weight and critic steps are not stated: 10 and 5 (Gulrajani et al. 2017), with"
        " the stated Adam 1e-4, beta_1 0.5, beta_2 0.9.",
        "The critic's instance normalization has learnt scales and offsets.",
        "Equal epochs, as the paper compares, give the WGAN-GP's generator a fifth of the DCGAN's"
        " updates. The rows below train it on to as many updates, and the faster of the two on to"
        " as many seconds as the slower one.",
    ),
    cannot_compare=(
        *EXTRACTOR,
        "Losses of the two do not compare: one is a cross-entropy, the other a difference of"
        " scores.",
        "Equal time is of this machine.",
    ),
    scales={
        "smoke": {
            "recipe": {"width": 8, "batch_size": 16, "epochs": 12},
            "phantom": {"normal": 80},
            "films": 80,
            "generate": 80,
        },
        "small": {
            "recipe": {"width": 16, "batch_size": 32, "epochs": 350},
            "phantom": {"normal": 500},
            "films": 1000,
            "generate": 1000,
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 1000},
            "films": 1000,
            "generate": 1000,
        },
    },
)


def cells(setting):
    """Yield both at equal epochs, then what is equal in time, then in generator updates."""
    films, classes = setting.films(), setting.trained_on()
    for seed in setting.seeds:
        chosen, count = reproducing.some_films(
            films, classes, setting["films"], setting.out / "subsets", seed
        )
        published = {}
        for kind, name in RECIPE_OF.items():
            recipe = setting.recipe(name, seed=seed)
            published[kind] = Cell(
                f"{FOLDER_OF[kind]}-epochs-seed-{seed}",
                recipe.override(sample_interval=max(1, recipe.epochs // 20) * count),
                chosen,
                kind,
                classes,
                generate=setting["generate"],
                run=f"{FOLDER_OF[kind]}-run-seed-{seed}",
            )
        yield from published.values()
        wgan = published[WGAN].recipe
        later = [longer(published[WGAN], "updates", UPDATES, wgan.epochs * wgan.critic_steps)]
        done = {k: reproducing.finished(setting, cell.name) for k, cell in published.items()}
        if all(done.values()) and (equal := equal_time(done)):
            kind, epochs = equal
            later.append(longer(published[kind], "time", f"{kind}, {TIME}", epochs))
        # One run cannot go back: the shorter training comes first.
        yield from sorted(later, key=lambda each: each.recipe.epochs)


def longer(cell, what, row, epochs):
    """Return a cell that goes on with another one's run."""
    return dataclasses.replace(
        cell,
        name=cell.name.replace("-epochs-", f"-{what}-"),
        row=row,
        recipe=cell.recipe.override(epochs=epochs),
    )


def equal_time(done):
    """Return (the faster one, the epochs it needs for the other's seconds), or None if equal."""
    quick, slow = sorted(done, key=lambda kind: done[kind]["seconds"])
    ratio = done[slow]["seconds"] / done[quick]["seconds"]
    if ratio < 1 + NEAR:
        return None
    return quick, max(round(done[quick]["epochs"] * ratio), round(done[quick]["epochs"]) + 1)


def stability(setting, results):
    """Return a table of how calm each training was, and how varied its images."""
    import numpy as np

    from keras_cxrgan.evaluation.report import Table
    from keras_cxrgan.sharing import experiment_figures as figures

    rows = []
    for result in results:
        log = reproducing.read_log(setting, result["run"], result["images_seen"])
        late = log[len(log) // 2 :]
        numbers = [
            f"{np.std([record[key] for record in late]):.3g}"
            for key in ("discriminator_loss", "generator_loss")
        ]
        for key in ("discriminator_gradient_norm", "generator_gradient_norm"):
            norms = [record[key] for record in late]
            numbers.append(f"{np.median(norms):.3g} / {max(norms):.3g}")
        gaps = [record["real_score"] - record["fake_score_before"] for record in late]
        grid, _ = reproducing.sample_grid(setting, result["run"], result["epochs"], result["films"])
        images = figures.tiles(grid, result["recipe"]["image_size"])
        distance = np.median(figures.nearest_distances(images))
        rows.append((result["row"], *numbers, f"{np.median(gaps):.3g}", f"{distance:.1f}"))
    header = (
        "", "sd of D's loss", "sd of G's loss", "D gradient, median / max",
        "G gradient, median / max", "D(x) - D(G(z))", "nearest in grid",
    )  # fmt: skip
    note = (
        "Of the first seed, over the second half of each training, one value a pass over the films."
        " The critic's scores have no bounds, so its gap and losses do not compare with the"
        " DCGAN's. Nearest in grid: median RMS distance, in grey levels, of 64 images of fixed"
        " latents to the nearest other one; near 0 they repeat."
    )
    return Table("Stability", header, tuple(rows), note)


def present(setting, results):
    """Return table 3 in three ways, what of it is more than noise, curves, grids, stability."""
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import COLUMNS, by_row, difference, results_table

    rows = by_row(results)
    columns = {"seconds": "seconds", **COLUMNS}
    tables = [
        results_table(
            "Table 3: DCGAN and WGAN-GP",
            results,
            EXPERIMENT.published,
            same_extractor=reproducing.same_extractor(setting),
            columns=columns,
            note=f"Rows {DCGAN} and {WGAN}: equal epochs, as published.",
        )
    ]
    findings = []
    for first, second, how in (
        (DCGAN, WGAN, "equal epochs (the paper: +0.184)"),
        (DCGAN, UPDATES, "equal generator updates"),
        (DCGAN, f"{WGAN}, {TIME}", "equal time"),
        (f"{DCGAN}, {TIME}", WGAN, "equal time"),
    ):
        found = difference(rows.get(first, []), rows.get(second, []))
        if found:
            findings.append(f"WGAN-GP minus DCGAN at {how}: {found}.")
    first = reproducing.complete(results, seed=setting.seeds[0])
    ends = {r["row"]: r for r in first if r["row"] in (DCGAN, WGAN)}
    if len(ends) == 2 and equal_time(ends) is None:
        findings.append(f"Both took the same time within {NEAR:.0%}: equal epochs are equal time.")
    drawn = []
    if first:
        tables.append(stability(setting, first))
        longest = {r["run"]: r for r in sorted(first, key=lambda r: r["images_seen"])}.values()
        logs = {
            r["row"].partition(",")[0]: reproducing.read_log(setting, r["run"]) for r in longest
        }
        figures.losses(list(logs.items()), setting.out / "losses.png")
        drawn.append(("losses.png", "Losses of both (figure 4, and the one described)"))
        panels = [
            (what, "norm", {name: series(log, key) for name, log in logs.items()})
            for what, key in (
                ("discriminator gradient norm", "discriminator_gradient_norm"),
                ("generator gradient norm", "generator_gradient_norm"),
            )
        ]
        panels += [
            (f"{name}: {what}", what, {name: series(log, key)})
            for name, log in logs.items()
            for what, key in (
                ("Wasserstein estimate", "wasserstein_estimate"),
                ("D(x)", "real_score"),
            )
            if key in log[-1] and (key == "wasserstein_estimate") == (name == WGAN)
        ]
        norms = [title for title, label, _ in panels if label == "norm"]
        figures.lines(panels, setting.out / "stability.png", logarithmic=norms)
        drawn.append(("stability.png", "Gradients and scores while training"))
        grids = [
            (f"{r['row']}, {title}", grid)
            for r in first
            for title, grid in reproducing.grid_panels(setting, r, [r["epochs"]])
        ]
        figures.grids(grids, setting.out / "figure5.png", columns=4)
        drawn.append(
            ("figure5.png", "Images of the same latents at the end of each row (figure 5)")
        )
    return Page(tuple(tables), tuple(drawn), tuple(findings))


def series(log, key):
    """Return (epochs, values) of a key of a log."""
    return [record["epoch"] for record in log], [record[key] for record in log]


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
