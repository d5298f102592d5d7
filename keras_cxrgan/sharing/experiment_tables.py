"""Results of experiments as tables: mean and sd over seeds, beside what a paper published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_cxrgan.evaluation.report import PRDC, Table, markdown_table, plus_minus, short

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
# Student's t, two-sided 95 %, of 3, 4, ... paired differences: two standard errors would call one
# of five differences of pure noise clear at three seeds.
_T95 = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
OTHER_EXTRACTOR = "published (other extractor)"


def flat_scores(result: dict, index: int = 0) -> dict:
    """Return the numbers of one generated side of an evaluation's report, flat.

    Where several sets of images were scored, distances, precision and recall are their means.

    >>> flat_scores(workflows.evaluate("films/", ["run"]))["frechet"]  # doctest: +SKIP
    """
    block = result["extractors"][0]
    scores = block["scores"][index]
    floor, spectrum = scores["floor"], result["appearance"][index]["spectrum"]
    drawn = scores["draws"] or {}
    means = {name: drawn[name]["mean"] for name in ("frechet", "kid", *PRDC) if drawn}
    return {
        "frechet": scores["frechet"]["value"],
        "frechet_error": scores["frechet"]["standard_error"],
        "frechet_floor": floor["frechet"]["floor_mean"],
        "frechet_floor_sd": floor["frechet"]["floor_sd"],
        "frechet_at_floor": floor["frechet"]["fake_mean"],
        "floor_count": floor["n"],
        "kid": scores["kid"]["kid"],
        "kid_error": scores["kid"]["standard_error"],
        "kid_floor": floor["kid"]["floor_mean"],
        "kid_at_floor": floor["kid"]["fake_mean"],
        **{name: scores[name] for name in PRDC},
        **{f"{name}_floor": floor["real"][name] for name in PRDC},
        **{f"{name}_at_floor": floor["fake"][name] for name in PRDC},
        "vendi_ratio": scores["vendi"]["ratio"],
        "spectrum_db": 10 * spectrum["rms_log10_difference"],
        "checkerboard_db": spectrum["checkerboard_db"],
        "real_images": scores["n_real"],
        "generated_images": scores["n_fake"],
        "score": block["features"]["score"],
        "extractor": {
            name: block["features"][name] for name in ("name", "dims", "weights", "about")
        },
        "warnings": result["warnings"],
        "draws": drawn.get("sets", 1),
        **means,
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
    noise: float | None  # one standard error of the value; None where nothing gives it
    seeds: int  # in common

    @property
    def clear(self) -> bool | None:
        """Whether chance alone gives as much in one of twenty cases; None of too few seeds."""
        if self.seeds < ENOUGH_SEEDS:
            return None
        return abs(self.value) > _T95[min(self.seeds - ENOUGH_SEEDS, len(_T95) - 1)] * self.noise

    def __str__(self) -> str:
        shown = f"{self.value:+.3g}"
        if self.noise is not None:
            shown += f", standard error {self.noise:.2g}"
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
    errors = [side[seed].get(f"{key}_error") for side in (ours, theirs) for seed in seeds]
    if None in errors:
        return Difference(mean, None, len(seeds))
    return Difference(mean, math.hypot(*errors) / len(seeds), len(seeds))


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
        cells = [*_row_and_count(row, seeds), *(show(values_of(seeds, key), key) for key in ours)]
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


def _row_and_count(row: str, seeds: Sequence[dict]) -> tuple[str, str]:
    """Return a row's name, with the error where all its seeds failed, and how many did not."""
    good = sum("error" not in result for result in seeds)
    count = str(good) if good == len(seeds) else f"{good} of {len(seeds)}"
    return (row if good else f"{row}: {failed(seeds)}"), count


@dataclass(frozen=True)
class Column:
    """A column in which rows are compared: a key of the results, and which way is better."""

    key: str
    title: str
    better: str = ""  # lower, higher, or neither
    scale: float = 1.0


