"""Do generated images help a classifier: fit every cell of a study, and conclude.

    results.md, results.json   tables, the answer, and every number   *.png   figures
    gans/PART-SIZE-seed-N/     runs of the GANs, a class each, and the films they were trained on
    cells/CELL/                predictions.csv, and cell.json once the cell is complete

The same call on the same folder goes on where it stopped. A cell that fails is a row.
"""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import asdict

import numpy as np

from keras_cxrgan.recipe import Recipe
from keras_cxrgan.terminal import format_seconds
from keras_cxrgan.workflows.describing import Stopped
from keras_cxrgan.workflows.designing import (
    CELL,
    MEASURED,
    PREDICTIONS,
    Cell,
    Study,
    decides,
    estimate,
    finished,
    plan_study,
    setting_of,
)
from keras_cxrgan.workflows.dividing import Films, check_apart
from keras_cxrgan.workflows.presenting import write
from keras_cxrgan.workflows.recognising import recognise
from keras_cxrgan.workflows.replicating import tested_as_published
from keras_cxrgan.workflows.supplying import ARMS, Maker, generated, supply

__all__ = ["plan_study", "run_cell", "run_study"]


def run_study(study: Study, report=None, make: Maker = generated) -> dict:
    """Run all cells, then write tables, figures and the answer; return `results.json`.

    Args:
        make: makes the synthetic images; another than `generated` is for tests.

    Raises `ValueError` for what a user can mend, and `Stopped`.
    """
    from keras_cxrgan.training import runtime
    from keras_cxrgan.workflows import concluding

    # Before the first operation, after which devices cannot be set up any more.
    runtime.start("auto")
    images = _load(study.films, study.recipe, report)
    external = study.external and _load(study.external, study.recipe, report)
    if any(finished(study, cell) is None for cell in study.cells):
        _check_network(study)
        if report and estimate(study) is None:
            report("", 0, 0, _measured(study, images))
    results = []
    for number, cell in enumerate(study.cells):
        earlier = finished(study, cell)
        if earlier is None:
            if report:
                report("", 0, 0, f"{number + 1} of {len(study.cells)}: {cell.name}")
            earlier = run_cell(study, cell, images, external, make, report)
            if "error" in earlier and report:
                report("", 0, 0, f"{cell.name} failed: {earlier['error']}")
        results.append(earlier)
    try:
        labels = recognise(study, images, make, report)
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - the cells have a table all the same
        labels = []
        if report:
            report("", 0, 0, f"the labels of generated images were not checked: {error}")
    return concluding.conclude(study, results, labels)


def _check_network(study: Study) -> None:
    """Raise `ValueError` if the network cannot be had as the cells that are complete had it."""
    facts = study.network[1]
    now = facts.get("weights", "").partition(":")[0]
    for cell in study.cells:
        earlier = (finished(study, cell) or {}).get("network", facts).get("weights", "")
        if earlier.partition(":")[0] != now:
            raise ValueError(
                f"cells in {study.out} began with weights {earlier}, and the others would begin with"
                f" {facts['weights']}: no comparison; bring the weights back, or use another --out"
            )


def _measured(study: Study, images: np.ndarray) -> str:
    """Return what there is to say about the time, which is no reason not to begin."""
    try:
        measure(study, images)
    except Exception as error:  # noqa: BLE001 - a cell that fails alike is a row, with its reason
        return f"no estimate of the time: {error}"
    return f"about {format_seconds(estimate(study))} to go, by a short measurement"


def measure(study: Study, images: np.ndarray) -> None:
    """Time a few steps of the classifier and of a GAN, and write them for `estimate`."""
    from keras_cxrgan.study.fitting import fit_classifier

    network, facts = study.network
    shown = np.resize(np.arange(len(images)), study.batch_size)
    rate = facts["learning_rates"][0]
    # The first warms up. The others differ by steps enough to stand out from building a network.
    _, few, more = (
        fit_classifier(
            images[shown],
            np.array(study.films.labels)[shown],
            classes=len(study.films.classes),
            network=network,
            steps=steps,
            batch_size=study.batch_size,
            optimizer=study.optimizer,
            learning_rate=rate,
        )[1]["seconds"]
        for steps in (1, 2, 22)
    )
    step = max(0.0, more - few) / 20
    numbers = {"cell": (few + step * study.steps) * len(study.learning_rates), "gan": 0.0}
    if study.trainings:
        numbers["gan"] = _measure_gan(study)
    study.out.mkdir(parents=True, exist_ok=True)
    write(study.out / MEASURED, json.dumps(numbers | {"setting": setting_of(study)}) + "\n")


