"""Davoodi & Lo Giudice: one DCGAN a class, trained on classic-augmented films.

    python -m experiments.davoodi2021 --data films/train --out runs/davoodi2021 --scale small

Beside `results.md` this writes `augmented/` (the films that were trained on), a `statistics.csv`
in every run, and `synthetic/CLASS/` with `synthetic.csv` for the classifier study.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from keras_cxrgan.data.augmentation import ClassicAugmentation
from keras_cxrgan.data.sources import named_split
from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.workflows import augmenting, reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page, Setting

GENERATOR, DISCRIMINATOR = 3_574_656, 2_763_520  # trainable parameters, tables 1 and 2
LINE = {
    "discriminator_loss": "Loss_D",
    "generator_loss": "Loss_G",
    "real_score": "D(x)",
    "fake_score_before": "D(G(z)) before",
    "fake_score_after": "D(G(z)) after",
}
PAPER = "a class, epoch 200"
TRAINED_ON = "also_frechet"
PAIRS = 10

EXPERIMENT = Experiment(
    name="davoodi2021",
    citation="B. Davoodi and M. Lo Giudice, Synthetic of Chest X-ray Images.",
    recipe="davoodi2021",
    data="270 films of 64x64 (60 covid, 70 normal, 70 bacterial, 70 viral pneumonia), four GANs",
    published={
        PAPER: {
            "discriminator_loss": 1.2568,
            "generator_loss": 3.0651,
            "real_score": 0.7847,
            "fake_score_before": 0.5819,
            "fake_score_after": 0.0646,
            "frechet": 1.1241,
            "inception_score": 2.7997,
        }
    },
    left_open=(
        ("The classic augmentation is not in the paper. Its progress bar has 34 batches of 32, so"
        " each GAN saw its 60 or 70 films and 1,000 copies. Kind and ranges (turns of 5 degrees,"
        " scale 0.9 to 1.1, shifts of 0.1, brightness and contrast of 0.5, each with probability"
        " 0.5) are those of the public code whose networks the paper prints,"
        " rossettisimone/AUGMENTATION_GAN. That code draws exposure and turn twice, scale and"
        " shift four times, and mirrors; here each is drawn once and nothing is mirrored, for the"
        " heart is on one side."),
        ("The latent is uniform, as the paper says, on [-1, 1], which it does not say; the public"
        " code draws it from a normal distribution. The learning rates are the paper's; the"
        " public code has 0.002 for the generator."),
        "Dropout rates are the public code's: 0.5, 0, 0.5, 0.25.",
        ("The paper's statistics line is of the last batch (33 of 34) and one class, it is not"
        " said which. Ours are means over the last pass, of each class."),
        ("The films scored against are the originals alone. Against augmented ones a generator"
        " would be rewarded for the black wedges that turning and shifting leave, which no film"
        " has. The distance to all that it was trained on stands beside it."),
        ("How many images a GAN hands on is open: 1,000 a class. Image i is fixed by the seed and"
        " i, so that the first 60 or 70, which double a class, are a sample of the same kind."),
    ),
    cannot_compare=(
        ("The published FID (1.1241) and IS (2.7997) name neither layer nor sample size; a score"
        " of another network or layer is on another scale. Ours are of the extractor named above."),
        ("60 or 70 films are fewer than the dimensions of any extractor, so that a Fréchet distance"
        " is mostly its own bias: see the floor, and the KID, which has none."),
        ("An Inception score of images of one class measures how unalike they look to a network"
        " for photographs, and is no aim. It needs the weights of fid2015."),
    ),
    scales={
        "smoke": {
            "recipe": {
                "width": 16, "generator_max_width": 64, "discriminator_max_width": 64,
                "batch_size": 8, "epochs": 16,
            },
            "phantom": {"normal": 24, "pneumonia": 24, "covid": 24},
            "augmented": 72, "evaluate_epochs": 4, "generate": 96, "synthetic": 0,
        },
        # All 200 epochs of full networks, on fewer copies: 1,000 would take twice as long.
        "small": {
            "recipe": {},
            "phantom": {"normal": 70, "pneumonia": 70, "covid": 60},
            "augmented": 400, "evaluate_epochs": 20, "generate": 1000, "synthetic": 1000,
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 70, "pneumonia": 70, "covid": 60},
            "augmented": 1000, "evaluate_epochs": 10, "generate": 1000, "synthetic": 1000,
        },
    },
)  # fmt: skip


def cells(setting: Setting):
    """Yield a GAN for each class and seed, after the films of that seed are augmented."""
    # Scores on the way take no file of weights; those at the end do.
    on_the_way = "cxr" if setting.score_options.get("weights") else setting.features
    for seed in setting.seeds:
        films = augmented(setting, seed)
        for label, count in augmenting.read_summary(films)["images"].items():
            recipe = setting.recipe(
                seed=seed,
                evaluate_interval=setting["evaluate_epochs"] * count,
                evaluate_features=on_the_way,
            )
            yield Cell(
                name=f"{label or 'films'}-seed-{seed}",
                recipe=recipe,
                data=str(films / augmenting.TABLE),
                row=label or "films",
                classes=(label,) if label else (),
                evaluate_against=setting.films(),
                also_against=str(films / augmenting.TABLE),
                generate=setting["generate"],
                work=train_and_hand_on,
            )


def augmented(setting: Setting, seed: int) -> Path:
    """Return the folder of the films and their copies, made unless they lie there."""
    out = setting.out / "augmented" / f"seed-{seed}"
    asked = {
        "source": named_split(setting.films())[0],
        "split": named_split(setting.films())[1],
        "classes": list(setting.classes),
        "count": setting["augmented"],
        "seed": seed,
    }
    done = augmenting.read_summary(out) or {}
    if any(done.get(name) != value for name, value in asked.items()):
        augmenting.augment_films(
            out=out,
            settings=ClassicAugmentation(),
            overwrite=True,
            report_progress=setting.report,
            **asked,
        )
    return out


def train_and_hand_on(cell: Cell, folder: Path, setting: Setting) -> dict:
    """Train and score one GAN; write its statistics and, of the first seed, its images."""
    from keras_cxrgan import workflows

    numbers = reproducing.train_and_score(cell, folder, setting)
    numbers |= count_parameters(cell.recipe)
    numbers["seconds_an_epoch"] = numbers["seconds"] / numbers["epochs"]
    write_statistics(folder, numbers["films"])
    if reproducing.same_extractor(setting):
        numbers["inception_score"] = inception_score(folder, cell, setting)
    if cell.recipe.seed == setting.seeds[0]:
        originals = numbers["films"] - setting["augmented"]
        made = workflows.generate(
            folder,
            setting.out / "synthetic" / cell.row,
            setting["synthetic"] or originals,
            seed=cell.recipe.seed,
            overwrite=True,
            report=setting.report,
        )
        numbers |= {"synthetic": made["images"], "model": made["model"]}
    return numbers


def count_parameters(recipe) -> dict[str, int]:
    """Return the trainable parameters of both networks, as the paper's tables 1 and 2 count."""
    from keras_cxrgan.workflows import build_networks

    return {
        f"{name}_parameters": sum(math.prod(weight.shape) for weight in network.trainable_weights)
        for name, network in zip(("generator", "discriminator"), build_networks(recipe))
    }


