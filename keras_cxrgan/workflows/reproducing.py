"""What the experiments share: cells that train and score, results beside what a paper published.

An experiment file in `experiments/` holds an `Experiment`, a function that yields its cells, and
one that makes its page of tables and figures. Everything lies in one folder:

    results.md, results.json   the page, and every number   *.png   its figures
    films/                     phantom films, where no films were given
    CELL/                      the run of a cell; generator/, which was scored; trained.json, and
                               cell.json: its numbers, once it is complete

The same command on the same folder goes on where it stopped: a cell whose `cell.json` was made
with the same settings is not touched again. A cell that fails is a row that says so.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from keras_cxrgan.data.records import Record, content_hash, fingerprint
from keras_cxrgan.data.sources import ALL, named_split, read_source
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing.experiment_tables import flat_scores
from keras_cxrgan.workflows.choosing import (
    check_scorable,
    count_apart,
    count_classes,
    count_films,
    nested_subsets,
    sets_scored,
    some_films,
)
from keras_cxrgan.workflows.describing import Cell, Experiment, Setting, Stopped, check_fields
from keras_cxrgan.workflows.presenting import (
    RESULTS,
    Page,
    complete,
    grid_panels,
    one_table,
    read_log,
    same_extractor,
    sample_grid,
    write,
    write_results,
)

# What an experiment needs, from one place.
__all__ = [
    "Cell",
    "Experiment",
    "Page",
    "Setting",
    "Stopped",
    "command",
    "check_scorable",
    "complete",
    "count_apart",
    "count_classes",
    "count_films",
    "finished",
    "grid_panels",
    "nested_subsets",
    "read_log",
    "reproduce",
    "run_cell",
    "same_extractor",
    "sample_grid",
    "score",
    "score_also",
    "sets_scored",
    "some_films",
    "train",
    "train_and_score",
]

SCALES = ("smoke", "small", "paper")
CELL = "cell.json"
TRAINED = "trained.json"  # what the log said when a cell's training ended
GENERATOR = "generator"  # in the folder of a cell: the export that was scored


def reproduce(
    setting: Setting,
    cells: Callable[[Setting], Iterable[Cell]],
    present: Callable[[Setting, list[dict]], Page] | None = None,
) -> dict:
    """Run all cells, then write `results.md` and `results.json`; return the latter's content.

    Args:
        cells: yields the cells; one that depends on another's numbers reads them with
            `finished(setting, name)` when its turn comes.
        present: (setting, results of all cells) -> `Page`; None for one table of all rows.

    Raises `ValueError` for settings a user can mend, and `Stopped`.
    """
    check(setting)
    results, rows = [], []
    for cell in cells(setting):
        rows.append(cell.row or cell.name)
        if setting.only and rows[-1] not in setting.only:
            if earlier := completed(cell, setting):
                results.append(earlier)
            elif finished(setting, cell.name):
                _say(setting, f"{cell.name} was made with other settings: the page leaves it out")
            continue
        _say(setting, f"{setting.experiment.name}: {cell.name}")
        results.append(run_cell(cell, setting))
        if "error" in results[-1]:
            _say(setting, f"{cell.name} failed: {results[-1]['error']}")
    if unknown := set(setting.only).difference(rows):
        raise ValueError(
            f"there is no row {', '.join(sorted(unknown))} (--only): the rows are"
            f" {', '.join(dict.fromkeys(rows))}"
        )
    page = (present or one_table)(setting, results)
    return write_results(setting, results, page)


def run_cell(cell: Cell, setting: Setting) -> dict:
    """Train and score a cell, or find it complete; return its numbers, or `{"error": line}`.

    Raises `Stopped` when the training was interrupted.
    """
    about = {
        "name": cell.name,
        "row": cell.row or cell.name,
        "seed": cell.recipe.seed,
        "classes": list(cell.classes),
    }
    folder = setting.out / cell.name
    try:
        decides = _hash(_decides(cell, setting))
        if earlier := completed(cell, setting):
            return earlier
        numbers = (cell.work or train_and_score)(cell, folder, setting)
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - the other cells have a table
        return {**about, "error": _one_line(error)}
    result = {**about, "decides": decides, "recipe": dataclasses.asdict(cell.recipe), **numbers}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / CELL, json.dumps(result, indent=1) + "\n")
    return json.loads((folder / CELL).read_text())


def train_and_score(cell: Cell, folder: Path, setting: Setting) -> dict:
    """Train the cell's recipe in its run, score its generator, and return the numbers of both."""
    from keras_cxrgan import workflows

    run, generator = setting.out / (cell.run or cell.name), folder / GENERATOR
    trained_as = _hash(_training(cell, setting))
    earlier = _read(folder / TRAINED)
    if earlier.get("trained_as") == trained_as and (generator / "card.json").is_file():
        # Only the scores are missing, or other ones are asked for: the run may have gone on since.
        numbers = earlier["numbers"]
    else:
        check_scorable(cell.evaluate_against or cell.data, cell.classes)
        numbers = train(cell, run, setting)
        # A copy of its own, for another cell may go on with the run.
        workflows.export(run, generator, overwrite=True)
        write(
            folder / TRAINED, json.dumps({"trained_as": trained_as, "numbers": numbers}, indent=1)
        )
    numbers |= score(str(generator), cell.evaluate_against or cell.data, cell, setting)
    return numbers | score_also(str(generator), cell, setting)


