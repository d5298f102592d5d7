"""`small_data` on each class of a set: a GAN a class, or one conditional GAN of all classes?

    python -m experiments.classes --data films/ --out runs/classes --scale small --seeds 0,1,2
    python -m experiments.classes --data manifest.csv:train --held-out manifest.csv:test

A conditional GAN sees as many images as the others together, so both cost the same: each class as
often as its films are many, and, where one has twice as many as another, all classes alike too.
What few films gain from others shows against films held out: those trained on are soon reached by
either.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import numpy as np

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.sharing import experiment_tables
from keras_cxrgan.workflows import ablating, contrasting, reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page, Setting

ALONE, TOGETHER, ALIKE = "a GAN a class", "one of all classes", "one of all classes alike"
SHOWN = 10  # images of each row of the figure

EXPERIMENT = Experiment(
    name="classes",
    citation="The recipe small_data on each class: a GAN a class, or one conditional GAN of all.",
    recipe="small_data",
    data="",
    published={},
    left_open=(),
    cannot_compare=(
        "A Fréchet distance grows as images get fewer. Compare it with the floor of its own class"
        " and count, not with another class.",
    ),
    scales={
        "smoke": {
            "recipe": {
                "width": 8, "generator_max_width": 32, "discriminator_max_width": 32,
                "batch_size": 8, "training_images": 400,
            },
            "phantom": {"normal": 24, "covid": 16}, "curve": 1,
        },
        "small": {"recipe": {}, "phantom": {"normal": 200, "covid": 60}, "curve": 6},
        "paper": {"recipe": {}, "phantom": {"normal": 500, "covid": 60}, "curve": 6},
    },
    holds_out=True,
)  # fmt: skip


def cells(setting: Setting):
    """Yield, for each seed, the GANs of one class each, then the classes of the common one."""
    films = setting.films()
    counts = reproducing.count_classes(films)
    wanted = {name.lower() for name in setting.classes} or {name.lower() for name in counts}
    labels = [name for name in counts if name.lower() in wanted]
    if len(labels) < 2:
        raise ValueError(
            f"{films} has {len(labels)} of the classes asked for, and this compares one GAN of"
            " several with a GAN of each: give a folder with a folder a class"
        )
    if setting.held_out:
        reproducing.count_apart(films, setting.held_out, tuple(labels))
        for label in labels:
            reproducing.check_scorable(setting.held_out, (label,))
    for seed in setting.seeds:
        recipe = setting.recipe(seed=seed)
        seen = {label: recipe.total_images(counts[label]) for label in labels}
        for label in labels:
            interval = max(1, seen[label] // setting["curve"])
            watched = setting.recipe(
                seed=seed,
                evaluate_interval=interval,
                sample_interval=interval,
                evaluate_features=setting.features,
            )
            yield Cell(
                f"{label}-alone-seed-{seed}",
                watched,
                films,
                f"{label}: {ALONE}",
                (label,),
                also_against=setting.held_out,
                generate=counts[label],
                draws=reproducing.sets_scored(counts[label], recipe.image_size),
                work=ablating.measure,
            )
        # What was asked for by --set is of one class.
        common = {"conditional": True, "training_images": sum(seen.values())}
        ways = [(TOGETHER, "together", False)]
        if max(counts[label] for label in labels) >= 2 * min(counts[label] for label in labels):
            ways.append((ALIKE, "alike", True))
        for kind, run, balanced in ways:
            for label in labels:
                yield Cell(
                    f"{label}-{run}-seed-{seed}",
                    recipe.override(**common, balanced=balanced),
                    films,
                    f"{label}: {kind}",
                    tuple(labels),
                    also_against=setting.held_out,
                    generate=counts[label],
                    draws=reproducing.sets_scored(counts[label], recipe.image_size),
                    run=f"{run}-seed-{seed}",
                    work=score_class,
                    options={"label": label},
                )


def score_class(cell: Cell, folder: Path, setting: Setting) -> dict:
    """Train the common generator unless it is, and score its images of one class."""
    run = setting.out / cell.run
    numbers = reproducing.train(cell, run, setting)
    one = dataclasses.replace(cell, classes=(cell.options["label"],))
    numbers |= reproducing.score(str(run / "export"), cell.data, one, setting)
    numbers |= reproducing.score_also(str(run / "export"), one, setting)
    return numbers | ablating.nearness(one, str(run / "export"), setting)


def present(setting: Setting, results: list[dict]) -> Page:
    """Return the scores of each class beside their floor, the differences, and a figure."""
    classes: dict[str, list[dict]] = {}
    for result in results:
        classes.setdefault(label_of(result), []).append(result)
    tables = [aims_table(classes)]
    tables += [contrasting.scores_table(label, found) for label, found in classes.items()]
    tables.append(differences_table("the films trained on", classes, contrasting.SCORES))
    if setting.held_out:
        unseen = {
            label: [contrasting.also(result) for result in found]
            for label, found in classes.items()
        }
        tables += [
            contrasting.unseen_table(f"{label} films never trained on", found)
            for label, found in unseen.items()
        ]
        tables.append(differences_table("films never trained on", unseen, contrasting.UNSEEN))
    tables = [table for table in tables if table]
    good = reproducing.complete(results)
    tables.append(
        experiment_tables.results_table(
            "Cost",
            good,
            {},
            same_extractor=True,
            columns=contrasting.COST,
            note="A common GAN's cost stands in each row of its classes, and is paid once. The"
            " seconds include the scores on the way.",
        )
    )
    return Page(tuple(tables), tuple(draw(setting, classes)))


def differences_table(films: str, classes: dict[str, list[dict]], columns) -> Table | None:
    """Return how far the common GANs lie from a GAN a class, or None where there is no pair."""
    made = []
    for label, found in classes.items():
        base = f"{label}: {ALONE}"
        if base in (rows := experiment_tables.by_row(found)) and len(rows) > 1:
            made.append(experiment_tables.differences_table("", base, found, columns))
    if not made:
        return None
    title = f"One GAN of all classes, less a GAN a class, at the same total cost, against {films}"
    rows = tuple(row for table in made for row in table.rows)
    return Table(title, ("", *made[0].header[1:]), rows, made[0].note)


def label_of(result: dict) -> str:
    """Return the class that a result is of."""
    return result["row"].rpartition(":")[0]


def aims_table(classes: dict[str, list[dict]]) -> Table:
    """Return the aims of the recipe by row: at the floor, varied, no copies, no pattern."""
    header = (
        "", "seeds", "films", "Fréchet / floor", "recall", "coverage", "as near as copies",
        "of real films", "P(nearer), features", "spectrum, dB", "checkerboard, dB",
    )  # fmt: skip
    lines = []
    for found in classes.values():
        for row, seeds in experiment_tables.by_row(found).items():
            good = reproducing.complete(seeds)
            if not good:
                lines.append((row, "0", experiment_tables.failed(seeds), *["-"] * 8))
                continue
            ratio = [result["frechet_at_floor"] / result["frechet_floor"] for result in good]
            keys = (
                "recall", "coverage", "copies", "copies_real", "nearer_features", "spectrum_db",
                "checkerboard_db",
            )  # fmt: skip
            shown = (experiment_tables.show(experiment_tables.values_of(good, key)) for key in keys)
            films = statistics.fmean(result["real_images"] for result in good)
            lines.append(
                (row, str(len(good)), f"{films:,.0f}", experiment_tables.show(ratio), *shown)
            )
    return Table(
        "Aims",
        header,
        tuple(lines),
        "Fréchet / floor: of as many images as half the films, over what halves of the films score;"
        " 1 or less is the aim, with recall from 0.7 and coverage from 0.9 of as many images as"
        " films. As near as copies: generated images, and real films among the others, by the"
        " thresholds of cxrgan audit. Differences of the spectrum are from the real films' power.",
    )


def draw(setting: Setting, classes: dict[str, list[dict]]):
    """Yield (file, caption): films of each class above images of the first seed's generators."""
    from keras_cxrgan import workflows
    from keras_cxrgan.data.images import decode
    from keras_cxrgan.recipe import Recipe
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.figures import compare_rows

    bands = []
    for label, found in classes.items():
        for result in reproducing.complete(found, seed=setting.seeds[0]):
            recipe = Recipe().override(**result["recipe"])
            reals = workflows.load_images(setting.films(), recipe, classes=(label,)).images
            shown = setting.out / "shown" / result["name"]
            workflows.generate(
                setting.out / result["run"] / "export",
                shown,
                None if recipe.conditional else SHOWN,
                classes={label: SHOWN} if recipe.conditional else None,
                overwrite=True,
            )
            paths = sorted(path for path in shown.rglob("*.png") if path.name[0] == "0")
            fakes = np.stack([decode(path.read_bytes()) for path in paths])
            bands.append((result["row"], reals[: len(fakes)], fakes))
    if bands:
        compare_rows(bands, setting.out / "pairs.png")
        yield "pairs.png", "Films above, generated images below; the first of each, not chosen"
    curves = {
        label: reproducing.complete(found, f"{label}: {ALONE}") for label, found in classes.items()
    }
    curves = {label: found for label, found in curves.items() if found}
    if curves:
        figures.lines(
            contrasting.curve_panels(curves, relative=True),
            setting.out / "curves.png",
            x="images seen",
        )
        yield "curves.png", f"{ALONE}, against images seen: scores, and how near the films are"


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