def inception_score(run: Path, cell: Cell, setting: Setting) -> float:
    """Return the Inception score of a run's images, which needs the weights of fid2015."""
    from keras_cxrgan import workflows

    result = workflows.evaluate(
        cell.evaluate_against,
        [str(run)],
        features=(setting.features,),
        classes=cell.classes,
        count=cell.generate or None,
        draws=1,
        seed=cell.recipe.seed,
        references=False,
        with_inception_score=True,
        **setting.score_options,
    )
    return result["appearance"][0]["inception_score"]["mean"]


def statistics(run: Path, films: int) -> list[dict]:
    """Return the paper's statistics line for each epoch, from a run's log and its evaluations."""
    passes = defaultdict(list)
    for record in _json_lines(run / "log.jsonl"):
        passes[max(1, round(record["epoch"]))].append(record)
    scores = {
        max(1, round(record["images_seen"] / films)): record
        for record in _json_lines(run / "metrics.jsonl")
    }
    return [
        {
            "epoch": epoch,
            "images_seen": records[-1]["images_seen"],
            **{name: float(np.mean([record[name] for record in records])) for name in LINE},
            "frechet": scores.get(epoch, {}).get("frechet"),
            "kid": scores.get(epoch, {}).get("kid"),
            "features": scores.get(epoch, {}).get("features"),
        }
        for epoch, records in sorted(passes.items())
    ]