def train(cell: Cell, run: Path, setting: Setting) -> dict:
    """Train a cell's recipe in a run, or go on with it; return what its log says at the end."""
    import keras

    from keras_cxrgan import workflows

    keras.utils.clear_session()  # many networks in one process
    trained = workflows.train(
        cell.recipe,
        run,
        data=cell.data,
        classes=cell.classes,
        extend=bool(cell.run),
        report=setting.report,
    )
    if trained.interrupted:
        raise Stopped(f"stopped in {run}; the same command goes on from there")
    step = cell.recipe.batch_size * cell.recipe.critic_steps
    if trained.images_seen >= cell.recipe.total_images(trained.images) + step:
        raise ValueError(
            f"{run} is trained for {trained.epochs:g} epochs already, and this cell is of"
            f" {cell.recipe.total_images(trained.images) / trained.images:g}: choose another --out"
        )
    return {
        "run": run.name,
        "films": trained.images,
        "epochs": trained.epochs,
        "images_seen": trained.images_seen,
        "generator_updates": trained.steps // cell.recipe.accumulation,
        "seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        **trained.metrics,
    }


def score(generator: str, real: str, cell: Cell, setting: Setting) -> dict:
    """Return the scores of a run or an export against films prepared as for its training."""
    from keras_cxrgan import workflows

    result = workflows.evaluate(
        real,
        [generator],
        features=(setting.features,),
        classes=cell.classes,
        count=cell.generate or None,
        draws=cell.draws,
        seed=cell.recipe.seed,
        references=False,
        report_progress=setting.report,
        **setting.score_options,
    )
    return flat_scores(result)


def score_also(generator: str, cell: Cell, setting: Setting) -> dict:
    """Return the scores against the second films, as many images as these; {} where none are."""
    if not cell.also_against:
        return {}
    as_many = dataclasses.replace(cell, generate=0)
    found = score(generator, cell.also_against, as_many, setting)
    return {f"also_{name}": value for name, value in found.items()}


def finished(setting: Setting, name: str) -> dict | None:
    """Return the numbers of a complete cell by name, or None."""
    return _read(setting.out / name / CELL) or None


def completed(cell: Cell, setting: Setting) -> dict | None:
    """Return the numbers of a cell if it is complete and was made with these settings, or None."""
    earlier = finished(setting, cell.name)
    if earlier and earlier.get("decides") == _hash(_decides(cell, setting)):
        return earlier
    return None


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def check(setting: Setting) -> None:
    """Raise `ValueError` for what a user can mend before the first step."""
    if setting.out.exists() and not setting.out.is_dir():
        raise ValueError(f"--out {setting.out} is a file; name a folder")
    if not setting.seeds or len(set(setting.seeds)) < len(setting.seeds):
        raise ValueError(f"--seeds must be different whole numbers, got {setting.seeds}")
    check_fields(setting.recipe_changes)
    for seed in setting.seeds:
        setting.recipe(seed=seed)
    if setting.data and setting.experiment.divides:
        count_classes(setting.data, ALL)  # films to test on are films, too
    elif setting.data:
        setting.trained_on()


def _training(cell: Cell, setting: Setting) -> list:
    """Return what decides the training of a cell."""
    # Not every field: one that later versions add, at its default, decides nothing.
    chosen = cell.recipe.difference(Recipe())
    return [
        {name: ours for name, (ours, _) in sorted(chosen.items())},
        [_place(cell.data, setting), _films(cell.data)],
        list(cell.classes),
        cell.run,
        cell.work and cell.work.__name__,
    ]


def _decides(cell: Cell, setting: Setting) -> list:
    """Return what decides the numbers of a cell."""
    sources = (cell.evaluate_against, cell.also_against)
    options = {name: str(value) for name, value in setting.score_options.items()}
    return [
        _training(cell, setting),
        [[_place(source, setting), _films(source)] for source in sources],
        [cell.generate, setting.features, options],
        *([dict(cell.options)] if cell.options else []),
        *([{"draws": cell.draws}] if cell.draws > 1 else []),
    ]


