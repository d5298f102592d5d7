"""The design of a study: its arms, parts, sizes, ratios and seeds, checked and counted."""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_cxrgan.data.records import content_hash, fingerprint
from keras_cxrgan.recipe import Recipe, recipe_for
from keras_cxrgan.rules import check_effect
from keras_cxrgan.study.comparison import lone_class
from keras_cxrgan.study.protocols import PROTOCOLS, Protocol
from keras_cxrgan.workflows.classifying import CLASSIFIERS, classifier_of
from keras_cxrgan.workflows.describing import check_fields
from keras_cxrgan.workflows.dividing import (
    FEWEST,
    Films,
    Part,
    choose,
    count_classes,
    read_external,
    read_films,
)
from keras_cxrgan.workflows.supplying import (
    ARMS,
    BASELINE,
    CLASSIC,
    added_counts,
    check_makes,
    check_unseen,
    digest_of,
)

CELL, PREDICTIONS, MEASURED = "cell.json", "predictions.csv", "measured.json"
OPTIMIZERS = ("adam", "sgd")  # of study/fitting.py, which is slow to import
PREPARATION = ("image_size", "fit", "window", "clahe_clip_limit", "clahe_tiles", "clahe_size")


@dataclass(frozen=True)
class Cell:
    """One classifier: an arm in a part, at a share of its films, a ratio, and a seed."""

    arm: str
    part: str
    size: float
    ratio: float | None
    seed: int
    gan_seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        ratio = "" if self.ratio is None else f"-x{self.ratio:g}"
        return f"{self.arm}{ratio}-{self.part}-{100 * self.size:g}-seed-{self.seed}"

    @property
    def training(self) -> str:
        """The name of the folder of its GANs."""
        return f"{self.part}-{100 * self.size:g}-seed-{self.gan_seed}"

    @property
    def row(self) -> str:
        """Its arm, with the ratio."""
        return self.arm if self.ratio is None else f"{self.arm} x{self.ratio:g}"


@dataclass(frozen=True)
class Study:
    """Everything a study will do, checked."""

    films: Films
    parts: tuple[Part, ...]
    out: Path
    arms: tuple[str, ...]
    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    classifier: str
    optimizer: str
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    recipe: Recipe  # of the GANs, and how films are prepared
    gan_images: int | None  # seen by each GAN; None for the recipe's own number
    gan_per_seed: bool
    generators: Mapping[str, str] = field(default_factory=dict)
    external: Films | None = None
    protocol: Protocol | None = None

    def part(self, cell: Cell) -> Part:
        """Return the part of a cell."""
        return next(part for part in self.parts if part.name == cell.part)

    def chosen(self, cell: Cell) -> tuple[list[int], list[int]]:
        """Return the films that a cell fits on and chooses by."""
        return self._chosen[cell.part, cell.size]

    @cached_property
    def _chosen(self) -> dict:
        return {
            (part.name, size): choose(self.films, part, size)
            for part, size in itertools.product(self.parts, self.sizes)
        }

    @cached_property
    def network(self) -> tuple:
        """`classifier_of`, asked once: weights that come and go must not divide the arms."""
        return classifier_of(
            self.classifier,
            image_size=self.recipe.image_size,
            classes=len(self.films.classes),
            steps=self.steps,
            learning_rates=self.learning_rates,
        )

    @cached_property
    def given(self) -> tuple:
        """SHA-256 of the files that were given: of the classifier, and of each class's generator."""
        own = self.classifier in CLASSIFIERS
        return (
            self.classifier if own else content_hash(Path(self.classifier).read_bytes()),
            {name: digest_of(run) for name, run in sorted(self.generators.items())} or None,
        )

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells; seeds outside, so that a stopped study has whole tables of the first ones."""
        return tuple(
            Cell(arm, part.name, size, ratio, seed, seed if self.gan_per_seed else self.seeds[0])
            for seed in self.seeds
            for size in self.sizes
            for part in self.parts
            for arm in self.arms
            for ratio in (self.ratios if ARMS[arm].has_ratio else (None,))
        )

    @cached_property
    def trainings(self) -> tuple[tuple[Cell, str], ...]:
        """The GANs to train, each as a cell that needs it and a class."""
        if self.generators:
            return ()
        cells = {cell.training: cell for cell in self.cells if ARMS[cell.arm].generated}
        return tuple(
            (cell, name)
            for cell in cells.values()
            for name in self.made_classes(cell)[: 1 if self.recipe.conditional else None]
        )

    def made_classes(self, cell: Cell) -> tuple[str, ...]:
        """Return the classes that the GANs of a cell are to make.

        Where an arm only evens the classes out, nobody waits for a GAN of the largest.
        """
        if self.generators or self.recipe.conditional:
            return self.films.classes
        counts = [
            added_counts(self, other)
            for other in self.cells
            if other.training == cell.training and ARMS[other.arm].generated
        ]
        return tuple(name for name, *some in zip(self.films.classes, *counts) if any(some))

    def gan_run(self, cell: Cell, name: str) -> Path:
        """Return the run of a cell's GAN of a class."""
        if self.generators:
            return Path(self.generators[name])
        own = "all" if self.recipe.conditional else str(self.films.classes.index(name))
        return self.out / "gans" / cell.training / own

    def gan_films(self, cell: Cell, name: str) -> list[int]:
        """Return the films that a cell's GAN of a class is trained on."""
        number = self.films.classes.index(name)
        fitted, _ = self.chosen(cell)
        return [i for i in fitted if self.recipe.conditional or self.films.labels[i] == number]

    def gan_recipe(self, cell: Cell, name: str) -> Recipe:
        """Return the recipe of a cell's GAN of a class."""
        own = {} if self.gan_images is None else {"training_images": self.gan_images}
        return self.recipe.override(seed=cell.gan_seed, **own)


