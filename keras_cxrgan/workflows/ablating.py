"""What each ingredient of a recipe does: it and its variants, trained on as many images each.

Every row is the base recipe with one change; all rows share films, images seen and seeds. The
folder is that of an experiment (`reproducing`), so the same call goes on where it stopped.
"""

from __future__ import annotations

import json
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_cxrgan import runs
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.rules import check_effect
from keras_cxrgan.workflows import contrasting, reproducing
from keras_cxrgan.workflows.choosing import count_apart, sets_scored
from keras_cxrgan.workflows.describing import Cell, Experiment, Setting, check_fields

BASE = "base"
PHANTOM = {"normal": 60}  # films of each class where none are given
# Audited in pixels too: one generated image laid on one film takes half a millisecond.
MOST_PAIRS = 60_000
# Another preparation makes other films to score against, and rows that do not compare.
PREPARATION = ("image_size", "fit", "window", "clahe_clip_limit", "clahe_tiles", "clahe_size")


@dataclass(frozen=True)
class Ablation:
    """Everything an ablation will do, checked. `rows`: label -> changed fields, the base first."""

    setting: Setting
    rows: Mapping[str, Mapping[str, str]]
    films: int  # trained on
    held_out_films: int
    images: int  # seen by each training: whole passes over the films
    scored: int  # real films of each comparison, and as many generated images
    curve: int = 0  # points in training at which images are scored

    def recipe(self, row: str, seed: int | None = None) -> Recipe:
        """Return the recipe of a row, for one seed."""
        watched = {}
        if self.curve:
            interval = max(1, self.images // self.curve)
            watched = {
                "evaluate_interval": interval,
                "sample_interval": interval,
                "evaluate_features": self.setting.features,
            }
        if seed is not None:
            watched["seed"] = seed
        return self.setting.recipe(**{**self.rows[row], **watched})

    @property
    def trained(self) -> tuple[str, ...]:
        """The rows to train."""
        return tuple(row for row in self.rows if row in (self.setting.only or self.rows))

    def folder(self, row: str, seed: int) -> str:
        """Return the name of a row's folder for one seed."""
        return f"{_slug(row)}-seed-{seed}"


def read_change(text: str) -> tuple[str, dict[str, str]]:
    """Return (label, fields) of "LABEL: FIELD=VALUE FIELD=VALUE"; without a label, it is the text.

    >>> read_change("no EMA: ema_half_life=0")
    ('no EMA', {'ema_half_life': '0'})
    """
    label, colon, rest = text.partition(":")
    if not colon or "=" in label:
        label, rest = text, text
    pairs = [part.partition("=") for part in shlex.split(rest)]
    if not pairs or not label.strip() or any(not (name and equals) for name, equals, _ in pairs):
        raise ValueError(
            "--change needs 'LABEL: FIELD=VALUE FIELD=VALUE', such as"
            f" --change 'no EMA: ema_half_life=0', got {text!r}"
        )
    return label.strip(), {name.replace("-", "_"): value for name, _, value in pairs}


def plan_ablation(
    base: str,
    changes: Iterable[str],
    out: str | Path,
    *,
    data: str | None = None,
    classes: Sequence[str] = (),
    images: int | None = None,
    epochs: int | None = None,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    held_out: str | None = None,
    curve: int = 0,
    features: str = "cxr",
    fields: Mapping[str, str] | None = None,
    report=None,
) -> Ablation:
    """Return the plan of an ablation, or raise `ValueError` with one line for what is wrong.

    Args:
        base: recipe by name, or a JSON file; `fields` change it for all rows.
        changes: as `read_change` takes them, one for each further row.
        data: films as of `workflows.train`; None for phantom films, written to `out`.
        images: seen by each training, rounded to whole passes; or `epochs`; or the recipe's.
        only: labels of the rows to train, () for all; of the others, those complete are shown.
        held_out: films never trained on, to score against too.
        curve: points in training at which images are scored.

    Example:
        >>> plan = plan_ablation("default", ["no EMA: ema_half_life=0"], "runs/ablation")
        >>> run_ablation(plan)  # doctest: +SKIP
    """
    if images is not None and epochs is not None:
        raise ValueError("--images and --epochs say the same thing: give one of them")
    for name, value in (("--images", images), ("--epochs", epochs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if curve < 0:
        raise ValueError(f"--curve must be 0 or more points, got {curve}")
    if data is None and (classes or held_out):
        raise ValueError("--class and --held-out are of films: name them with --data")
    films, held_out_films = sum(PHANTOM.values()), 0
    if data is not None:
        films, held_out_films = count_apart(data, held_out, tuple(classes))
    fields = dict(fields or {})
    check_fields(fields, **{"--images": images, "--epochs": epochs})
    if epochs is None and images is not None:
        epochs = max(1, round(images / films))
    if epochs is not None:
        fields["epochs"] = epochs
    stem = Path(base).stem
    experiment = Experiment(
        name="ablation",
        citation=f"What each ingredient of the recipe {stem} does: one change at a time.",
        recipe=base,
        data="",
        published={},
        left_open=(),
        cannot_compare=(),
        scales={"": {"recipe": fields, "phantom": PHANTOM}},
    )
    setting = Setting(
        experiment,
        Path(out),
        "",
        data,
        tuple(classes),
        tuple(seeds),
        features,
        report=report,
        only=tuple(only),
        held_out=held_out,
    )
    reproducing.check(setting)
    recipe = setting.recipe()
    if recipe.stages:
        raise ValueError(
            f"{stem} grows in stages, whose images are of several sizes; ablate a recipe of one size"
        )
    rows = {BASE: {}}
    for text in changes:
        label, changed = read_change(text)
        if _slug(label) in map(_slug, rows) or not _slug(label):
            raise ValueError(f"--change {label!r} needs a label of letters that no other row has")
        _check_change(label, changed, setting)
        rows[label] = changed
    if unknown := [label for label in only if label not in rows]:
        raise ValueError(f"--only {unknown[0]!r} is no row; the rows are {', '.join(rows)}")
    plan = Ablation(
        setting=setting,
        rows=rows,
        films=films,
        held_out_films=held_out_films,
        images=recipe.total_images(films),
        scored=min(films, held_out_films or films),
        curve=curve,
    )
    check_effect([plan.recipe(row) for row in rows], fields)
    return plan


def _check_change(label: str, changed: Mapping[str, str], setting: Setting) -> None:
    place = f"--change {label!r}"
    for name in changed:
        if name in ("epochs", "training_images"):
            raise ValueError(f"{place}: all rows see the same images; say --images or --epochs")
        if name == "seed":
            raise ValueError(f"{place}: all rows have the same seeds; say --seeds")
        if name in PREPARATION:
            raise ValueError(
                f"{place}: {name} changes the films that are scored against, and rows would not"
                " compare; change it for all of them with --set"
            )
    try:
        recipe = setting.recipe(**changed)
        if recipe.difference(setting.recipe()):
            return check_effect([recipe], changed)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    raise ValueError(f"{place} changes nothing of what the base learns")


def describe(plan: Ablation) -> dict:
    """Return what an ablation will do, ready for JSON."""
    base = plan.recipe(BASE)
    return {
        "recipe": Path(plan.setting.experiment.recipe).stem,
        "films": plan.films,
        "held_out_films": plan.held_out_films,
        "epochs": round(base.total_images(plan.films) / plan.films),
        "images_seen": plan.images,
        "scored": plan.scored,
        "seeds": list(plan.setting.seeds),
        "rows": {
            row: {
                name: [theirs, ours]
                for name, (ours, theirs) in plan.recipe(row).difference(base).items()
            }
            for row in plan.rows
        },
        "trainings": len(plan.trained) * len(plan.setting.seeds),
        "complete": sum(_finished(plan)),
        "seconds_left": estimate(plan),
    }


def _finished(plan: Ablation) -> list[bool]:
    return [
        reproducing.finished(plan.setting, plan.folder(row, seed)) is not None
        and _is_of(plan, row, seed)
        for seed in plan.setting.seeds
        for row in plan.trained
    ]


def _is_of(plan: Ablation, row: str, seed: int) -> bool:
    """Return whether what `out` holds of a row has been trained as this plan would."""
    try:
        theirs = runs.read_recipe(plan.setting.out / plan.folder(row, seed))
    except (OSError, ValueError):
        return True  # nothing says otherwise
    return not plan.recipe(row, seed).difference(theirs)


def estimate(plan: Ablation) -> float | None:
    """Return the seconds of training that are left, from those done in `out`; None before any."""
    known: dict[str, float] = {}
    left = []
    for seed in plan.setting.seeds:
        for row in plan.trained:
            path = plan.setting.out / plan.folder(row, seed) / reproducing.TRAINED
            try:
                numbers = json.loads(path.read_text())["numbers"]
                known[row] = plan.images * numbers["seconds"] / numbers["images_seen"]
                left += [] if _is_of(plan, row, seed) else [row]
            except (OSError, ValueError, KeyError, ZeroDivisionError):
                left.append(row)
    if not known:
        return None
    others = statistics.fmean(known.values())
    return sum(known.get(row, others) for row in left)


def run_ablation(plan: Ablation) -> dict:
    """Train and score every row and seed, write tables and figures; return `results.json`.

    Raises `ValueError` for what a user can mend, and `Stopped` when a training was interrupted.
    """
    return reproducing.reproduce(
        plan.setting,
        lambda setting: _cells(plan),
        lambda setting, results: contrasting.present(plan, results),
    )


def _cells(plan: Ablation) -> Iterable[Cell]:
    setting, scored = plan.setting, plan.scored
    films = setting.films()
    against, also = films, setting.held_out
    # Every score moves with the number of films: both comparisons are of equally many.
    if also:
        subsets = setting.out / "subsets"
        against, _ = reproducing.some_films(
            films, setting.classes, scored, subsets / "trained-on", 0
        )
        also, _ = reproducing.some_films(also, setting.classes, scored, subsets / "held-out", 0)
    # Seeds outside, so that a stopped ablation has whole tables of the first ones.
    for seed in setting.seeds:
        for row in plan.rows:
            yield Cell(
                plan.folder(row, seed),
                plan.recipe(row, seed),
                films,
                row,
                setting.classes,
                evaluate_against=against,
                also_against=also,
                generate=scored,
                draws=sets_scored(scored, plan.recipe(row).image_size),
                work=measure,
            )


def measure(cell: Cell, folder: Path, setting: Setting) -> dict:
    """Train and score a cell; add how near its images come to the films, and their curve."""
    from keras_cxrgan.evaluation.neighbours import nearest

    numbers = reproducing.train_and_score(cell, folder, setting)
    run = setting.out / cell.name
    near, look, train = _nearness(cell, str(run), setting)
    numbers |= near
    if cell.recipe.evaluate_interval:
        numbers["curve"] = _curve(run)
        numbers["nearest_curve"] = [
            [seen, float(statistics.median(nearest(look(images), train)[1][:, 0]))]
            for seen, images in _sampled(run, cell.recipe.image_size)
        ]
    return numbers


def nearness(cell: Cell, generator: str, setting: Setting) -> dict:
    """Return how near the images of a run or an export come to the films of a cell's classes.

    In features always (medians, authenticity); in pixels, as `cxrgan audit`, of few films alone.
    """
    return _nearness(cell, generator, setting)[0]


def _nearness(cell: Cell, generator: str, setting: Setting):
    """Return (numbers, the function that takes images to features, features of the films)."""
    from keras_cxrgan.evaluation import memorisation
    from keras_cxrgan.evaluation.neighbours import nearest
    from keras_cxrgan.evaluation.scores import score_reals
    from keras_cxrgan.workflows.comparing import Options, load_comparison

    count = cell.generate * cell.draws
    options = Options(
        classes=cell.classes, count=count, seed=cell.recipe.seed, **setting.score_options
    )
    compared = load_comparison(
        cell.data,
        [generator],
        cell.also_against,
        [setting.features],
        options,
        setting.report or (lambda *_: None),
    )
    (extractor,), (made,), held = compared.extractors, compared.fakes, compared.held_out

    def look(images):
        return compared.features(extractor, images)

    train, fake = look(compared.real.images), look(made.images)
    others = look(held.images) if held else None
    distances = nearest(fake, train)[1][:, 0]
    usual = (nearest(others, train) if held else nearest(train, train, same=True))[1][:, 0]
    numbers = {
        "nearest_features": float(statistics.median(distances)),
        "nearest_features_real": float(statistics.median(usual)),
        "nearer_features": memorisation.nearer_than(distances, usual)["probability"],
        "authenticity": memorisation.authenticity(fake, train),
    }
    if held:
        numbers["authenticity_real"] = memorisation.authenticity(others, train)
        numbers |= {
            f"also_{name}_reals": value for name, value in score_reals(others, train).items()
        }
    pairs = len(train) * (len(train) + cell.generate + (len(others) if held else 0))
    if pairs <= MOST_PAIRS:
        numbers |= _audit(
            memorisation,
            compared.real.images,
            made.images[: cell.generate],
            train,
            fake[: cell.generate],
            held and held.images,
            others,
        )
    return numbers, look, train


def _audit(memorisation, train_pixels, fake_pixels, train, fake, held_pixels, held) -> dict:
    """Return what laying the images on the films shows; nothing of too few films."""
    try:
        found = memorisation.audit(train_pixels, fake_pixels, train, fake, held_pixels, held)
    except ValueError:
        return {}
    pixels = found["pixels"]
    real = pixels["calibrated_on"]
    return {
        "copies": len({pair["fake"] for pair in found["flagged"]}),
        "copies_real": found["calibration_flagged"],
        "copies_calibrated_on": real,
        "nearer_pixels": pixels["comparison"]["probability"],
        "nearest_pixels": pixels["quantiles"]["fake"]["0.5"],
        "nearest_pixels_real": pixels["quantiles"][real]["0.5"],
    }


def _curve(run: Path) -> list[dict]:
    from keras_cxrgan.training.callbacks import read_log

    names = ("images_seen", *contrasting.CURVES, "kid", "density")
    records = read_log(run / "metrics.jsonl")
    return [{name: record.get(name) for name in names} for record in records]


def _sampled(run: Path, image_size: int):
    """Yield (images seen, images) of the run's sample grids: the same latents over the training."""
    from keras_cxrgan.data.images import decode
    from keras_cxrgan.sharing.experiment_figures import tiles

    for path in sorted((run / "samples").glob("*.png")):
        yield int(path.stem), tiles(decode(path.read_bytes()), image_size)


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=]+", "-", label).strip("-.").lower()