def _measure_gan(study: Study) -> float:
    """Return the seconds of one GAN, their mean, from two steps after the first."""
    from keras_cxrgan.data.batches import training_batches
    from keras_cxrgan.workflows.assembly import build_gan

    recipe = study.recipe
    per_step = recipe.batch_size // recipe.accumulation * recipe.critic_steps
    blank = np.zeros((per_step, recipe.image_size, recipe.image_size), np.uint8)
    labels = np.arange(per_step) % 2 if recipe.conditional else None
    gan = build_gan(recipe, class_counts=(1, 1) if recipe.conditional else ())
    batches = training_batches(blank, per_step, channels=recipe.channels, labels=labels)
    options = {"shuffle": False, "verbose": 0}
    gan.fit(batches, steps_per_epoch=1, **options)
    began = time.perf_counter()
    gan.fit(batches, steps_per_epoch=2, **options)
    rate = 2 * per_step / (time.perf_counter() - began)
    seen = [
        study.gan_recipe(cell, name).total_images(len(study.gan_films(cell, name)))
        for cell, name in study.trainings
    ]
    return sum(seen) / len(seen) / rate


def run_cell(study: Study, cell: Cell, images, external, make: Maker, report=None) -> dict:
    """Fit one classifier and write its predictions; return its numbers, or its error."""
    about = asdict(cell) | {"name": cell.name, "row": cell.row}
    try:
        return _fit_and_predict(study, cell, images, external, make, report, about)
    except (Stopped, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - the other cells have a table
        text = re.sub(r"\s+", " ", str(error)).strip()
        kind = "" if isinstance(error, ValueError) and text else f"{type(error).__name__}: "
        return about | {"error": kind + text}


def _fit_and_predict(study, cell, images, external, make, report, about) -> dict:
    import keras

    from keras_cxrgan.study.fitting import fit_classifier, predict

    part, (fitted, validating) = study.part(cell), study.chosen(cell)
    check_apart(study.films, [*fitted, *validating], part.test)
    check_apart(study.films, fitted, validating)
    began = time.perf_counter()
    shown, labels, options = supply(study, cell, images, make, report)
    made = time.perf_counter() - began
    keras.utils.clear_session()
    network, facts = study.network
    truth = np.array(study.films.labels)
    model, history = fit_classifier(
        shown,
        labels,
        classes=len(study.films.classes),
        steps=study.steps,
        batch_size=study.batch_size,
        optimizer=study.optimizer,
        learning_rate=facts["learning_rates"],
        seed=cell.seed,
        validation=(images[validating], truth[validating]),
        network=network,
        frozen_steps=facts["frozen_steps"],
        **options,
    )
    rows = _rows("test", study.films, part.test, predict(model, images[list(part.test)]))
    if study.external:
        places = range(len(study.external.records))
        rows += _rows("external", study.external, places, predict(model, external))
    folder = study.out / "cells" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    # New predictions beside the numbers of other settings would pass for complete.
    (folder / CELL).unlink(missing_ok=True)
    temporary = folder / f".{PREDICTIONS}.tmp"
    with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["set", "file", "sha256", "patient", "label", *(f"p {c}" for c in study.films.classes)]
        )
        writer.writerows(rows)
    temporary.replace(folder / PREDICTIONS)
    if study.protocol:
        test = list(part.test)
        tested = tested_as_published(study.protocol, model, images[test], truth[test])
        about |= {"as_published": tested}
    result = about | {
        "decides": decides(study, cell),
        "real_films": len(fitted) if ARMS[cell.arm].real else 0,
        "added": len(labels) - (len(fitted) if ARMS[cell.arm].real else 0),
        "making_seconds": made,
        "network": {key: facts[key] for key in ("name", "weights") if key in facts},
        "fit": history,
    }
    write(folder / CELL, json.dumps(result, indent=1) + "\n")
    return json.loads((folder / CELL).read_text())


def _rows(name: str, films: Films, places, probabilities: np.ndarray) -> list[list]:
    return [
        [name, films.records[i].name, films.hashes[i], films.patients[i], films.records[i].label]
        + [repr(float(value)) for value in row]
        for i, row in zip(places, probabilities)
    ]


def _load(films: Films, recipe: Recipe, report=None) -> np.ndarray:
    """Return the films of a study, prepared as the recipe says: uint8 (N, S, S)."""
    from keras_cxrgan.workflows.assembly import prepare_films

    prepared = prepare_films(films.records, recipe, report=report)
    changed = [r.name for r, a, b in zip(films.records, films.hashes, prepared.hashes) if a != b]
    if changed:
        raise ValueError(
            f"{len(changed)} films changed since the manifest was written ({changed[0]}, ...):"
            " restore them, or make a new manifest (cxrgan split)"
        )
    return prepared.images