def plan_study(
    manifest: str,
    out: str | Path,
    *,
    arms: Sequence[str] = (BASELINE, "oversampled", "classic", "gan", "classic+gan", "copies"),
    folds: int | None = None,
    classes: Sequence[str] = (),
    sizes: Sequence[float] = (1.0,),
    ratios: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    classifier: str = "cnn",
    optimizer: str = "adam",
    steps: int = 500,
    batch_size: int = 32,
    learning_rates: Sequence[float] = (1e-3,),
    recipe: str | None = None,
    fields: Mapping[str, object] | None = None,
    gan_images: int | None = None,
    gan_per_seed: bool = False,
    generators: Mapping[str, str] | None = None,
    external: str | None = None,
    protocol: str = "",
    report=None,
) -> Study:
    """Return the plan of a study, or raise `ValueError` with one line for what is wrong.

    Args:
        manifest: of `cxrgan split`, with folds or with train and test; or any source of films
            with `folds`, which are then made by patient.
        arms: names in `ARMS`; `real` is always among them.
        sizes: shares of the training films, of whole patients, smaller inside larger ones.
        ratios: images added for each real film, of arms that add some.
        seeds: of the classifiers; each arm has one for each seed, part, size and ratio.
        classifier: cnn, inception, or a `.keras` file.
        recipe: of the GANs, by name or file, changed by `fields`; films are prepared as it says;
            None for the one for so many films (`recipe_for`).
        gan_images: images seen by each GAN, in the place of the recipe's own number.
        gan_per_seed: train GANs anew for each seed, whose chance is then in the interval.
        generators: class -> run, in the place of GANs of the study's own.
        external: films of other patients that are tested too, and decide nothing.
        protocol: a name in `PROTOCOLS`: networks are tested in its way as well. Its settings are
            not taken from it; `PROTOCOLS[name].settings` are arguments of this function.
    """
    arms = tuple(dict.fromkeys((BASELINE, *arms)))
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise ValueError(f"--arms has no {unknown[0]!r}: choose of {', '.join(ARMS)}")
    for option, values, low, high, needed in (
        ("--sizes", sizes, 1e-9, 1, "different shares above 0, up to 1 (100%)"),
        ("--ratios", ratios, 1e-9, 1000, "different numbers above 0, up to 1,000"),
        ("--seeds", seeds, 0, 2**32 - 1, "different whole numbers from 0 to 4,294,967,295"),
        ("--steps", [steps], 1, 10**9, "1 or more"),
        ("--batch-size", [batch_size], 1, 10**6, "1 to 1,000,000"),
        ("--learning-rates", learning_rates, 1e-12, 10, "different numbers above 0, up to 10"),
        ("--gan-images", [1 if gan_images is None else gan_images], 1, 10**12, "1 or more"),
    ):
        wrong = [value for value in values if not low <= value <= high]
        if not values or wrong or len(set(values)) < len(values):
            got = ", ".join(f"{value:.12g}" for value in values) or "none"
            raise ValueError(f"{option} needs {needed}: got {got}")
    check_fields(fields or {}, **{"--gan-images": gan_images})
    if classifier not in CLASSIFIERS and not Path(classifier).is_file():
        raise ValueError(f"--classifier {classifier} is neither cnn, inception, nor a .keras file")
    for option, name, known in (
        ("--optimizer", optimizer, OPTIMIZERS), ("--protocol", protocol, ("", *PROTOCOLS)),
    ):  # fmt: skip
        if name not in known:
            choices = ", ".join(filter(None, known))
            raise ValueError(f"{option} has no {name!r}: choose of {choices}")
    given = recipe and Recipe.load(recipe)
    if given and given.stages:
        raise ValueError(f"{recipe} grows in stages; a study takes recipes of one size")
    films, parts = read_films(manifest, classes, folds, report)
    made = (given or recipe_for(len(films.records))).override(**dict(fields or {}))
    check_effect([made], fields or {})
    generators = dict(generators or {})
    if generators and set(generators) != set(films.classes):
        raise ValueError(
            f"--generator names {', '.join(generators)}, and one run for each of"
            f" {', '.join(films.classes)} is needed"
        )
    study = Study(
        films, tuple(parts), Path(out), arms, tuple(sorted(map(float, sizes))),
        tuple(sorted(map(float, ratios))),
        tuple(seeds), classifier, optimizer, steps, batch_size, tuple(learning_rates), made, gan_images,
        gan_per_seed, generators, read_external(external, films) if external else None,
        PROTOCOLS.get(protocol),
    )  # fmt: skip
    if study.out.exists() and not study.out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    _check_films(study)
    for name, run in generators.items():
        for part in study.parts:
            check_unseen(study, part, Path(run))
        check_makes(study, name, Path(run))
    return study


