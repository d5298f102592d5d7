"""Results of experiments as tables: mean and sd over seeds, beside what a paper published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_cxrgan.evaluation.report import Table, markdown_table, plus_minus, short

COLUMNS = {
    "films": "films",
    "epochs": "epochs",
    "generator_updates": "G updates",
    "seconds": "seconds",
    "frechet": "Fréchet",
    "frechet_error": "its standard error",
    "frechet_at_floor": "at the floor's count",
    "frechet_floor": "floor",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
}
"""The columns of a table of results, unless others are asked for: key of a result -> title."""
ALIKE = ("films", "epochs", "generator_updates", "images_seen", "real_images", "generated_images")
ENOUGH_SEEDS = 3  # to say how much trainings differ
OTHER_EXTRACTOR = "published (other extractor)"


def flat_scores(result: dict, index: int = 0) -> dict:
    """Return the numbers of one generated side of an evaluation's report, flat.

    >>> flat_scores(workflows.evaluate("films/", ["run"]))["frechet"]  # doctest: +SKIP
    """
    block = result["extractors"][0]
    scores = block["scores"][index]
    floor = scores["floor"]
    return {
        "frechet": scores["frechet"]["value"],
        "frechet_error": scores["frechet"]["standard_error"],
        "frechet_floor": floor["frechet"]["floor_mean"],
        "frechet_floor_sd": floor["frechet"]["floor_sd"],
        "frechet_at_floor": floor["frechet"]["fake_mean"],
        "floor_count": floor["n"],
        "kid": scores["kid"]["kid"],
        "kid_error": scores["kid"]["standard_error"],
        **{name: scores[name] for name in ("precision", "density", "recall", "coverage")},
        "vendi_ratio": scores["vendi"]["ratio"],
        "real_images": scores["n_real"],
        "generated_images": scores["n_fake"],
        "score": block["features"]["score"],
        "extractor": {
            name: block["features"][name] for name in ("name", "dims", "weights", "about")
        },
        "warnings": result["warnings"],
    }


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation (n - 1) or None of fewer than two values.

    >>> mean_sd([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def by_row(results: Sequence[dict]) -> dict[str, list[dict]]:
    """Return row -> the results of its seeds, failed ones too, in the order of the cells."""
    rows: dict[str, list[dict]] = {}
    for result in results:
        rows.setdefault(result["row"], []).append(result)
    return rows


def values_of(results: Sequence[dict], key: str) -> list[float]:
    """Return the values of a key, of the results that have it."""
    return [result[key] for result in results if result.get(key) is not None]


def failed(results: Sequence[dict]) -> str:
    """Return the first error of results, short and fit for a table."""
    error = next(result["error"] for result in results if "error" in result).replace("|", "/")
    return f"failed: {error if len(error) <= 100 else error[:97] + '...'}"


def show(values: Sequence[float], key: str = "") -> str:
    """Return mean ± sd, one value alone, or a dash.

    >>> show([1.0, 3.0]), show([2.5]), show([])
    ('2 ± 1', '2.5', '-')
    """
    if not values:
        return "-"
    mean, sd = mean_sd(values)
    if not math.isfinite(mean):
        return str(mean)
    if key in ALIKE and not sd:
        return f"{mean:,.0f}" if abs(mean - round(mean)) < 0.05 else f"{mean:,.1f}"
    if key == "seconds":
        return f"{mean:,.0f}" + (f" ± {sd:,.0f}" if sd else "")
    return plus_minus(mean, sd) if sd else short(mean)


@dataclass(frozen=True)
class Difference:
    """How far the second row's mean lies above the first's, and how far chance alone may."""

    value: float
    noise: float  # one standard error of the value
    seeds: int  # in common

    @property
    def clear(self) -> bool | None:
        """Whether it is more than two standard errors; None of too few seeds to say."""
        return abs(self.value) > 2 * self.noise if self.seeds >= ENOUGH_SEEDS else None

    def __str__(self) -> str:
        shown = f"{self.value:+.3g}, standard error {self.noise:.2g}"
        if self.clear is None:
            some = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
            return (
                f"{shown} of the images scored, but {some} cannot say how much another training"
                " differs"
            )
        verdict = "more than chance explains" if self.clear else "within the noise"
        return f"{shown} over {self.seeds} seeds: {verdict}"


def difference(
    first: Sequence[dict], second: Sequence[dict], key: str = "frechet"
) -> Difference | None:
    """Return second minus first, paired by seed; None where they have no seed in common.

    The noise is that of the paired differences over three seeds or more; with fewer, the errors
    of the scores themselves (`key` + "_error"), which leave out what another seed would change.
    """
    ours = {r["seed"]: r for r in first if r.get(key) is not None}
    theirs = {r["seed"]: r for r in second if r.get(key) is not None}
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    mean, sd = mean_sd([theirs[seed][key] - ours[seed][key] for seed in seeds])
    if len(seeds) >= ENOUGH_SEEDS:
        return Difference(mean, sd / math.sqrt(len(seeds)), len(seeds))
    squares = sum(side[seed][f"{key}_error"] ** 2 for side in (ours, theirs) for seed in seeds)
    return Difference(mean, math.sqrt(squares) / len(seeds), len(seeds))


def results_table(
    title: str,
    results: Sequence[dict],
    published: Mapping[str, Mapping[str, float]],
    *,
    same_extractor: bool,
    columns: Mapping[str, str] = COLUMNS,
    published_key: str = "frechet",
    note: str = "",
) -> Table:
    """Return a row for each `row` of the results: mean ± sd over its seeds, and the published.

    A published Fréchet distance has its own last column, whose title says that it is of another
    extractor unless `same_extractor`. Failed seeds are counted, and a row of failures alone
    gives the first error.
    """
    ours = {key: name for key, name in columns.items() if values_of(results, key)}
    score = next((result["score"] for result in results if "score" in result), None)
    if "frechet" in ours and score:
        ours["frechet"] = f"{ours['frechet']}, {score}"
    last = "published" if same_extractor or "frechet" not in published_key else OTHER_EXTRACTOR
    shows_published = any(published_key in values for values in published.values())
    rows = []
    for row, seeds in by_row(results).items():
        good = [result for result in seeds if "error" not in result]
        count = str(len(good))
        if len(good) < len(seeds):
            count += f" of {len(seeds)}"
        cells = [row, count, *(show(values_of(good, key), key) for key in ours)]
        if not good:
            cells = [f"{row}: {failed(seeds)}", count, *("-" for _ in ours)]
        if shows_published:
            value = published.get(row, {}).get(published_key)
            cells.append("-" if value is None else f"{value:g}")
        rows.append(tuple(cells))
    header = ("", "seeds", *ours.values(), *([last] if shows_published else []))
    notes = [note, "Mean ± standard deviation over seeds; one seed has none."]
    if "frechet_floor" in ours:
        notes.append(
            "Floor: what random halves of the real films score against each other; beside it, as"
            " many generated images."
        )
    return Table(title, header, tuple(rows), " ".join(filter(None, notes)))


def beside_table(
    title: str, columns: Mapping[str, str], rows: Mapping[str, tuple[Sequence[dict], Mapping]]
) -> Table:
    """Return a table with two lines a row: what was published (if anything), and ours.

    Args:
        rows: row -> (our results, published values by key).
    """
    lines = []
    for name, (results, published) in rows.items():
        if published:
            shown = (published.get(key) for key in columns)
            lines.append((f"{name}: published", *("-" if v is None else f"{v:g}" for v in shown)))
        good = [result for result in results if "error" not in result]
        label = f"{name}: ours ({len(good)} seed{'s' * (len(good) != 1)})"
        if results and not good:
            label = f"{name}: ours {failed(results)}"
        lines.append((label, *(show(values_of(good, key), key) for key in columns)))
    return Table(title, ("", *columns.values()), tuple(lines), "Ours: mean ± sd over seeds.")


def markdown_page(written: Mapping, tables: Sequence[Table]) -> str:
    """Return `results.md` from the content of `results.json` and its tables."""
    extractor = written["extractor"]
    lines = [
        f"# {written['experiment']}",
        "",
        written["citation"],
        "",
        f"- scale: {written['scale']}; seeds: {', '.join(map(str, written['seeds']))}",
        f"- films here: {written['given']}",
        f"- films of the paper: {written['paper']}",
    ]
    if written["departures"]:
        changed = (
            f"{name} {ours} (paper: {theirs})"
            for name, (ours, theirs) in written["departures"].items()
        )
        lines.append(f"- settings that are not the paper's: {'; '.join(changed)}")
    if extractor:
        lines.append(
            f"- scores are of the extractor **{extractor['name']}** ({extractor['about']};"
            f" {extractor['dims']} dims)"
        )
    lines.append("")
    for table in tables:
        lines += markdown_table(table)
    for title, key in (
        ("Findings", "findings"),
        ("What cannot be compared", "cannot_compare"),
        ("What the paper leaves open", "left_open"),
    ):
        if written[key]:
            lines += [f"## {title}", "", *(f"- {text}" for text in written[key]), ""]
    failed = [cell for cell in written["cells"] if "error" in cell]
    if failed:
        lines += ["## Failed", ""]
        lines += [*(f"- {cell['name']}: {cell['error']}" for cell in failed), ""]
    for name, caption in written["figures"]:
        lines += [f"![{caption}]({name})", "", caption, ""]
    return "\n".join(lines)