def compared_table(
    title: str,
    results: Sequence[dict],
    columns: Sequence[Column],
    *,
    reference: tuple[str, Mapping[str, float]] | None = None,
    note: str = "",
) -> Table:
    """Return a row for each `row` of the results, mean ± sd over seeds; a clear best is bold.

    Args:
        reference: (name, values by key) of a first row that takes no part, such as the floor.
    """
    rows = by_row(results)
    columns = [column for column in columns if values_of(results, column.key)]
    marked = {column.key: clear_best(rows, column.key, column.better) for column in columns}
    lines = []
    if reference:
        name, values = reference
        shown = (
            short(column.scale * values[column.key]) if column.key in values else "-"
            for column in columns
        )
        lines.append((name, "-", *shown))
    for row, seeds in rows.items():
        name, count = _row_and_count(row, seeds)
        # The reason stands below the tables: these have many columns.
        cells = [name if name == row else f"{row} (failed)", count]
        for column in columns:
            text = show([column.scale * value for value in values_of(seeds, column.key)])
            cells.append(f"**{text}**" if marked[column.key] == row else text)
        lines.append(tuple(cells))
    header = ("", "seeds", *(column.title for column in columns))
    judged = any(column.better for column in columns) and len(rows) > 1
    notes = [note, _about_marks(rows, any(marked.values())) if judged else ""]
    return Table(title, header, tuple(lines), " ".join(filter(None, notes)))


def clear_best(rows: Mapping[str, Sequence[dict]], key: str, better: str) -> str | None:
    """Return the row that is better than the next best by more than chance explains, or None."""
    means = {
        row: mean_sd(found)[0] for row, seeds in rows.items() if (found := values_of(seeds, key))
    }
    if not better or len(means) < 2:
        return None
    sign = 1 if better == "lower" else -1
    first, second, *_ = sorted(means, key=lambda row: sign * means[row])
    found = difference(rows[first], rows[second], key)
    return first if found and found.clear and sign * found.value > 0 else None


def _about_marks(rows: Mapping[str, Sequence[dict]], marked: bool) -> str:
    most = max(sum("error" not in result for result in seeds) for seeds in rows.values())
    if most < ENOUGH_SEEDS:
        return (
            f"No best is marked: {most} seed{'s' * (most != 1)} cannot say how much another training"
            " differs; three can (--seeds 0,1,2)."
        )
    if not marked:
        return (
            "No best is marked: in no column is a row better than the next by more than chance"
            " explains."
        )
    return (
        "**Bold**: the best of its column, better than the next by more than chance explains"
        " (paired over the seeds, at 95 %, each column by itself)."
    )


def differences_table(
    title: str, base: str, results: Sequence[dict], columns: Sequence[Column], note: str = ""
) -> Table:
    """Return how far each row lies above the base, paired over the seeds; a clear one is bold."""
    rows = by_row(results)
    ours = rows.get(base, [])
    columns = [column for column in columns if values_of(ours, column.key)]
    lines = []
    for row, seeds in rows.items():
        if row == base:
            continue
        found = [difference(ours, seeds, column.key) for column in columns]
        pairs = max((each.seeds for each in found if each), default=0)
        shown = (_signed(each, column.scale) for each, column in zip(found, columns))
        lines.append((row, str(pairs), *shown))
    header = (f"minus {base}", "pairs", *(column.title for column in columns))
    explained = (
        "± is one standard error of the mean of the pairs, which share a seed. **Bold**: more than"
        f" chance explains (95 %); fewer than {ENOUGH_SEEDS} pairs cannot say."
    )
    return Table(title, header, tuple(lines), " ".join(filter(None, [explained, note])))


def _signed(found: Difference | None, scale: float) -> str:
    if found is None:
        return "-"
    value = scale * found.value
    text = plus_minus(value, scale * found.noise) if found.noise else short(value)
    text = f"+{text}" if value > 0 else text
    return f"**{text}**" if found.clear else text


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
    scale = f"scale: {written['scale']}; " if written["scale"] else ""
    lines = [
        f"# {written['experiment']}",
        "",
        written["citation"],
        "",
        f"- {scale}seeds: {', '.join(map(str, written['seeds']))}",
        f"- films here: {written['given']}",
        *([f"- films of the paper: {written['paper']}"] if written["paper"] else []),
    ]
    if written["departures"]:
        origin = "paper" if written["paper"] else "recipe"
        changed = (
            f"{name} {ours} ({origin}: {theirs})"
            for name, (ours, theirs) in written["departures"].items()
        )
        lines.append(f"- settings that are not the {origin}'s: {'; '.join(changed)}")
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