def _check_films(study: Study) -> None:
    for (part, size), (fitted, validating) in study._chosen.items():
        place = f"{part} at {100 * size:g} % of its films"
        for what, places, fewest in (
            ("to fit on", fitted, FEWEST),
            ("to choose by", validating, 1),
        ):
            counts = count_classes(study.films, places)
            for name, count in zip(study.films.classes, counts):
                if count < fewest:
                    raise ValueError(
                        f"{name} has {count} films {what} in {place}, and {fewest} are needed:"
                        " leave the size out (--sizes), or ask for other folds (--folds)"
                    )
    for cell, name in study.trainings:
        count = len(study.gan_films(cell, name))
        if count < study.recipe.batch_size:
            raise ValueError(
                f"{name} has {count} films in {cell.part} at {100 * cell.size:g} %, fewer than one"
                f" batch of {study.recipe.batch_size} of its GAN: pass --set batch_size={count} or"
                " less, or leave the size out (--sizes)"
            )
    for part in study.parts:
        missing = [
            name
            for name, count in zip(study.films.classes, count_classes(study.films, part.test))
            if not count
        ]
        if missing:
            raise ValueError(f"{part.name} tests no film of {missing[0]}: ask for fewer folds")
    # Of external films, whose scores stand beside the answer, one patient is only not compared.
    tested = [place for part in study.parts for place in part.test]
    labels = np.array([study.films.labels[place] for place in tested])
    lone = lone_class(labels, [study.films.patients[place] for place in tested])
    if lone is not None:
        raise ValueError(
            f"the tested films of {study.films.classes[lone]} are of one patient, and 2 or more are"
            " needed to know how much patients differ: divide the films in another way"
            " (cxrgan split)"
        )


