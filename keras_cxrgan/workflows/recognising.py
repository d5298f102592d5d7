"""Are generated images of the class that they were made for? A classifier of other films says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.workflows.designing import Study, decides
from keras_cxrgan.workflows.dividing import check_apart, choose, count_classes
from keras_cxrgan.workflows.presenting import write
from keras_cxrgan.workflows.supplying import ARMS, Maker


def recognise(study: Study, images: np.ndarray, make: Maker, report=None) -> list[dict]:
    """Return, for each part, which class a classifier takes the generated images to be of.

    It is fitted on the films that the part tests, which no GAN of the part has seen, and asked
    about as many generated images as there are films to fit on, and about these films themselves:
    real ones that it has not seen either. With all of the training films, and the first seed.
    A part that tests too few patients of a class to fit on one of them is left out.
    """
    from keras_cxrgan.study.fitting import fit_classifier, predict

    cells = [
        cell
        for cell in study.cells
        if ARMS[cell.arm].generated and (cell.seed, cell.size) == (study.seeds[0], study.sizes[-1])
    ]
    first = {cell.part: cell for cell in reversed(cells)}
    truth, found = np.array(study.films.labels), []
    for part in study.parts if first else ():
        cell = first[part.name]
        path = study.out / "labels" / f"{part.name}.json"
        decided = decides(study, cell)
        if path.is_file() and (earlier := json.loads(path.read_text()))["decides"] == decided:
            found.append(earlier)
            continue
        seen, _ = study.chosen(cell)
        fitted, validating = choose(study.films, replace(part, training=part.test), 1.0)
        whole = all(count_classes(study.films, fitted))
        told = "asking" if whole else "too few films of a class to ask"
        if report:
            report("", 0, 0, f"{part.name}: {told} whether generated images are of their class")
        if not whole:
            continue
        check_apart(study.films, [*fitted, *validating], seen)
        films = zip(study.films.classes, count_classes(study.films, seen))
        counts = [count if name in study.made_classes(cell) else 0 for name, count in films]
        made = make(study, cell, counts, report)
        network, facts = study.network
        model, _ = fit_classifier(
            images[fitted],
            truth[fitted],
            classes=len(counts),
            network=network,
            steps=study.steps,
            batch_size=study.batch_size,
            optimizer=study.optimizer,
            learning_rate=facts["learning_rates"],
            frozen_steps=facts["frozen_steps"],
            seed=cell.seed,
            validation=(images[validating], truth[validating]),
        )
        named = [predict(model, block).argmax(axis=1) if len(block) else [] for block in made]
        real = predict(model, images[seen]).argmax(axis=1)
        result = {
            "decides": decided,
            "part": part.name,
            "generated": [np.bincount(n, minlength=len(counts)).tolist() for n in named],
            "real": [
                np.bincount(real[truth[seen] == n], minlength=len(counts)).tolist()
                for n in range(len(counts))
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(result) + "\n")
        found.append(result)
    return found


def faithfulness_table(found: list[dict], classes: tuple[str, ...]) -> Table:
    """Return how many images of each class are taken to be of it, generated and real ones."""
    rows = []
    for number, name in enumerate(classes):
        cells = []
        for kind in ("generated", "real"):
            counts = np.sum([each[kind][number] for each in found], axis=0)
            total = int(counts.sum())
            cells += [f"{total:,}", f"{100 * counts[number] / total:.1f}" if total else "-"]
        rows.append((name, *cells))
    return Table(
        "Are generated images of the class they were made for?",
        ("", "generated", "recognised, %", "real", "recognised, %"),
        tuple(rows),
        f"By a classifier of the tested films ({', '.join(each['part'] for each in found)}), which"
        " the GANs have not seen; the real films are those that they were trained on. First seed."
        " Near the real films' share, the labels are as good as theirs; this does not say that the"
        " images help.",
    )
