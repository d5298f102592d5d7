"""How an experiment is described: what a paper did, one training, and how it is asked to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_cxrgan.recipe import Recipe
from keras_cxrgan.workflows.choosing import choose_classes, write_phantom


@dataclass(frozen=True)
class Experiment:
    """What a paper did and published, and at which sizes it is done again."""

    name: str
    citation: str
    recipe: str  # name in RECIPES, or a JSON file
    data: str  # the films of the paper, in words, with their number
    published: Mapping[str, Mapping[str, float]]  # row -> {column: value}, as `Cell.row`
    left_open: tuple[str, ...]  # what the paper leaves open, and the reading taken
    cannot_compare: tuple[str, ...]  # what cannot be compared with the paper, and why
    # smoke: two minutes on two cores; small: an hour; paper: as published. "recipe" holds the
    # fields that differ from the paper's, "phantom" the phantom films of each class, "generate"
    # the images scored (0 = as many as real ones); the rest is the experiment's own.
    scales: Mapping[str, Mapping]
    classes: tuple[str, ...] = ()  # trained on, where the given films have them; () = all
    fewest: int = 1  # films of `classes` below which the largest class given stands in for them
    holds_out: bool = False  # may also score against films never trained on (--held-out)
    divides: bool = False  # trains on some films and tests on others: a study, not a training


@dataclass(frozen=True)
class Cell:
    """One training with its scores. Cells of one `row` that differ in the seed are averaged."""

    name: str  # its folder
    recipe: Recipe
    data: str  # as `read_source` takes it
    row: str = ""  # of the table; "" = the name
    classes: tuple[str, ...] = ()
    evaluate_against: str | None = None  # None = `data`
    also_against: str | None = None  # scored a second time; the numbers begin with "also_"
    generate: int = 1000  # images scored; 0 = as many as real ones
    draws: int = 1  # sets of so many images, whose scores are averaged
    run: str = ""  # folder trained in, where a cell goes on with another cell's run; "" = the name
    # Instead of training and scoring: function(cell, folder, setting) -> numbers, ready for JSON.
    work: Callable[[Cell, Path, Setting], dict] | None = None
    options: Mapping = field(default_factory=dict)  # of `work`, ready for JSON


@dataclass(frozen=True)
class Setting:
    """How an experiment is asked to run."""

    experiment: Experiment
    out: Path
    scale: str = "smoke"
    data: str | None = None  # None = phantom films, written to `out`
    classes: tuple[str, ...] = ()  # () = the experiment's
    seeds: tuple[int, ...] = (0,)
    features: str = "cxr"
    score_options: Mapping = field(default_factory=dict)  # more for `evaluate`: weights, ...
    recipe_changes: Mapping = field(default_factory=dict)  # fields that win over the scale's
    report: Callable | None = None  # function(stage, done, total, note="") that shows progress
    only: tuple[str, ...] = ()  # rows to run; of the others, those complete are shown
    held_out: str | None = None  # films never trained on

    def __getitem__(self, name: str):
        """Return a value of the scale, such as `setting["generate"]`."""
        return self.experiment.scales[self.scale][name]

    def recipe(self, name: str | None = None, **fields) -> Recipe:
        """Return a recipe (the experiment's) with the scale's changes, these, and those asked for.

        What was asked for wins, then `fields`.
        """
        changes = self.experiment.scales[self.scale].get("recipe", {})
        asked = dict(self.recipe_changes)
        if "epochs" in asked:
            # Who names epochs means them, and not the scale's number of images.
            asked.setdefault("training_images", 0)
        return Recipe.load(name or self.experiment.recipe).override(
            **{**changes, **fields, **asked}
        )

    def films(self) -> str:
        """Return the source of films: what was given, or the phantom films, written once."""
        return self.data or str(write_phantom(self.out / "films", self["phantom"]))

    def trained_on(self) -> tuple[str, ...]:
        """Return the classes to train on: those asked for, the paper's, or a stand-in."""
        return self.classes or choose_classes(
            self.films(), self.experiment.classes, self.experiment.fewest
        )


def check_fields(fields: Mapping[str, object], **lengths: int | None) -> None:
    """Refuse fields of a recipe that an option decides: the seed, and a length that is given."""
    if "seed" in fields:
        raise ValueError("--set seed has no place here: name seeds by --seeds")
    for option, length in lengths.items():
        both = [name for name in ("epochs", "training_images") if name in fields]
        if length is not None and both:
            raise ValueError(
                f"{option} {length} and --set {both[0]}={fields[both[0]]} both say how long to"
                " train: give one of them"
            )


class Stopped(Exception):
    """Ctrl-C or SIGTERM ended a training, which saved its state."""
