"""A paper's classifier study as an experiment: `cxrgan study` with its settings, in a cell."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.workflows.describing import Cell, Setting
from keras_cxrgan.workflows.designing import CELL, PREDICTIONS, Study, finished
from keras_cxrgan.workflows.dividing import is_divided
from keras_cxrgan.workflows.presenting import Page, complete

# Of a scale: its options of `plan_study`, the number of "seeds", and the "folds" that are made of
# films which do not come divided.
STUDY = "study"


def study_seeds(setting: Setting) -> tuple[int, ...]:
    """Return the seeds of the classifiers: those asked for, or as many as the scale has."""
    if len(setting.seeds) > 1:
        return setting.seeds
    return tuple(setting.seeds[0] + i for i in range(setting[STUDY]["seeds"]))


def study_cells(recipes: Mapping[str, str], **settings) -> Callable:
    """Return `cells` of an experiment: one study for each row -> recipe of its GANs.

    Args:
        settings: options of `plan_study`; those of the scale win.
    """

    def cells(setting: Setting):
        options = {**settings, **setting[STUDY]} | {"seeds": study_seeds(setting)}
        for row, recipe in recipes.items():
            yield Cell(
                f"study-{recipe}",
                setting.recipe(recipe),
                setting.films(),
                row,
                setting.classes,
                work=run_paper_study,
                options=options,
            )

    return cells


def run_paper_study(cell: Cell, folder: Path, setting: Setting) -> dict:
    """Run a study in the cell's folder, or go on with it; return what it says."""
    from keras_cxrgan.workflows import studying

    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.json"
    recipe.write_text(cell.recipe.to_json())
    options = {**cell.options, "recipe": str(recipe)}
    if is_divided(cell.data):
        options["folds"] = None  # as it comes
    plan = studying.plan_study(
        cell.data, folder, classes=cell.classes, report=setting.report, **options
    )
    _take_over(plan, folder.parent.glob("study-*"))
    written = studying.run_study(plan, setting.report)
    if written["failed"]:
        raise ValueError(f"failed: {', '.join(written['failed'])} (see {folder / 'results.md'})")
    kept = ("study", "answer", "limits", "wrong", "left_open", "tables", "figures")
    return {"films": len(plan.films.records)} | {name: written[name] for name in kept}


def _take_over(plan: Study, others: Iterable[Path]) -> None:
    """Copy the cells that another row's study has complete: those without a GAN are the same."""
    for other in others:
        there = replace(plan, out=other)
        for cell in plan.cells:
            if other == plan.out or finished(plan, cell) or not finished(there, cell):
                continue
            source, target = (study.out / "cells" / cell.name for study in (there, plan))
            target.mkdir(parents=True, exist_ok=True)
            for name in (PREDICTIONS, CELL):  # the one that says it is complete comes last
                shutil.copyfile(source / name, target / name)


def present_studies(setting: Setting, results: list[dict]) -> Page:
    """Return the tables, figures and answers of all studies of an experiment."""
    tables, figures, answers, limits = [], [], [], []
    for result in complete(results):
        mark = f"{result['row']}: " if len(results) > 1 else ""
        tables += [
            Table(mark + t["title"], tuple(t["header"]), tuple(map(tuple, t["rows"])), t["note"])
            for t in result["tables"]
        ]
        figures += [(f"{result['name']}/{name}", mark + text) for name, text in result["figures"]]
        answers += [mark + text for text in result["answer"]]
        limits += [f"Wrong with the published protocol: {text}" for text in result["wrong"]]
        limits += result["limits"]
    failed = [f"{result['row']} {result['error']}" for result in results if "error" in result]
    findings = tuple(dict.fromkeys(answers + failed + limits))
    return Page(tuple(tables), tuple(figures), findings, study_seeds(setting))
