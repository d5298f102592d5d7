"""Venu 2020: DCGAN 128x128 on the minority class, and the images that even the set out."""

from __future__ import annotations

from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

ROW, REBALANCED = "DCGAN 128x128", "rebalanced"

EXPERIMENT = Experiment(
    name="venu2020",
    citation=(
        "S. Kora Venu, Deep Convolutional Generative Adversarial Networks for data augmentation of"
        " chest X-ray images, 2020."
    ),
    recipe="venu2020",
    data="1,341 NORMAL films, the minority beside 3,875 PNEUMONIA (Kermany, train)",
    published={ROW: {"frechet": 1.289}},
    left_open=(
        "Widths, kernels, batch normalization, batch size and optimizer are not stated: 64 to 512"
        " maps, 3x3, batch normalization in the generator, batch 128, Adam 2e-4 with beta_1 0.5"
        " (its reference, Radford et al. 2016).",
        "Channels and latents are not stated: one channel, 100 numbers from N(0, 1).",
        "How many images the FID is of is not stated: as many as real ones.",
        "The minority class is the smallest class of the films given, unless --class names one.",
    ),
    cannot_compare=(
        "The published FID 1.289 is of 768 dims of another network than the extractors that ship"
        " here; only fid2015 has its scale.",
        "Distances also depend on how many images both sides have.",
    ),
    scales={
        "smoke": {
            "recipe": {"width": 8, "batch_size": 12, "epochs": 20},
            "phantom": {"normal": 36, "pneumonia": 60},
            "generate": 0,
            "grid_epochs": (2, 20),
        },
        "small": {
            "recipe": {"width": 16, "batch_size": 32},
            "phantom": {"normal": 300, "pneumonia": 600},
            "generate": 0,
            "grid_epochs": (50, 500),
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 1341, "pneumonia": 3875},
            "generate": 0,
            "grid_epochs": (50, 500),
        },
    },
)


def cells(setting):
    """Yield a training on the minority class for each seed, and the images of the first."""
    films = setting.films()
    counts = reproducing.count_classes(films)
    if len(counts) < 2:
        raise ValueError(
            f"{films} has no two classes to even out: give a folder with a folder for each (--data)"
        )
    classes = setting.classes or (min(counts, key=counts.get),)
    interval = setting["grid_epochs"][0] * reproducing.count_films(films, classes)
    for seed in setting.seeds:
        recipe = setting.recipe(seed=seed, sample_interval=interval)
        yield Cell(f"dcgan-seed-{seed}", recipe, films, ROW, classes, generate=setting["generate"])
    recipe = setting.recipe(seed=setting.seeds[0])
    yield Cell(REBALANCED, recipe, films, REBALANCED, classes, work=rebalance)


def rebalance(cell, folder, setting):
    """Write as many images as the trained class lacks; return the counts before and after."""
    from keras_cxrgan import workflows

    before = reproducing.count_classes(cell.data)
    trained = " and ".join(cell.classes)
    missing = max(before.values()) - sum(before[name] for name in cell.classes)
    run = setting.out / f"dcgan-seed-{cell.recipe.seed}" / reproducing.GENERATOR
    if missing > 0:
        workflows.generate(
            run,
            folder / "synthetic" / trained,
            missing,
            seed=cell.recipe.seed,
            grid=True,
            overwrite=True,
            report=setting.report,
        )
    return {"before": before, "trained": trained, "synthetic": max(0, missing)}


def present(setting, results):
    """Return the score, the counts by class, the real-fake grid and the grids over epochs."""
    from keras_cxrgan import workflows
    from keras_cxrgan.evaluation.report import Table
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import results_table

    scored = [result for result in results if result["row"] == ROW]
    tables = [
        results_table(
            "Fréchet distance to the training films",
            scored,
            EXPERIMENT.published,
            same_extractor=reproducing.same_extractor(setting),
        )
    ]
    for result in reproducing.complete(results, REBALANCED):
        rows = []
        for name, count in result["before"].items():
            made = result["synthetic"] if name == result["trained"] else 0
            rows.append((name, f"{count:,}", f"{made:,}", f"{count + made:,}"))
        note = f"Synthetic images and their manifest: {REBALANCED}/synthetic/{result['trained']}."
        tables.append(
            Table("Films of each class", ("class", "real", "synthetic", "after"), tuple(rows), note)
        )
    drawn = []
    for result in reproducing.complete(scored, seed=setting.seeds[0]):
        path = setting.out / "figure3.png"
        columns = min(10, result["films"])
        workflows.figure([str(setting.out / result["run"])], path, columns=columns)
        drawn.append((path.name, "Figure 3: real films above generated images, none chosen"))
        panels = reproducing.grid_panels(setting, result, setting["grid_epochs"])
        figures.grids(panels, setting.out / "epochs.png")
        drawn.append(("epochs.png", "The same latents early and at the end"))
        log = reproducing.read_log(setting, result["run"])
        figures.losses([(ROW, log)], setting.out / "losses.png")
        drawn.append(("losses.png", "Losses of both networks"))
    return Page(tuple(tables), tuple(drawn))


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
