"""How the rows of an ablation compare: scores beside their floor, copies, cost, samples, curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.sharing import experiment_tables
from keras_cxrgan.sharing.experiment_tables import PRDC, Column
from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.presenting import Page

if TYPE_CHECKING:
    from keras_cxrgan.workflows.ablating import Ablation

SCORES = (
    Column("frechet_at_floor", "Fréchet", "lower"),
    Column("kid_at_floor", "KID x 1000", "lower", 1000),
    *(Column(f"{name}_at_floor", name, "higher") for name in PRDC),
)
UNSEEN = (
    Column("frechet", "Fréchet", "lower"),
    Column("kid", "KID x 1000", "lower", 1000),
    *(Column(name, name, "higher") for name in PRDC),
)
WHOLE = (
    Column("frechet", "Fréchet", "lower"),
    Column("frechet_error", "its standard error"),
    Column("kid", "KID x 1000", "lower", 1000),
    Column("kid_error", "its standard error", "", 1000),
    Column("vendi_ratio", "Vendi, share of the real films'"),
    Column("spectrum_db", "spectrum, dB"),
    Column("checkerboard_db", "checkerboard, dB"),
)
COPIES = (
    Column("copies", "as near as copies"),
    Column("nearer_pixels", "P(nearer), pixels"),
    Column("nearest_pixels", "median distance, pixels"),
    Column("nearer_features", "P(nearer), features"),
    Column("nearest_features", "median distance, features"),
    Column("authenticity", "authenticity"),
)
COST = {
    "films": "films",
    "epochs": "epochs",
    "images_seen": "images seen",
    "generator_updates": "G updates",
    "seconds": "seconds",
    "images_per_second": "images/s",
}
CURVES = {
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}


def present(plan: Ablation, results: list[dict]) -> Page:
    """Return the tables and draw the figures of an ablation."""
    setting = plan.setting
    sets = {"the films trained on": results}
    if setting.held_out:
        sets["films never trained on"] = [also(result) for result in results]
    tables = [scores_table(films, scored) for films, scored in sets.items()]
    # What is held out judges, where there is any.
    tables.append(_differences(plan, list(sets.values())[-1], list(sets)[-1]))
    tables += [_whole_table(films, scored) for films, scored in sets.items()]
    tables.append(_copies_table(plan, results))
    good = reproducing.complete(results)
    timed = any(result["recipe"]["evaluate_interval"] for result in good)
    tables.append(
        experiment_tables.results_table(
            "Cost",
            good,
            {},
            same_extractor=True,
            columns=COST,
            note="The seconds include the scores on the way (--curve)." if timed else "",
        )
    )
    findings = [
        f"{row}: {', '.join(f'{name} {ours} (base: {theirs})' for name, (ours, theirs) in changed)}"
        for row in plan.rows
        if (changed := plan.recipe(row).difference(plan.recipe(_base(plan))).items())
    ]
    if plan.curve and any(not result.get("curve") for result in good):
        findings.append(
            "Some rows have no curve: they were trained without --curve. Another --out has it."
        )
    return Page(tuple(tables), tuple(_figures(plan, good)), tuple(findings))


def also(result: dict) -> dict:
    """Return a result with the scores against held-out films in the place of the others."""
    if "error" in result:
        return result
    names = ("row", "seed", "name")
    kept = {name: result[name] for name in names}
    return kept | {
        name.removeprefix("also_"): value
        for name, value in result.items()
        if name.startswith("also_")
    }


def scores_table(films: str, results: list[dict]) -> Table:
    """Return the scores at the count of the floor, which is their first row."""
    good = reproducing.complete(results)
    if not good:
        return experiment_tables.compared_table(f"Scores against {films}", results, SCORES)
    count = good[0]["floor_count"]
    floor = {
        column.key: statistics.fmean(
            result[column.key.replace("_at_floor", "_floor")] for result in good
        )
        for column in SCORES
    }
    return experiment_tables.compared_table(
        f"Scores against {films}: {count:,} images on each side, Fréchet {good[0]['score']}",
        results,
        SCORES,
        reference=("real half against half", floor),
        note="Mean ± sd over seeds, at the count that halves of the real films have, drawn from"
        f" {_sets(good[0])}.",
    )


def unseen_table(films: str, results: list[dict]) -> Table:
    """Return the scores against all films held out, below those of the films trained on."""
    title, good = f"Scores against {films}", reproducing.complete(results)
    if good:
        title += f": {good[0]['real_images']:,} images on each side, Fréchet {good[0]['score']}"
    return experiment_tables.compared_table(
        title,
        results,
        UNSEEN,
        reference=_trained_on(good),
        note=f"Mean ± sd over seeds, of {_sets(good[0])} images." if good else "",
    )


def _trained_on(good: list[dict]) -> tuple[str, dict[str, float]] | None:
    """Return the row of what films trained on score against films held out, where that is known."""
    reals = {
        column.key: statistics.fmean(values)
        for column in UNSEEN
        if (values := experiment_tables.values_of(good, f"{column.key}_reals"))
    }
    return ("films trained on", reals) if reals else None


def _sets(result: dict) -> str:
    """Return of how many generated images the scores are, in words."""
    sets, count = result.get("draws", 1), f"{result['generated_images']:,}"
    return f"{sets} sets of {count}" if sets > 1 else count


def _whole_table(films: str, results: list[dict]) -> Table:
    """Return the distances of all images, with their standard errors."""
    title, good = f"The same of all images, against {films}", reproducing.complete(results)
    if good:
        title += f": {good[0]['real_images']:,} real, {_sets(good[0])} generated"
    return experiment_tables.compared_table(
        title,
        results,
        WHOLE,
        reference=_trained_on(good),
        note="Distances are means over the sets, their standard errors those of one set: for other"
        " films and other images of the same generator; ± is the sd over seeds, of other trainings."
        " More images lower a Fréchet distance, so these are not"
        " to be held against the floor above. Spectrum and checkerboard: differences from the real"
        " films' power.",
    )


def _differences(plan: Ablation, results: list[dict], films: str) -> Table:
    return experiment_tables.differences_table(
        f"Difference from the base, against {films}", _base(plan), results, SCORES
    )


def _copies_table(plan: Ablation, results: list[dict]) -> Table:
    good = reproducing.complete(results)
    real, than = "films trained on, to each other", "such a film is to the others"
    if plan.setting.held_out:
        real, than = "held-out films", "a held-out film is"
    reference = {"nearer_pixels": 0.5, "nearer_features": 0.5}
    for column in COPIES:
        if values := experiment_tables.values_of(good, f"{column.key}_real"):
            reference[column.key] = statistics.fmean(values)
    note = (
        f"P(nearer): that a generated image is nearer to the films trained on than {than}; 0.5 is"
        f" alike. As near as copies: of {plan.scored:,} generated images, by the thresholds of"
        " cxrgan audit."
    )
    if plan.setting.held_out and any(r.get("copies_calibrated_on") == "train" for r in good):
        note += " In pixels they are too few: there the films trained on stand for them."
    if good and not any("copies" in result for result in good):
        note += " In pixels there is no cheap figure for so many or so few films: see cxrgan audit."
    return experiment_tables.compared_table(
        "Nearest film trained on", results, COPIES, reference=(real, reference), note=note
    )


def _figures(plan: Ablation, good: list[dict]):
    """Draw samples of each row, and the curves where there are any; yield (file, caption)."""
    from keras_cxrgan.data.images import decode
    from keras_cxrgan.sharing import experiment_figures as figures

    out, size = plan.setting.out, plan.recipe(_base(plan)).image_size
    firsts = {result["row"]: result for result in reversed(good)}  # the first seed of each row
    if firsts:
        runs = [firsts[row] for row in plan.rows if row in firsts]
        reals = decode((out / runs[0]["run"] / "reals.png").read_bytes())
        panels = [("films trained on", figures.corner(reals, size, 5))]
        for result in runs:
            grid, _ = reproducing.sample_grid(
                plan.setting, result["run"], result["epochs"], result["films"]
            )
            panels.append((result["row"], figures.corner(grid, size, 5)))
        figures.grids(panels, out / "samples.png", side=3.4 if len(panels) <= 9 else 2.4)
        yield "samples.png", "Samples of each row, the same latents; not chosen"
    rows = experiment_tables.by_row([result for result in good if result.get("curve")])
    if rows:
        figures.lines(curve_panels(rows), out / "curves.png", x="images seen")
        yield (
            "curves.png",
            "Against images seen: scores, of the films trained on, and how near those are",
        )


def curve_panels(rows: Mapping[str, list[dict]], *, relative: bool = False) -> list:
    """Return the panels of the curves, means over the seeds.

    Args:
        relative: rows are of different films: distances are divided by those of their own films.
    """
    panels = []
    for key, title in CURVES.items():
        points = {
            row: [
                [(record["images_seen"], record[key]) for record in result["curve"]]
                for result in seeds
            ]
            for row, seeds in rows.items()
        }
        panels.append((title, title, {row: mean_curve(curves) for row, curves in points.items()}))
    near = {
        row: mean_curve(
            [
                [(x, y / (r["nearest_features_real"] if relative else 1)) for x, y in curve]
                for r in seeds
                if (curve := r["nearest_curve"])
            ]
        )
        for row, seeds in rows.items()
    }
    usual = statistics.fmean(r["nearest_features_real"] for seeds in rows.values() for r in seeds)
    drawn = [xs for xs, _ in near.values() if xs]
    ends = [min(map(min, drawn)), max(map(max, drawn))]
    near["real films"] = (ends, [1.0 if relative else usual] * 2)
    axis = "distance / real films'" if relative else "median distance in features"
    panels.append(("nearest film trained on", axis, near))
    return panels


def mean_curve(curves: Iterable[Iterable[Sequence]]) -> tuple[list, list]:
    """Return (xs, means) of curves of (x, y), at the xs that all of them have a y for.

    >>> mean_curve([[(1, 2.0), (2, 3.0)], [(1, 4.0), (2, None)]])
    ([1], [3.0])
    """
    found = [{x: y for x, y in curve if y is not None} for curve in curves]
    xs = sorted(set.intersection(*map(set, found)))
    return xs, [statistics.fmean(each[x] for each in found) for x in xs]


def _base(plan: Ablation) -> str:
    return next(iter(plan.rows))
