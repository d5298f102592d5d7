"""Ng and Hargreaves 2023, table 1: does a DCGAN trained on more films make better images?"""

from __future__ import annotations

from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

CITATION = (
    "M. F. Ng and C. A. Hargreaves, Generative Adversarial Networks for the Synthesis of Chest"
    " X-ray Images, Engineering Proceedings 31(1):84, 2023."
)
DATA = "3,616 COVID films of the COVID-19 Radiography Database"
LEFT_OPEN = (
    "CLAHE (before the resize) has no stated clip limit or tiles: 2.0 and 8x8.",
    "The channels are three, as stated: the grey film three times.",
)
EXTRACTOR = (
    "The published FID is of 768 dims of another network than the extractors that ship here; only"
    " fid2015 has its scale.",
    "The paper gives one number for each row, of one training. It gives the same setting twice"
    " (1,000 films, 500 epochs): 1.494 in table 1 and 1.451 in table 2, so its own noise is about"
    " 0.04.",
)
PUBLISHED = {500: 1.763, 1000: 1.494, 1500: 1.405, 2000: 1.249}

EXPERIMENT = Experiment(
    name="ng2023_size",
    citation=CITATION,
    recipe="ng2023_dcgan",
    data=f"500, 1,000, 1,500 and 2,000 of {DATA}",
    classes=("COVID",),
    fewest=500,
    published={f"{size} films": {"frechet": score} for size, score in PUBLISHED.items()},
    left_open=(
        *LEFT_OPEN,
        "How the subsets were chosen is not stated: they are nested (500 inside 1,000 inside ...),"
        " drawn anew for each seed; the lists are in subsets/.",
        "With fewer films than 2,000, the subsets are 1/4, 2/4, 3/4 and all of them.",
    ),
    cannot_compare=(
        *EXTRACTOR,
        "The paper scores each subset against its own training films, so the reference grows with"
        " the subset, and a Fréchet distance falls with the size of its reference whatever the"
        " images. The second distance is to all films for every row.",
    ),
    scales={
        "smoke": {
            "recipe": {"width": 8, "batch_size": 16, "epochs": 20},
            "phantom": {"normal": 96},
            "sizes": (24, 48, 72, 96),
            "generate": 60,
            "grid_epochs": (2, 20),
        },
        "small": {
            "recipe": {"width": 16, "batch_size": 32, "epochs": 500},
            "phantom": {"normal": 500},
            "sizes": (500, 1000, 1500, 2000),
            "generate": 1000,
            "grid_epochs": (50, 500),
        },
        "paper": {
            "recipe": {"epochs": 500},
            "phantom": {"normal": 2000},
            "sizes": (500, 1000, 1500, 2000),
            "generate": 1000,
            "grid_epochs": (50, 500),
        },
    },
)


def subset_sizes(wanted, available):
    """Return the sizes, scaled to the films there are: 1/4, 2/4, 3/4 and all of too few."""
    if available >= wanted[-1]:
        return list(wanted)
    return [available * size // wanted[-1] for size in wanted]


def row_of(size, paper):
    """Return the row of a subset, named after the paper's where the sizes differ."""
    return f"{size} films" if size == paper else f"{size} films (for {paper:,})"


def cells(setting):
    """Yield a training for each seed and subset, scored against the subset and all films."""
    films, classes = setting.films(), setting.trained_on()
    sizes = subset_sizes(setting["sizes"], reproducing.count_films(films, classes))
    for seed in setting.seeds:
        lists = reproducing.nested_subsets(films, classes, sizes, setting.out / "subsets", seed)
        for size, paper in zip(sizes, PUBLISHED):
            interval = setting["grid_epochs"][0] * size
            yield Cell(
                f"films-{size}-seed-{seed}",
                setting.recipe(seed=seed, sample_interval=interval),
                lists[size],
                row_of(size, paper),
                classes,
                also_against=films,
                generate=setting["generate"],
            )


def present(setting, results):
    """Return table 1, what of it is more than noise, grids at two epochs and loss curves."""
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import (
        COLUMNS,
        by_row,
        difference,
        results_table,
        values_of,
    )

    rows = by_row(results)
    published = {row: {"frechet": score} for row, score in zip(rows, PUBLISHED.values())}
    columns = {
        key: name for key, name in COLUMNS.items() if key not in ("frechet_at_floor", "recall")
    } | {"also_frechet": "Fréchet to all films", "also_frechet_error": "its standard error "}
    table = results_table(
        "Table 1: Fréchet distance by number of training films",
        results,
        published,
        same_extractor=reproducing.same_extractor(setting),
        columns=columns,
    )
    findings = []
    by_size = list(rows.values())
    compared = (("frechet", "its own training films"), ("also_frechet", "all films"))
    for key, what in compared if len(rows) > 1 else ():  # not with --only one
        if found := difference(by_size[0], by_size[-1], key):
            findings.append(
                f"Distance to {what}, largest subset minus smallest: {found}. The paper: -0.514."
            )
    first = reproducing.complete(results, seed=setting.seeds[0])
    drawn = []
    if first:
        panels = [
            (f"{result['row']}, {title}", grid)
            for result in first
            for title, grid in reproducing.grid_panels(setting, result, setting["grid_epochs"])
        ]
        figures.grids(panels, setting.out / "epochs.png", columns=len(panels) // len(first))
        drawn.append(("epochs.png", "The same latents early and at the end (figures 2 and 3)"))
        logs = [(r["row"], reproducing.read_log(setting, r["run"])) for r in first]
        figures.losses(logs, setting.out / "figure4.png")
        drawn.append(("figure4.png", "Figure 4: losses of both networks"))
        figures.scores(
            {row: values_of(found, "also_frechet") for row, found in rows.items()},
            {f"{size:,}": score for size, score in PUBLISHED.items()},
            setting.out / "table1.png",
            ours=f"{first[0]['score']} to all films",
            theirs="published: FID (other extractor) to the training films",
        )
        drawn.append(("table1.png", "Table 1 as a figure"))
    return Page((table,), tuple(drawn), tuple(findings))


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
