"""What each arm of a study is fitted on: real films, copies, weights, images of its own GANs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cxrgan.data.augmentation import ClassicAugmentation
from keras_cxrgan.data.manifest import write_manifest
from keras_cxrgan.data.records import content_hash
from keras_cxrgan.workflows.describing import Stopped
from keras_cxrgan.workflows.dividing import (
    Part,
    count_classes,
    crossed_films,
    training_entries,
)

if TYPE_CHECKING:
    from keras_cxrgan.workflows.designing import Cell, Study

BASELINE = "real"


@dataclass(frozen=True)
class Arm:
    """What an arm adds to the real films of its part."""

    about: str
    oversample: bool = False
    weighted: bool = False
    augmented: bool = False
    copies: bool = False
    generated: bool = False
    even: bool = False
    real: bool = True

    @property
    def has_ratio(self) -> bool:
        """Whether it depends on the number of images added for each real film."""
        return self.copies or (self.generated and not self.even)


ARMS: Mapping[str, Arm] = {
    BASELINE: Arm("the real films alone; what all others are compared with"),
    "oversampled": Arm("real films, the classes shown equally often", oversample=True),
    "weighted": Arm("real films, the classes weighted equally in the loss", weighted=True),
    "classic": Arm("real films turned, shifted, scaled, exposed anew each time", augmented=True),
    "gan": Arm("real films and generated images", generated=True),
    "gan-even": Arm(
        "real films, and generated images of the smaller classes until all are as large",
        generated=True,
        even=True,
    ),
    "classic+gan": Arm("both, changed anew each time", augmented=True, generated=True),
    "gan-only": Arm("generated images alone", generated=True, real=False),
    "copies": Arm("real films and copies of them: a control that must show nothing", copies=True),
}
CLASSIC = ClassicAugmentation(brightness=0.0, contrast=0.2)
"""Turned, shifted, scaled, other contrast; never mirrored: the heart is on one side."""

Maker = Callable[..., list[np.ndarray]]
"""(study, cell, counts of each class, report) -> uint8 images (n, S, S) of each class."""


def supply(
    study: Study, cell: Cell, images: np.ndarray, make: Maker, report=None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the images of an arm, their labels, and more arguments of `fit_classifier`.

    `ratio` images are added for each real film of a class, so that the classes keep their shares:
    an arm that evened them out as well would show two effects as one. That of `gan-even` is to be
    held against `oversampled`, which evens them out without a GAN.
    """
    from keras_cxrgan.study.fitting import balanced_weights

    arm, (fitted, _) = ARMS[cell.arm], study.chosen(cell)
    labels = np.array(study.films.labels)[fitted]
    parts, numbers = ([images[fitted]], [labels]) if arm.real else ([], [])
    if arm.copies or arm.generated:
        counts = added_counts(study, cell)
        if arm.copies:
            added = [
                images[np.resize(np.array(fitted)[labels == number], count)]
                for number, count in enumerate(counts)
            ]
        else:
            added = make(study, cell, counts, report)
        parts += added
        numbers += [np.full(len(block), number) for number, block in enumerate(added)]
    labels = np.concatenate(numbers).astype(np.int64)
    options = {
        "oversample": arm.oversample,
        "class_weights": balanced_weights(labels, len(study.films.classes))
        if arm.weighted
        else None,
        "augmentation": CLASSIC if arm.augmented else None,
    }
    return np.concatenate(parts), labels, options


def added_counts(study: Study, cell: Cell) -> list[int]:
    """Return how many images of each class the arm of a cell adds."""
    films = count_classes(study.films, study.chosen(cell)[0])
    return [max(films) - n if ARMS[cell.arm].even else round(cell.ratio * n) for n in films]


def generated(study: Study, cell: Cell, counts: Sequence[int], report=None) -> list[np.ndarray]:
    """Return generated images of each class, of GANs trained inside the part; see `Maker`.

    A class of which no image is asked for needs no GAN.

    Images are those of the cell's seed. Raises `ValueError` when a GAN saw the tested films.
    """
    from keras_cxrgan.workflows.producing import load_generator, sampled

    images, size = [], study.recipe.image_size
    for number, (name, count) in enumerate(zip(study.films.classes, counts)):
        if not count:
            images.append(np.empty((0, size, size), np.uint8))
            continue
        run = generator_of(study, cell, name, report)
        check_unseen(study, study.part(cell), run)
        generator, card = load_generator(run)
        label = list(card["classes"]).index(name) if card.get("classes") else None
        # The class is part of the seed: GANs of all classes would begin with the same latents.
        seed = cell.seed * len(counts) + number
        made = [block for _, block in sampled(generator, card, count, seed, label=label)]
        # Grey three times, where a recipe has three channels.
        images.append(np.rint(np.concatenate(made).mean(axis=-1)).astype(np.uint8))
    return images


def generator_of(study: Study, cell: Cell, name: str, report=None) -> Path:
    """Return the run whose images of a class the cell takes, trained first where it is not yet."""
    import keras

    from keras_cxrgan.workflows.running import train

    run = study.gan_run(cell, name)
    if study.generators:
        return run
    recipe = study.gan_recipe(cell, name)
    table = run.with_suffix(".csv")
    write_manifest(table, training_entries(study.films, study.gan_films(cell, name)))
    keras.utils.clear_session()  # many networks in one process
    ended = train(recipe, run, data=str(table), report=report)
    if ended.interrupted:
        raise Stopped(f"stopped in {run}; the same command goes on from there")
    return run


def digest_of(run: str | Path) -> str:
    """Return the SHA-256 of what `load_generator` reads of a run: its card or its newest state."""
    from keras_cxrgan import runs

    folder = runs.newest_stage(Path(run))
    found = [folder / "card.json", *sorted((folder / "backup").glob("*.npz"), reverse=True)]
    return next((content_hash(path.read_bytes()) for path in found if path.is_file()), "")


def check_makes(study: Study, name: str, run: Path) -> None:
    """Raise `ValueError` if a run makes images of another size, or of classes without this one."""
    from keras_cxrgan import runs

    folder = runs.newest_stage(run)
    recipe, size = runs.read_recipe(folder), study.recipe.image_size
    if recipe.image_size != size:
        raise ValueError(
            f"{run} makes images of {recipe.image_size} pixels and the study is of {size}: pass"
            f" --set image_size={recipe.image_size}"
        )
    known = runs.read_json(folder / "data.json").get("labels", {})
    if recipe.conditional and name not in known:
        raise ValueError(f"{run} makes images of {', '.join(known)} and none of {name}")


def check_unseen(study: Study, part: Part, run: Path) -> None:
    """Raise `ValueError` if a run was trained on films, or patients, that are to be tested."""
    from keras_cxrgan.runs import films_of

    if not run.exists():
        raise ValueError(f"there is no {run}: give the directory of a run (--generator)")
    trained_on = films_of(run)
    if trained_on is None:
        raise ValueError(
            f"{run} does not list the films it was trained on, so nobody knows whether it saw the"
            " tested ones: give the run and not its export"
        )
    tested = [(study.films, part.test)]
    if study.external:
        tested.append((study.external, range(len(study.external.hashes))))
    for films, places in tested:
        crossed = crossed_films(films, trained_on, places)
        if crossed:
            more = ", ..." if len(crossed) > 3 else ""
            raise ValueError(
                f"{run} was trained on {len(crossed)} of the films, or their patients, that"
                f" {part.name} tests ({', '.join(crossed[:3])}{more}): leave --generator out, and"
                " the study trains its own inside each part"
            )