def _hash(decides: list) -> str:
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _place(source: str | None, setting: Setting) -> str | None:
    # What the experiment itself wrote moves with its folder.
    if source and Path(source).is_relative_to(setting.out):
        return str(Path(source).relative_to(setting.out))
    return source


def _films(source: str | None) -> str:
    """Return a hash of what films a source has now, and of which class; "" where there are none."""
    if source is None or not Path(named_split(source)[0]).exists():
        return ""
    every = None if named_split(source)[1] else ALL
    try:
        records = read_source(source, split=every, allow_leak=True)[0].records
        places = {record.archive or record.path for record in records}
        found = ((place, os.stat(place)) for place in sorted(places))
        stamps = tuple((place, each.st_mtime_ns, each.st_size) for place, each in found)
        return _contents(records, stamps)
    except (OSError, ValueError):
        return ""  # the training says what is wrong with them


@functools.lru_cache(maxsize=32)
def _contents(records: tuple[Record, ...], stamps: tuple) -> str:
    return fingerprint(f"{content_hash(record.read())} {record.label}" for record in records)


def _one_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _say(setting: Setting, text: str) -> None:
    if setting.report:
        setting.report("", 0, 0, text)


def command(experiment: Experiment, cells, present=None):
    """Return the click command of an experiment: `main = command(EXPERIMENT, cells, present)`."""
    import click

    from keras_cxrgan.terminal import Progress, quiet_tensorflow

    @click.command(
        name=experiment.name,
        help=experiment.citation
        + (f"\n\nThe paper's films: {experiment.data}." if experiment.data else ""),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    @click.option("--data", type=click.Path(), help="Folder of films.  [default: phantom films]")
    @click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME",
        help=f"Class to train on; repeatable.  [default: {', '.join(experiment.classes) or 'all'}]",
    )
    @click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path("runs") / experiment.name,
        show_default=True,
        help="Folder for runs, tables and figures; the same one goes on where it stopped.",
    )
    @click.option(
        "--scale",
        type=click.Choice(SCALES),
        default="smoke",
        show_default=True,
        help="Two minutes, an hour on two CPU cores, or as published.",
    )
    @click.option("--seeds", default="0", show_default=True, help="Separated by commas.")
    @click.option(
        "--features", default="cxr", show_default=True, help="Extractor, as of cxrgan evaluate."
    )
    @click.option(
        "--held-out",
        type=click.Path(),
        hidden=not experiment.holds_out,
        help="Films of other patients, never trained on: scored against too.",
    )
    @click.option("--weights", type=click.Path(), help="File with the extractor's weights.")
    @click.option("--only", multiple=True, metavar="ROW", help="Row to run; repeatable.")
    @click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Of every recipe.")
    @click.option("--json", "as_json", is_flag=True, help="Print results.json and nothing else.")
    def main(data, classes, out, scale, seeds, features, held_out, weights, only, changes, as_json):
        if held_out and not (experiment.holds_out and data):
            needed = "films to train on (--data)" if experiment.holds_out else "another experiment"
            raise click.UsageError(f"--held-out would change nothing here: it needs {needed}")
        with quiet_tensorflow():
            from keras_cxrgan.training import runtime  # noqa: F401
        try:
            with Progress() as progress:
                setting = Setting(
                    experiment,
                    out,
                    scale,
                    data,
                    classes,
                    parse_seeds(seeds),
                    features,
                    {"weights": {features: weights}} if weights else {},
                    parse_changes(changes),
                    progress,
                    only,
                    held_out,
                )
                written = reproduce(setting, cells, present)
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            raise SystemExit(130) from None
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from None
        page, numbers = out / RESULTS[1], out / RESULTS[0]
        click.echo(numbers.read_text() if as_json else page.read_text(), nl=False)
        if not as_json:
            click.echo(f"\n{page}\n{numbers}")
        if written["failed"]:
            raise click.ClickException(f"failed: {', '.join(written['failed'])} (see {page})")

    return main


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return "0,1,2" as (0, 1, 2)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--seeds needs whole numbers such as 0,1,2, got {text!r}") from None


def parse_changes(texts: Iterable[str]) -> dict[str, str]:
    """Return ("width=8", ...) as {"width": "8", ...}."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"--set needs FIELD=VALUE, got {wrong[0]!r}")
    return {name.strip().replace("-", "_"): value for name, _, value in pairs}
