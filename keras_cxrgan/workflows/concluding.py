"""What the predictions of a study say: scores, differences from `real`, figures, the answer."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_cxrgan.evaluation.report import Table, p_value
from keras_cxrgan.sharing import study_figures
from keras_cxrgan.sharing.experiment_tables import mean_sd
from keras_cxrgan.sharing.study_page import study_page
from keras_cxrgan.study.answer import answers, points
from keras_cxrgan.study.classification import PER_CLASS, classify
from keras_cxrgan.study.comparison import compare, mcnemar
from keras_cxrgan.workflows import designing
from keras_cxrgan.workflows.classifying import CLASSIFIERS
from keras_cxrgan.workflows.presenting import RESULTS, write
from keras_cxrgan.workflows.recognising import faithfulness_table
from keras_cxrgan.workflows.replicating import published_tables
from keras_cxrgan.workflows.supplying import BASELINE

SCORE = "balanced_accuracy"
AGAINST = {"classic+gan": "classic", "gan-even": "oversampled"}
"""What an arm is held against as well: the same without a GAN."""
COLUMNS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auc": "AUC",
    "calibration_error": "calibration error",
}
SETS = {"test": "tested patients", "external": "external films"}
LIMITS = (
    (
        "A difference is of the same films with and without what an arm adds; its interval holds"
        " the chance of these patients and of the training runs, not that of other training films:"
        " folds share theirs, and only an external set speaks of other hospitals."
    ),
    "All arms have the same optimizer steps, learning rates and films to choose by.",
    "Intervals are corrected for the comparisons of their table: of one set of films, at one size.",
)


@dataclass(frozen=True)
class Predicted:
    """The predictions of one row of a study at one size: probabilities (S, N, K) of N films."""

    row: str
    size: float
    seeds: tuple[int, ...]
    hashes: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    failed: tuple[str, ...] = ()
    parts: np.ndarray | None = None  # of each film, where several networks share the films


def conclude(study: designing.Study, cells: Sequence[dict], labels: Sequence[dict] = ()) -> dict:
    """Write tables, figures and the answer of complete cells into `out`; return the numbers.

    Args:
        labels: of `recognise`, which class generated images are taken to be of.
    """
    about = designing.describe(study)
    sets = ["test", *(["external"] if study.external else [])]
    blocks, predicted_of, tables, figures, sentences = {}, {}, [], [], []
    for name in sets:
        predicted = gather(study, cells, name)
        block = weigh(predicted, study.films.classes)
        blocks[name], predicted_of[name] = block, predicted
        tables += _tables(block, name, study)
        sentences += _sentences(block, name, study)
        drawn = {f"{p.row}, {100 * p.size:g} %": p for p in predicted if p.size == study.sizes[-1]}
        figures += _figures(study, block, drawn, name)
    if study.protocol:
        tables += published_tables(study, cells, predicted_of["test"])
    if labels:
        tables.append(faithfulness_table(list(labels), study.films.classes))
    written = {
        "study": about,
        "answer": sentences,
        "limits": [*LIMITS, *_limits(study)],
        "wrong": list(study.protocol.wrong) if study.protocol else [],
        "left_open": list(study.protocol.left_open) if study.protocol else [],
        "sets": blocks,
        "tables": [dataclasses.asdict(table) for table in tables],
        "figures": [list(figure) for figure in figures],
        "labels": [{k: v for k, v in each.items() if k != "decides"} for each in labels],
        "failed": [cell["name"] for cell in cells if "error" in cell],
        "cells": [{k: v for k, v in cell.items() if k != "decides"} for cell in cells],
    }
    study.out.mkdir(parents=True, exist_ok=True)
    # Without folders of this machine: results are passed on.
    numbers = json.dumps(written, indent=1).replace(f"{study.out}/", "") + "\n"
    write(study.out / RESULTS[0], numbers)
    write(study.out / RESULTS[1], study_page(json.loads(numbers), tables))
    return json.loads(numbers)


def gather(study: designing.Study, cells: Sequence[dict], name: str) -> list[Predicted]:
    """Return the predictions of each row and size: of the seeds of which no part failed.

    Each film of a test set is predicted by the one network that was not trained on it; an
    external film by those of all parts, whose probabilities are averaged.
    """
    groups: dict[tuple[float, str], dict[int, list[dict]]] = {}
    for cell in cells:
        groups.setdefault((cell["size"], cell["row"]), {}).setdefault(cell["seed"], []).append(cell)
    return [
        _one(study, row, size, seeds, name) for (size, row), seeds in sorted(
            groups.items(), key=lambda item: -item[0][0]
        )
    ]  # fmt: skip


def _one(study, row, size, seeds, name) -> Predicted:
    good, failed, first, stacked, parts = [], [], None, [], None
    for seed, cells in sorted(seeds.items()):
        errors = [f"{cell['name']}: {cell['error']}" for cell in cells if "error" in cell]
        failed += errors
        if errors:
            continue
        tables = [
            read_predictions(study.out / "cells" / cell["name"], name, study.films.classes)
            for cell in cells
        ]
        if name == "external":
            keys, labels = tables[0][:2]
            probabilities = np.mean([table[2] for table in tables], axis=0)
        else:
            keys = [key for table in tables for key in table[0]]
            labels = np.concatenate([table[1] for table in tables])
            probabilities = np.concatenate([table[2] for table in tables])
            parts = np.repeat(np.arange(len(tables)), [len(table[0]) for table in tables])
        order = sorted(range(len(keys)), key=lambda i: (keys[i], labels[i]))
        keys = [keys[i] for i in order]
        parts = None if parts is None else parts[order]
        first = first or (keys, labels[order])
        if keys != first[0]:
            raise ValueError(f"{row}: seed {seed} tested other films than the seeds before it")
        good.append(seed)
        stacked.append(probabilities[order])
    keys, labels = first or ((), np.zeros(0, int))
    films = study.external if name == "external" else study.films
    patients = dict(zip(films.hashes, films.patients))
    return Predicted(
        row,
        size,
        tuple(good),
        tuple(keys),
        tuple(patients[key] for key in keys),
        labels,
        np.array(stacked),
        tuple(failed),
        parts,
    )


def read_predictions(folder: Path, name: str, classes: Sequence[str]):
    """Return (SHA-256 of each film, in their order, labels, probabilities (N, K)) of a cell's set.

    By content: the same films may have other names, and another order, in another manifest.
    """
    found = []
    with open(
        folder / designing.PREDICTIONS, newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        for row in csv.DictReader(file):
            if row["set"] == name:
                values = [float(row[f"p {label}"]) for label in classes]
                found.append((row["sha256"], classes.index(row["label"]), values))
    found.sort()
    keys, labels, probabilities = zip(*found) if found else ((), (), ())
    return list(keys), np.array(labels, int), np.array(probabilities).reshape(-1, len(classes))


def weigh(predicted: Sequence[Predicted], classes: Sequence[str]) -> list[dict]:
    """Return, for each size, the scores of every row and its difference from `real`.

    The intervals of one size are corrected for the number of rows compared at it.
    """
    blocks = []
    for size in sorted({each.size for each in predicted}, reverse=True):
        here = [each for each in predicted if each.size == size]
        base = next((each for each in here if each.row == BASELINE), None)
        pairs = {each.row: (each, base) for each in here if each is not base}
        pairs |= {
            f"{each.row} against {other.row}": (each, other)
            for each in here
            for other in here
            if other.row == AGAINST.get(each.row.partition(" x")[0])
        }
        pairs = {name: pair for name, pair in pairs.items() if pair[1] and _common(*pair)}
        found, tests, why = {}, {}, {}
        for name, (each, other) in pairs.items():
            ours, theirs = _paired(each, other)
            try:
                found[name] = compare(
                    other.labels, ours, theirs, other.patients, score=SCORE, comparisons=len(pairs)
                )
            except ValueError as error:
                why[name] = str(error)
                continue
            # Of several seeds the probabilities are averaged: a film is evidence once.
            tests[name] = mcnemar(
                other.labels,
                ours.mean(axis=0).argmax(axis=1),
                theirs.mean(axis=0).argmax(axis=1),
                other.patients,
            )
        said = {answer.name: answer for answer in answers(found)} if found else {}

        def weighed(name, said=said, found=found, tests=tests, why=why):
            if name in said:
                return {
                    "comparison": dataclasses.asdict(found[name]),
                    "mcnemar": dataclasses.asdict(tests[name]),
                    "answer": dataclasses.asdict(said[name]),
                }
            return {"not_compared": why[name]} if name in why else {}

        rows = []
        for each in here:
            row = {"row": each.row, "seeds": list(each.seeds), "failed": list(each.failed)}
            if each.seeds:
                row["scores"] = [
                    dataclasses.asdict(classify(each.labels, p, classes, each.parts))
                    for p in each.probabilities
                ]
            rows.append(row | weighed(each.row))
        between = [{"row": name} | weighed(name) for name in pairs if " against " in name]
        blocks.append({"size": size, "score": SCORE, "rows": rows, "between": between})
    return blocks


def _common(each: Predicted, base: Predicted) -> list[int]:
    return sorted(set(each.seeds) & set(base.seeds))


def _paired(each: Predicted, base: Predicted) -> tuple[np.ndarray, np.ndarray]:
    if each.hashes != base.hashes:
        raise ValueError(f"{each.row} and {base.row} tested other films: use another --out")
    common = _common(each, base)
    return tuple(
        np.stack([side.probabilities[side.seeds.index(seed)] for seed in common])
        for side in (each, base)
    )


def _sentences(blocks: list[dict], name: str, study: designing.Study) -> list[str]:
    said = []
    for block in blocks:
        place = []
        if len(study.sizes) > 1:
            place.append(f"with {100 * block['size']:g} % of the training films")
        if name == "external":
            place.append("on external films")
        head = f"{' '.join(place).capitalize()}: " if place else ""
        for row in [*block["rows"], *block["between"]]:
            if "answer" in row:
                said.append(head + row["answer"]["sentence"])
            elif "not_compared" in row:
                said.append(f"{head}{row['row']} was not compared: {row['not_compared']}")
    return said


def _tables(blocks: list[dict], name: str, study: designing.Study) -> list[Table]:
    tables = []
    for block in blocks:
        title = f"{SETS[name]}, {100 * block['size']:g} % of the training films"
        tables.append(_scores(block, title))
        tables.append(_differences(block, title))
    tables.append(_of_classes(blocks[0], f"{SETS[name]}, {100 * blocks[0]['size']:g} %", study))
    return tables


def _scores(block: dict, title: str) -> Table:
    rows = []
    for row in block["rows"]:
        if "scores" not in row:
            failed = row["failed"][0].replace("|", "/")[:100]
            rows.append((f"{row['row']}: failed: {failed}", *["-"] * (len(COLUMNS) + 1)))
            continue
        cells = [percent([_overall(scores, key) for scores in row["scores"]]) for key in COLUMNS]
        count = f"{len(row['seeds'])}{' (others failed)' * bool(row['failed'])}"
        rows.append((row["row"], count, *cells))
    return Table(
        f"Scores: {title}",
        ("", "seeds", *COLUMNS.values()),
        tuple(rows),
        "In percent, mean ± standard deviation over seeds. Balanced accuracy is the mean"
        " sensitivity of the classes; specificity, precision, F1 and AUC are means over classes,"
        " too.",
    )


def percent(shares: Sequence[float]) -> str:
    """Return mean ± sd of shares in percent, one value alone, or a dash.

    >>> percent([0.75, 0.85]), percent([0.5]), percent([])
    ('80.0 ± 7.1', '50.0', '-')
    """
    if not shares:
        return "-"
    mean, sd = mean_sd(shares)
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def _overall(scores: dict, key: str) -> float:
    return scores[key] if key in scores else scores["macro"][key]


def _differences(block: dict, title: str) -> Table:
    rows = []
    for row in [*block["rows"], *block["between"]]:
        if "comparison" not in row:
            continue
        found, test = row["comparison"], row["mcnemar"]
        rows.append(
            (
                row["row"],
                points(found["difference"]),
                f"{points(found['low'])} to {points(found['high'])}",
                p_value(found["p_value"]),
                f"{test['only_arm_right']} : {test['only_baseline_right']}",
                p_value(test["p_patients"]),
                row["answer"]["verdict"],
            )
        )
    return Table(
        f"Difference in balanced accuracy, from {BASELINE} unless it says against what: {title}",
        ("", "points", "interval", "p", "only it : only the other right", "McNemar p", "answer"),
        tuple(rows),
        "Percentage points; patient-level bootstrap with the variance of the seeds; interval and p"
        " corrected for the rows of this table. McNemar is of accuracy and not corrected.",
    )


def _of_classes(block: dict, title: str, study: designing.Study) -> Table:
    rows = []
    for row in block["rows"]:
        for number, name in enumerate(study.films.classes if "scores" in row else ()):
            cells = []
            for key in PER_CLASS:
                values = [scores["classes"][number][key] for scores in row["scores"]]
                cells.append(percent([value for value in values if value is not None]))
            films = row["scores"][0]["classes"][number]["films"]
            rows.append((f"{row['row']}: {name}", str(films), *cells))
    return Table(
        f"Classes: {title}",
        ("", "films", *(name.replace("f1", "F1").replace("auc", "AUC") for name in PER_CLASS)),
        tuple(rows),
        "One class against the rest, in percent, mean ± standard deviation over seeds. Accuracy"
        " against the rest is high for every rare class. AUC compares films of one fold.",
    )


def _figures(study, blocks, drawn: dict[str, Predicted], name: str) -> list[tuple[str, str]]:
    end = "" if name == "test" else f"-{name}"
    study.out.mkdir(parents=True, exist_ok=True)
    panels, curves, made = [], {}, []
    compared = [
        (f"{100 * block['size']:g} % of the training films", _compared(block)) for block in blocks
    ]
    if compared := [(title, rows) for title, rows in compared if rows]:
        study_figures.differences(compared, study.out / f"differences{end}.png")
        made.append((f"differences{end}.png", f"Differences and their intervals, {SETS[name]}"))
    for block in blocks[:1]:
        for row in block["rows"]:
            if "scores" in row:
                counts = np.sum([scores["confusion"] for scores in row["scores"]], axis=0)
                panels.append((row["row"], counts))
    if panels:
        study_figures.confusions(panels, study.films.classes, study.out / f"confusion{end}.png")
        made.append((f"confusion{end}.png", f"Confusion matrices, {SETS[name]}, all seeds added"))
        study_figures.reliability(
            [
                (title, each.labels, each.probabilities)
                for title, each in drawn.items()
                if each.seeds
            ],
            study.out / f"reliability{end}.png",
        )
        made.append((f"reliability{end}.png", f"Confidence and accuracy, {SETS[name]}"))
    for block in reversed(blocks):
        for row in block["rows"]:
            if "scores" in row:
                values = [scores[SCORE] for scores in row["scores"]]
                curves.setdefault(row["row"], []).append((100 * block["size"], values))
    if len(blocks) > 1 and curves:
        study_figures.learning_curve(curves, study.out / f"sizes{end}.png", BASELINE)
        made.append((f"sizes{end}.png", f"Balanced accuracy over the training films, {SETS[name]}"))
    return made


def _compared(block: dict) -> list[tuple[str, float, float, float, str]]:
    """Return (row, difference, low, high, verdict) of all rows held against another."""
    found = []
    for row in (*block["rows"], *block["between"]):
        if "comparison" in row:
            shares = (row["comparison"][key] for key in ("difference", "low", "high"))
            found.append((row["row"], *shares, row["answer"]["verdict"]))
    return found


def _limits(study: designing.Study) -> list[str]:
    said = []
    if study.classifier not in CLASSIFIERS:
        said.append(
            f"Every training begins with the weights of {Path(study.classifier).name}: whether they"
            " have seen tested films, nobody knows."
        )
    if study.external and len(study.parts) > 1:
        said.append("External films have the mean probability of the networks of all parts.")
    if study.trainings:
        said.append("The GANs see neither the films that choose nor those tested.")
    if study.generators:
        said.append(
            "The runs given saw no film of the tested patients; those that choose they may have"
            " seen. All seeds share them: another training of these could differ by more than the"
            " interval says."
        )
    if study.trainings and not study.gan_per_seed and len(study.seeds) > 1:
        said.append(
            "All seeds share the GANs of their part: another training of these could differ by"
            " more than the interval says (--gan-per-seed)."
        )
    without = sum(record.patient is None for record in study.films.records)
    if without:
        said.append(
            f"{without:,} of {len(study.films.records):,} films have no known patient and count as"
            " one of their own: if a patient has several of them, intervals are too narrow."
        )
    return said
