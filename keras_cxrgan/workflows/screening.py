"""Which generated images are near copies of films, so that `generate` leaves them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_cxrgan.data.splits import crossing
from keras_cxrgan.evaluation.memorisation import SMALLEST_CALIBRATION, copy_finder
from keras_cxrgan.workflows.comparing import Options, load_comparison, unseen
from keras_cxrgan.workflows.sides import Side, grey


def screen(
    source: str | Path,
    films: str,
    *,
    held_out: str | None = None,
    best: bool = False,
    allow_leak: bool = False,
    report=None,
) -> tuple[Callable[[np.ndarray], np.ndarray], list[str]]:
    """Return (function, warnings); the function says which images are near copies.

    It takes uint8 images (n, S, S, C) of the generator and returns bool (n,): those that
    `cxrgan audit` with the same films would flag. Of a run, which lists the films that it was
    trained on, the other films named are left aside.

    Args:
        films: those that the generator was trained on, as `read_source` names them.
        held_out: films of other patients, which set the thresholds; None for the films themselves.

    Raises `ValueError` where the run was trained on none of the films, or on those held out.
    """

    def progress(stage, done, total):
        if report and stage == "images":  # not the features of every block
            report(stage, done, total)

    # A film that cannot be read is none that it was trained on: `unseen` would name that.
    options = Options(count=2, best=best, allow_leak=allow_leak, on_bad_file="skip", cache=False)
    compared = load_comparison(films, [str(source)], held_out, ["cxr"], options, progress)
    (made,), (extractor,) = compared.fakes, compared.extractors
    warnings = unseen(made, compared.real)
    sides = [_trained_on(made, compared.real), compared.held_out]
    known = [(side.images, compared.features(extractor, side.images)) for side in sides if side]
    is_copy = copy_finder(*(array for pair in known for array in pair))

    def near_copies(images: np.ndarray) -> np.ndarray:
        pixels = grey(images)
        return is_copy(pixels, compared.features(extractor, pixels))

    return near_copies, warnings


def films_to_screen(data, split: str | None, layout: str, count: int) -> str | None:
    """Return the films of a training as `screen` takes them; None where it does not take them.

    That is the phantom, who is nobody, a layout that had to be named, and few films.
    """
    if data is None or layout != "auto" or count < SMALLEST_CALIBRATION:
        return None
    return f"{data}:{split}" if split else str(data)


def _trained_on(made: Side, films: Side) -> Side:
    """Return the films that a run was trained on; all of them where nothing says which."""
    if not made.trained_on:
        return films
    originals = films.originals or (None,) * len(films.hashes)
    rows = crossing(made.trained_on, range(len(films.hashes)), films.hashes, originals)
    return dataclasses.replace(films, images=films.images[rows])
