"""Test a study's networks as a paper did, and lay its table, that result and the study's side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.sharing.experiment_tables import mean_sd
from keras_cxrgan.study.classification import confusion_matrix, davoodi2021_f1
from keras_cxrgan.study.protocols import Protocol, Published

ALL = "all"


def _f1(right, missed, wrong, _):
    return 2 * right / (2 * right + missed + wrong)


def _harmonic(right, missed, wrong, rest):
    return davoodi2021_f1(right / (right + missed), rest / (rest + wrong))


SCORES: Mapping[str, Callable] = {
    "accuracy": lambda right, missed, wrong, rest: (right + rest) / (right + missed + wrong + rest),
    "sensitivity": lambda right, missed, wrong, rest: right / (right + missed),
    "specificity": lambda right, missed, wrong, rest: rest / (rest + wrong),
    "precision": lambda right, missed, wrong, rest: right / (right + wrong),
    "f1": _f1,
    "harmonic": _harmonic,
}
"""Name -> function of counts: films of a class found and missed, others taken for it, the rest."""
HONEST = {"harmonic": "f1"}  # what the study has in the place of a paper's score


def tested_as_published(protocol: Protocol, model, images: np.ndarray, labels: np.ndarray) -> dict:
    """Return {"passes", "confusion" (K, K) of all passes together} of a network, in a paper's way."""
    from keras_cxrgan.study.fitting import predict, predict_in_training_mode

    classes = model.output_shape[-1]
    if protocol.passes:
        found = predict_in_training_mode(model, images, protocol.passes)
    else:
        found = predict(model, images).argmax(axis=1)[None]
    counts = sum(confusion_matrix(labels, each, classes) for each in found)
    return {"passes": len(found), "confusion": counts.tolist()}


def published_tables(study, cells: Sequence[dict], predicted: Sequence) -> list[Table]:
    """Return each table of the study's protocol: published, ours in its way, and as it should be."""
    protocol, size, tables = study.protocol, study.sizes[-1], []
    for published in protocol.tables:
        if published.recipe not in ("", study.recipe.name):
            continue
        rightly = next(
            (p for p in predicted if p.size == size and p.row.partition(" x")[0] == published.arm),
            None,
        )
        if rightly is None or not rightly.seeds:
            continue
        # The same ratio as beside it, if there are several.
        ours = [cell for cell in cells if (cell["size"], cell["row"]) == (size, rightly.row)]
        in_its_way = [
            np.sum([cell["as_published"]["confusion"] for cell in ours if cell["seed"] == s], axis=0)
            for s in rightly.seeds
        ]  # fmt: skip
        as_it_should = [
            confusion_matrix(rightly.labels, p.argmax(axis=1), p.shape[1])
            for p in rightly.probabilities
        ]
        tables.append(_table(study, published, rightly.seeds, in_its_way, as_it_should))
    return tables


def _table(study, published: Published, seeds, in_its_way, as_it_should) -> Table:
    names = study.protocol.scores
    honest = {column: HONEST.get(score, score) for column, score in names.items()}
    places = {name.lower(): place for place, name in enumerate(study.films.classes)}
    rows = []
    for label, values in published.scores.items():
        if label not in places and label != ALL:
            continue
        place = places.get(label)
        rows.append((f"{label}, published", *(_show([values.get(c)]) for c in names)))
        for way, counts, scores in (
            (f"tested so, seed {seeds[0]} alone", in_its_way[:1], names),
            (f"tested so, {len(seeds)} seeds", in_its_way, names),
            (f"as it should be, {len(seeds)} seeds", as_it_should, honest),
        ):
            shown = [
                _show([score_of(each, place, scores[column]) for each in counts])
                if column in values
                else "-"
                for column in names
            ]
            rows.append((f"{label}, {way}", *shown))
    return Table(
        f"Table {published.title} ({study.protocol.name}): {published.arm}",
        ("", *names),
        tuple(rows),
        f"Published: {study.protocol.citation}. Mean \u00b1 standard deviation over seeds. As it"
        " should be: in inference mode, with F1 of precision and sensitivity.",
    )


def score_of(confusion, place: int | None, score: str) -> float | None:
    """Return a score of one class against the rest, or of all (accuracy); None if undefined.

    >>> score_of([[3, 1], [0, 4]], 0, "sensitivity"), score_of([[3, 1], [0, 4]], None, "accuracy")
    (0.75, 0.875)
    """
    counts = np.asarray(confusion, float)
    if place is None:
        return float(np.trace(counts) / counts.sum())
    right = counts[place, place]
    missed, wrong = counts[place].sum() - right, counts[:, place].sum() - right
    with np.errstate(invalid="ignore", divide="ignore"):
        value = SCORES[score](right, missed, wrong, counts.sum() - right - missed - wrong)
    return float(value) if np.isfinite(value) else None


def _show(values: Sequence[float | None]) -> str:
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    mean, sd = mean_sd(values)
    return f"{mean:.3f}" + ("" if sd is None else f" \u00b1 {sd:.3f}")