def write_statistics(run: Path, films: int) -> None:
    rows = statistics(run, films)
    with open(run / "statistics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_synthetic(setting: Setting, results: list[dict]) -> int:
    """Write `synthetic.csv`, a table of all images handed on, and return their number."""
    rows = []
    for result in results:
        if "synthetic" not in result:
            continue
        with open(setting.out / "synthetic" / result["row"] / "manifest.csv", newline="") as file:
            rows += [
                (
                    f"synthetic/{result['row']}/{image['file']}",
                    result["row"],
                    image["seed"],
                    image["model"],
                    result["name"],
                )
                for image in csv.DictReader(file)
            ]
    with open(setting.out / "synthetic.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "seed", "model", "run"))
        writer.writerows(rows)
    return len(rows)


def present(setting: Setting, results: list[dict]) -> Page:
    """Return the statistics beside the published ones, the scores, and the figures."""
    from keras_cxrgan.sharing import experiment_tables as tables

    good = reproducing.complete(results)
    scores = tables.results_table(
        "Scores of each GAN, against the original films alone",
        results,
        {},
        same_extractor=reproducing.same_extractor(setting),
        columns={
            **tables.COLUMNS,
            "real_images": "originals",
            TRAINED_ON: "Fréchet to all it was trained on",
        },
    )
    page = [line_table(setting, results), scores]
    findings = []
    if good:
        page.append(parameter_table(good))
        findings.append(
            f"{write_synthetic(setting, good):,} images are handed on to the classifier study:"
            " synthetic.csv lists them"
        )
        closer = [result["row"] for result in good if result[TRAINED_ON] < result["frechet"]]
        findings.append(
            f"nearer to the augmented films than to the originals, of {len(good)}:"
            f" {', '.join(closer) or 'none'}; the two counts of real films differ, and with them"
            " the bias of the distance"
        )
    return Page(tuple(page), tuple(draw(setting, good)), tuple(findings))


def line_table(setting: Setting, results: list[dict]) -> Table:
    """Return the statistics line of the last epoch: the published one, then each class."""
    from keras_cxrgan.sharing.experiment_tables import by_row, failed, show, values_of

    published = EXPERIMENT.published[PAPER]
    name = next((f", {result['score']}" for result in results if "score" in result), "")
    other = "" if reproducing.same_extractor(setting) else " (other extractor)"
    columns = {**LINE, "frechet": f"Fréchet{name}"}
    header = ("", *columns.values(), f"published FID{other}", "IS")
    theirs = (*(f"{published[key]:g}" for key in LINE), "-", f"{published['frechet']:g}")
    rows = [(f"published: {PAPER}", *theirs, f"{published['inception_score']:g}")]
    for row, seeds in by_row(results).items():
        scored = reproducing.complete(seeds)
        label = row if scored else f"{row}: {failed(seeds)}"
        ours = [show(values_of(scored, key), key) for key in columns]
        rows.append((label, *ours, "-", show(values_of(scored, "inception_score"))))
    note = "Ours: means over the last pass, mean ± sd over seeds; statistics.csv has every epoch."
    if not reproducing.same_extractor(setting):
        note += " IS needs the weights of fid2015 (--features fid2015 --weights FILE)."
    return Table("Statistics of the last epoch", header, tuple(rows), note)


def parameter_table(good: list[dict]) -> Table:
    """Return the trainable parameters of both networks beside those of the paper."""
    rows = [
        (name, f"{published:,}", f"{good[0][f'{name}_parameters']:,}")
        for name, published in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR))
    ]
    return Table("Trainable parameters", ("", "published", "ours"), tuple(rows))


def draw(setting: Setting, good: list[dict]):
    """Yield (file, caption): pairs of real and generated films, losses, and scores by epoch."""
    from keras_cxrgan.sharing import experiment_figures as figures

    first = reproducing.complete(good, seed=setting.seeds[0])
    if not first:
        return
    bands = [band(setting, result) for result in first]
    figures_of = {result["row"]: statistics(setting.out / result["name"], result["films"])
                  for result in first}  # fmt: skip
    from keras_cxrgan.sharing.figures import compare_rows

    compare_rows(bands, setting.out / "pairs.png")
    yield "pairs.png", "Original films above, generated ones below, of each class; none is chosen."
    figures.losses(list(figures_of.items()), setting.out / "losses.png")
    yield "losses.png", "Losses of each GAN, the mean of each epoch."
    curves = {
        row: tuple(zip(*((r["epoch"], r["frechet"]) for r in rows if r["frechet"] is not None)))
        for row, rows in figures_of.items()
    }
    curves = {row: curve for row, curve in curves.items() if curve}
    if curves:
        figures.lines(
            [("against the films trained on", "Fréchet distance", curves)],
            setting.out / "frechet.png",
        )
        yield "frechet.png", "Fréchet distance by epoch, against originals and their copies."


def band(setting: Setting, result: dict) -> tuple:
    """Return (title, originals, generated) of a class, the first of each."""
    from keras_cxrgan import workflows
    from keras_cxrgan.data.images import decode
    from keras_cxrgan.recipe import Recipe

    folder = setting.out / "synthetic" / result["row"]
    fakes = [decode(path.read_bytes()) for path in sorted(folder.glob("0*.png"))[:PAIRS]]
    classes = () if result["row"] == "films" else (result["row"],)
    recipe = Recipe().override(**result["recipe"])
    reals = workflows.load_images(setting.films(), recipe, classes=classes).images[: len(fakes)]
    return f"{result['row']}, {result['epochs']:.0f} epochs", reals, np.stack(fakes)


def _json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
