"""What an experiment shows: a page of tables and figures, and what they are made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing import experiment_tables

if TYPE_CHECKING:
    from keras_cxrgan.workflows.describing import Setting

SAME_EXTRACTOR = "fid2015"  # the network the papers' FID is of; all others give other numbers
RESULTS = ("results.json", "results.md")


@dataclass(frozen=True)
class Page:
    """What an experiment shows. Figures are (file name in `out`, caption)."""

    tables: tuple[Table, ...]
    figures: tuple[tuple[str, str], ...] = ()
    findings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()  # where they are not those of the setting


def one_table(setting: Setting, results: list[dict]) -> Page:
    """Return the page of an experiment that has nothing of its own: a table of all rows."""
    table = experiment_tables.results_table(
        "Results", results, setting.experiment.published, same_extractor=same_extractor(setting)
    )
    return Page((table,))


def same_extractor(setting: Setting) -> bool:
    """Whether our scores are of the network that the papers' FID is of."""
    return setting.features == SAME_EXTRACTOR


def complete(results: list[dict], row: str | None = None, seed: int | None = None) -> list[dict]:
    """Return the results that did not fail, of a row and of a seed where these are given."""
    return [
        result
        for result in results
        if "error" not in result
        and (row is None or result["row"] == row)
        and (seed is None or result["seed"] == seed)
    ]


def read_log(setting: Setting, run: str, until: int | None = None) -> list[dict]:
    """Return the log of a run in `out`, one record a tick, up to so many images seen."""
    from keras_cxrgan.training import callbacks  # with TensorFlow

    records = callbacks.read_log(setting.out / run / "log.jsonl")
    return [record for record in records if until is None or record["images_seen"] <= until]


def sample_grid(setting: Setting, run: str, epochs: float, films: int):
    """Return (grid uint8, epochs it was drawn at) of the run's sample nearest to so many epochs."""
    from keras_cxrgan.data.images import decode

    samples = sorted((setting.out / run / "samples").glob("*.png"))
    if not samples:
        raise ValueError(f"{setting.out / run} holds no sample grids")
    best = min(samples, key=lambda path: abs(int(path.stem) - epochs * films))
    return decode(best.read_bytes()), int(best.stem) / films


def grid_panels(setting: Setting, result: dict, epochs: Iterable[float], side: int = 4) -> list:
    """Return (title, the first `side` x `side` samples) of a cell's run at these epochs."""
    from keras_cxrgan.sharing import experiment_figures as figures

    panels = {}
    for wanted in epochs:
        grid, at = sample_grid(setting, result["run"], wanted, result["films"])
        panels[f"epoch {round(at, 1):g}"] = figures.corner(
            grid, result["recipe"]["image_size"], side
        )
    return list(panels.items())


def write_results(setting: Setting, results: list[dict], page: Page) -> dict:
    """Write the page and every number into `out`; return the numbers."""
    experiment = setting.experiment
    scored = next((result for result in results if "extractor" in result), {})
    written = {
        "experiment": experiment.name,
        "citation": experiment.citation,
        "scale": setting.scale,
        "seeds": list(page.seeds or setting.seeds),
        "features": Path(setting.features).name,
        "extractor": scored.get("extractor"),
        "given": _given(setting, results),
        "departures": {
            name: [ours, theirs]
            for name, (ours, theirs) in setting.recipe()
            .difference(Recipe.load(experiment.recipe))
            .items()
        },
        "paper": experiment.data,
        "published": {row: dict(values) for row, values in experiment.published.items()},
        "tables": [dataclasses.asdict(table) for table in page.tables],
        "figures": [list(figure) for figure in page.figures],
        "findings": list(page.findings),
        "left_open": list(experiment.left_open),
        "cannot_compare": list(experiment.cannot_compare),
        "failed": [result["name"] for result in results if "error" in result],
        "cells": [
            {key: value for key, value in result.items() if key != "decides"} for result in results
        ],
    }
    setting.out.mkdir(parents=True, exist_ok=True)
    numbers = _without_places(setting, json.dumps(written, indent=1) + "\n")
    write(setting.out / RESULTS[0], numbers)
    text = experiment_tables.markdown_page(written, page.tables)
    write(setting.out / RESULTS[1], _without_places(setting, text))
    return json.loads(numbers)


def _without_places(setting: Setting, text: str) -> str:
    """Leave folders of this machine out: results are passed on, and they say whose it is."""
    sources = (Path(source or ".").parent for source in (setting.data, setting.held_out))
    for place in (setting.out, *sources):
        if len(place.parts) > 1:
            text = text.replace(f"{place}/", "")
    return text


def _given(setting: Setting, results: list[dict]) -> str:
    if setting.data is None:
        return "phantom films: computed, not of patients"
    counts = sorted({result["films"] for result in results if "films" in result})
    classes = ", ".join(sorted({name for result in results for name in result["classes"]}))
    return (
        f"{' / '.join(f'{count:,}' for count in counts) or 'no'} films of"
        f" {Path(setting.data).name}{f', class {classes}' if classes else ''}"
    )


def write(path: Path, text: str) -> None:
    """Write a text file; a reader sees the whole of it or the one before."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