def describe(study: Study) -> dict:
    """Return what a study will do, ready for JSON."""
    done = sum(finished(study, cell) is not None for cell in study.cells)
    return {
        "manifest": Path(study.films.source).name,
        "films": len(study.films.records),
        "patients": len(set(study.films.patients)),
        "classes": dict(
            zip(study.films.classes, count_classes(study.films, range(len(study.films.records))))
        ),
        "parts": {
            part.name: {"training": len(part.training), "test": len(part.test)}
            for part in study.parts
        },
        "fitted": {
            f"{part} {100 * size:g}%": {"fitted": len(fitted), "validation": len(validating)}
            for (part, size), (fitted, validating) in study._chosen.items()
        },
        "external": study.external and {
            "source": Path(study.external.source).name,
            "films": len(study.external.records),
        },
        "arms": {name: ARMS[name].about for name in study.arms},
        "sizes": list(study.sizes),
        "ratios": list(study.ratios),
        "seeds": list(study.seeds),
        "classifier": Path(study.classifier).name,
        "image_size": study.recipe.image_size,
        "optimizer": study.optimizer,
        "steps": study.steps,
        "batch_size": study.batch_size,
        "learning_rates": list(study.learning_rates),
        "classic": asdict(CLASSIC),
        "protocol": study.protocol and study.protocol.name,
        "recipe": study.recipe.name,
        "gan_images": study.gan_images or study.recipe.training_images or None,
        "gan_epochs": study.recipe.epochs,
        "gan_per_seed": study.gan_per_seed,
        "gans": len(study.trainings),
        "generators": {name: Path(run).name for name, run in sorted(study.generators.items())},
        "cells": len(study.cells),
        "complete": done,
        "seconds_left": estimate(study),
    }  # fmt: skip


def estimate(study: Study) -> float | None:
    """Return the seconds that are left, from what `out` has of this study; None before any."""
    done = [found for cell in study.cells if (found := finished(study, cell))]
    ended, missing = [], 0
    for cell, name in study.trainings:
        run = study.gan_run(cell, name)
        if (run / "export" / "card.json").is_file():
            ended.append(json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"])
        else:
            missing += 1
    try:
        measured = json.loads((study.out / MEASURED).read_text())
    except (OSError, json.JSONDecodeError):
        measured = {}
    if measured.get("setting") != setting_of(study):
        measured = {}
    each = statistics.fmean(c["fit"]["seconds"] for c in done) if done else measured.get("cell")
    gan = statistics.fmean(ended) if ended else measured.get("gan")
    left = len(study.cells) - len(done)
    if (left and each is None) or (left and missing and gan is None):
        return None
    return left * (each or 0.0) + (missing * (gan or 0.0) if left else 0.0)


def setting_of(study: Study) -> list:
    """Return what decides the seconds of a cell and of a GAN, ready for JSON."""
    rates = list(study.learning_rates)
    return [
        study.classifier, study.optimizer, study.steps, study.batch_size, rates, study.gan_images,
        hashlib.sha256(study.recipe.to_json().encode()).hexdigest(),
    ]  # fmt: skip


def finished(study: Study, cell: Cell) -> dict | None:
    """Return the numbers of a cell that is complete and was made with the same settings."""
    try:
        found = json.loads((study.out / "cells" / cell.name / CELL).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    whole = (study.out / "cells" / cell.name / PREDICTIONS).is_file()
    return found if whole and found.get("decides") == decides(study, cell) else None


def decides(study: Study, cell: Cell) -> str:
    """Return a hash of everything that decides the predictions of a cell."""
    films, arm = study.films, ARMS[cell.arm]
    gan = None
    if arm.generated:
        changed = study.recipe.difference(Recipe())
        gan = [study.given[1], study.gan_images, cell.gan_seed, cell.training]
        gan.append({name: ours for name, (ours, _) in sorted(changed.items())})
    prepared = [getattr(study.recipe, name) for name in PREPARATION]
    parts = [
        fingerprint(f"{films.hashes[i]} {films.labels[i]}" for i in places)
        for places in (*study.chosen(cell), study.part(cell).test)
    ]
    decided = [
        asdict(cell) | {"gan_seed": None}, parts, films.classes, prepared, gan, asdict(arm),
        asdict(CLASSIC) if arm.augmented else None,
        study.external and fingerprint(map(str, zip(study.external.hashes, study.external.labels))),
        [study.given[0], study.optimizer, study.steps, study.batch_size, study.learning_rates],
        study.protocol and study.protocol.passes,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(decided, default=str).encode()).hexdigest()
