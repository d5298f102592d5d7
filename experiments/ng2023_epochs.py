"""Ng and Hargreaves 2023, table 2: is a DCGAN trained for longer better, until it is not?"""

from __future__ import annotations

from experiments.ng2023_size import CITATION, DATA, EXTRACTOR, LEFT_OPEN
from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

PUBLISHED = {500: 1.451, 600: 1.415, 700: 1.399, 800: 1.640}

EXPERIMENT = Experiment(
    name="ng2023_epochs",
    citation=CITATION,
    recipe="ng2023_dcgan",
    data=f"1,000 of {DATA}",
    classes=("COVID",),
    fewest=500,
    published={f"{epochs} epochs": {"frechet": score} for epochs, score in PUBLISHED.items()},
    left_open=(
        *LEFT_OPEN,
        "Whether the four numbers are of one training or of four is not stated: one, extended.",
        "Which 1,000 films is not stated: a seeded choice, or all where there are fewer.",
    ),
    cannot_compare=EXTRACTOR,
    scales={
        "smoke": {
            "recipe": {"width": 8, "batch_size": 16},
            "phantom": {"normal": 80},
            "films": 80,
            "generate": 80,
            "epochs": (15, 18, 21, 24),
        },
        "small": {
            "recipe": {"width": 16, "batch_size": 32},
            "phantom": {"normal": 500},
            "films": 1000,
            "generate": 1000,
            "epochs": (500, 600, 700, 800),
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 1000},
            "films": 1000,
            "generate": 1000,
            "epochs": (500, 600, 700, 800),
        },
    },
)


def row_of(epochs, paper):
    """Return the row of a stage, named after the paper's where the epochs differ."""
    return f"{epochs} epochs" if epochs == paper else f"{epochs} epochs (for {paper})"


def cells(setting):
    """Yield the stages of one run for each seed, scored each before the run goes on."""
    films, classes = setting.films(), setting.trained_on()
    for seed in setting.seeds:
        chosen, count = reproducing.some_films(
            films, classes, setting["films"], setting.out / "subsets", seed
        )
        for epochs, paper in zip(setting["epochs"], PUBLISHED):
            yield Cell(
                f"epochs-{epochs}-seed-{seed}",
                setting.recipe(seed=seed, sample_interval=100 * count, epochs=epochs),
                chosen,
                row_of(epochs, paper),
                classes,
                generate=setting["generate"],
                run=f"run-seed-{seed}",
            )


def verdict(stages):
    """Return sentences: whether the last stage is worse than the best one, beyond the noise."""
    from keras_cxrgan.sharing.experiment_tables import difference, mean_sd, values_of

    means = {
        row: mean_sd(found)[0]
        for row, results in stages.items()
        if (found := values_of(results, "frechet"))
    }
    if len(means) < 2:
        return ()
    last, best = list(means)[-1], min(means, key=means.get)
    if best == last:
        return (
            f"The longest training, {last}, has the lowest mean distance: here longer is not"
            " worse. The paper's is worse at 800 epochs than at 700 by 0.241.",
        )
    found = difference(stages[best], stages[last])
    if found is None:
        return (f"No seed has both {best} and {last}.",)
    holds = {None: "cannot be told", True: "holds", False: "does not hold beyond the noise"}
    return (
        f'"Longer is not better" {holds[found.clear]}: {last} minus {best}, the best of'
        f" {len(means)}, is {found}. The paper: +0.241 from 700 to 800 epochs, one training.",
        "The best of several stages is the best by chance too: its difference to the last is too"
        " large on average. Both stages are scored against the same films, which makes the errors"
        " of the scores too large for their difference.",
    )


def present(setting, results):
    """Return table 2, what of it is more than noise, and the scores as a figure."""
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import by_row, results_table, values_of

    rows = by_row(results)
    published = {row: {"frechet": score} for row, score in zip(rows, PUBLISHED.values())}
    table = results_table(
        "Table 2: Fréchet distance by epochs",
        results,
        published,
        same_extractor=reproducing.same_extractor(setting),
    )
    first = reproducing.complete(results, seed=setting.seeds[0])
    drawn = []
    if first:
        figures.scores(
            {row: values_of(found, "frechet") for row, found in rows.items()},
            {str(epochs): score for epochs, score in PUBLISHED.items()},
            setting.out / "table2.png",
            ours=first[0]["score"],
            theirs="published: FID (other extractor)",
        )
        drawn.append(("table2.png", "Table 2 as a figure"))
        panels = reproducing.grid_panels(setting, first[-1], [r["epochs"] for r in first])
        figures.grids(panels, setting.out / "epochs.png", columns=4)
        drawn.append(("epochs.png", "The same latents at each stage"))
        figures.losses(
            [("one run", reproducing.read_log(setting, first[-1]["run"]))],
            setting.out / "losses.png",
        )
        drawn.append(("losses.png", "Losses of both networks"))
    return Page((table,), tuple(drawn), verdict(rows))


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
