"""Do the scores order real films, a trained generator, an early checkpoint and noise?

The reference is one half of the patients. The sets judged are the films of the other half, the
DCGAN of `experiments.first_look` trained to the end, the same DCGAN after a few epochs, and
uniform noise; all have as many images as a half. Both runs are trained on all films, so the
generators have seen the reference: this orders sets, it proves nothing about copying.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np

from experiments.first_look import BATCH_SIZE, EPOCHS

EARLY_EPOCHS = 5
RECIPE = "tutorial"


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Folder of films named PATIENT_NUMBER, as in NIH ChestX-ray14.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs/first_look"),
    show_default=True,
    help="Where experiments.first_look trained; what is missing is trained here.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/evaluation"), show_default=True
)
@click.option("--features", multiple=True, default=("cxr", "random"), show_default=True)
def main(data, runs, out, features):
    """Evaluate real films, two checkpoints and noise against other patients' films."""
    from keras_cxrgan.terminal import Progress, grid, quiet_tensorflow

    with quiet_tensorflow():
        from keras_cxrgan import workflows
        from keras_cxrgan.data.images import write_png
        from keras_cxrgan.data.records import find_records
        from keras_cxrgan.evaluation.report import tables
        from keras_cxrgan.recipe import RECIPES

    trained, early = runs / RECIPE, out / f"after {EARLY_EPOCHS} epochs"
    for run, epochs in ((trained, EPOCHS[RECIPE]), (early, EARLY_EPOCHS)):
        recipe = RECIPES[RECIPE].override(batch_size=BATCH_SIZE, epochs=epochs)
        with Progress() as progress:
            workflows.train(recipe, run, data=str(data), report=progress)

    files = [Path(record.path) for record in find_records(data)]
    patients = sorted({file.name.split("_")[0] for file in files})
    chosen = set(np.random.default_rng(0).permutation(patients)[: len(patients) // 2])
    halves = {"reference": [], "other patients": []}
    for file in files:
        half = "reference" if file.name.split("_")[0] in chosen else "other patients"
        halves[half].append(file)
    count = min(map(len, halves.values()))
    for name, part in halves.items():
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        for file in part[:count]:
            shutil.copy(file, out / name)
    (out / "noise").mkdir(exist_ok=True)
    size = RECIPES[RECIPE].image_size
    random = np.random.default_rng(0)
    for index in range(count):
        write_png(
            out / "noise" / f"{index:04d}.png", random.integers(0, 256, (size, size), np.uint8)
        )

    with Progress() as progress:
        result = workflows.evaluate(
            str(out / "reference"),
            [str(out / "other patients"), str(trained), str(early), str(out / "noise")],
            features=features,
            image_size=size,
            count=count,
            out=out / "report",
            overwrite=True,
            report_progress=progress,
        )
    for table in tables(result):
        click.echo("\n" + grid(table.title, table.header, table.rows, table.note))
    for text in result["findings"]:
        click.echo(f"- {text}")
    rows = {
        block["features"]["score"]: {
            "weights": block["features"]["weights"],
            "n": count,
            "ladder": block["ladder"]["rows"],
            "scores": [
                {
                    key: entry[key]
                    for key in ("fake", "precision", "density", "recall", "coverage", "vendi")
                }
                | {
                    "frechet": entry["frechet"],
                    "kid": entry["kid"],
                    "floor": entry["floor"]["frechet"],
                }
                for entry in block["scores"]
            ],
        }
        for block in result["extractors"]
    }
    (out / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n")
    shutil.copy(out / "report" / "ladder.png", out / "evaluation.png")
    click.echo(f"\n{out / 'evaluation.json'}\n{out / 'evaluation.png'}")


if __name__ == "__main__":
    main()
