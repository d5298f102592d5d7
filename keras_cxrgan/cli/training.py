"""`cxrgan train`, `recipes` and `benchmark`."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path

import click

from keras_cxrgan.cli.base import (
    allow_leak_option,
    json_option,
    layout_option,
    main,
    on_bad_file_option,
    read_settings,
    recipe_name_option,
    recipe_option,
    set_option,
    short_name,
    verbose_option,
)
from keras_cxrgan.fields import meanings, spell
from keras_cxrgan.recipe import FEW_FILMS, FILMS_FOR_LONG, RECIPES, Recipe
from keras_cxrgan.rules import check_effect
from keras_cxrgan.terminal import Progress, quiet_tensorflow, summarize_run, table


@main.command()
@click.option(
    "--data",
    type=click.Path(),
    help="Folder or zip of PNG, JPEG and DICOM films (flat, or a folder a class), a public set as"
    " downloaded, a manifest or other CSV, or tfds:NAME.  [default: the built-in chest phantom]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Use this class only; repeatable.",
)
@click.option("--split", metavar="NAME", help="Split of a manifest, or of a set that has splits.")
@layout_option
@recipe_name_option(None)
@click.option("--out", type=click.Path(), help="Run directory.  [default: runs/RECIPE-DATA]")
@recipe_option("image_size", "--image-size", "Pixels along one side: 32, 64, ... 2048.")
@recipe_option("batch_size", "--batch-size", "Images in one update.")
@recipe_option("epochs", "--epochs", "Passes over the images.")
@recipe_option("fit", "--fit", "How a film becomes square.")
@recipe_option("window", "--window", "Levels BLACK,WHITE of 16-bit PNG; else by percentile.")
@recipe_option("clahe_clip_limit", "--clahe", "CLAHE clip limit; 2 is usual, 0 is none.")
@recipe_option("precision", "--precision", "Number format inside the networks.")
@recipe_option("seed", "--seed", "Decides initial weights, noise and order of images.")
@recipe_option(
    "evaluate_interval",
    "--evaluate-every",
    "Images seen between evaluations, which keep the best checkpoint; 0 is never.",
)
@recipe_option("evaluate_metric", "--evaluate-metric", "The score that chooses the best one.")
@set_option
@on_bad_file_option
@allow_leak_option
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="auto, cpu, cpu:2 (two logical devices), gpu, gpu:0,1, or multiworker (TF_CONFIG).",
)
@click.option(
    "--deterministic", is_flag=True, help="The same weights bit for bit on the same machine."
)
@click.option(
    "--extend", is_flag=True, help="Train an existing run for longer (with a larger --epochs)."
)
@click.option(
    "--worker-timeout",
    type=click.FloatRange(1, 86400),
    default=120.0,
    show_default=True,
    help="Seconds to wait for the other workers.",
)
@click.option(
    "--memory-budget",
    type=click.FloatRange(0, 2**20),
    default=2.0,
    show_default=True,
    help="GiB of prepared images kept in memory; more go to a file in the run.",
)
@click.option(
    "--start-from",
    type=click.Path(),
    metavar="RUN",
    help="Begin with what another run of the same networks has learnt, of other films perhaps.",
)
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop.")
@json_option
@verbose_option
def train(
    data, classes, split, layout, recipe_name, out, settings, on_bad_file, allow_leak, devices,
    deterministic, extend, worker_timeout, memory_budget, start_from, dry_run, as_json, verbose,
    **fields,
):  # fmt: skip
    """Train a GAN; the same command again goes on where it stopped.

    \b
    cxrgan train                                        the built-in phantom
    cxrgan train --data films/ --class NORMAL           your own images
    cxrgan train --data manifest.csv --split train      after cxrgan split
    cxrgan train --data films.zip --recipe venu2020     a paper's networks
    cxrgan train --data films/ --set width=64 --set ema_half_life=5000
    cxrgan train --data films/ --evaluate-every 20000   and keep the best checkpoint
    """
    fields = {name: value for name, value in fields.items() if value is not None}
    fields |= read_settings(settings, fields)
    if recipe_name is None:
        with quiet_tensorflow(verbose, needed=str(data).startswith("tfds:")):
            from keras_cxrgan.workflows.choosing import choose_recipe
        recipe_name, films = choose_recipe(data, classes, split, layout, allow_leak)
        if not (dry_run or as_json):
            click.echo(_describe_choice(recipe_name, films), err=True)
    if {"epochs", "training_images"} <= {*fields}:
        raise click.UsageError("epochs and training_images say the same thing: give one of them")
    recipe = Recipe.load(recipe_name).override(**fields)
    check_effect([recipe], fields)
    out = out or str(Path("runs") / f"{Path(recipe_name).stem}-{_data_name(data, classes, split)}")
    if dry_run:
        click.echo(recipe.to_json(), nl=False)
        return
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
        from keras_cxrgan.workflows.screening import films_to_screen
    with Progress() as progress:
        result = workflows.train(
            recipe,
            out,
            data=data,
            classes=classes,
            split=split,
            layout=layout,
            allow_leak=allow_leak,
            on_bad_file=on_bad_file,
            devices=devices,
            deterministic=deterministic,
            worker_timeout=worker_timeout,
            extend=extend,
            memory_budget=int(memory_budget * 2**30),
            start_from=start_from,
            report=progress,
        )
    for note in result.notes:
        click.echo(f"Note: {note}", err=True)
    if result.rejected:
        click.echo(f"{len(result.rejected)} files could not be read and were left out:", err=True)
        for name, reason in result.rejected:
            click.echo(f"  {name}: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        films = None if allow_leak else films_to_screen(data, split, layout, result.images)
        click.echo(summarize_run(result, films))
    if result.state == "stopped":
        click.echo("Stopped. The same command goes on from here.", err=True)
        sys.exit(128 + (signal.SIGTERM if "SIGTERM" in str(result.notes) else signal.SIGINT))


def _describe_choice(recipe_name: str, films: int | None) -> str:
    if films is None or not FILMS_FOR_LONG <= films < FEW_FILMS:
        return f"recipe {recipe_name} (--recipe names another)"
    return (
        f"recipe {recipe_name} for {films:,} films (--recipe small_data_long takes five times as"
        " long and comes nearer to so many)"
    )


def _data_name(data, classes, split) -> str:
    name = "phantom" if data is None else short_name(data)
    return "-".join([name, *([split] if split else []), *classes])


@main.command()
@click.argument("name", required=False)
@json_option
def recipes(name, as_json):
    """List the recipes, or show every field of one and what it means.

    \b
    cxrgan recipes small_data
    cxrgan recipes small_data --json > mine.json    # to edit, for --recipe mine.json
    """
    if name and as_json:
        click.echo(Recipe.load(name).to_json(), nl=False)
    elif name:
        click.echo(describe(Recipe.load(name)))
    elif as_json:
        click.echo(
            json.dumps(
                {key: dataclasses.asdict(recipe) for key, recipe in RECIPES.items()}, indent=2
            )
        )
    else:
        click.echo(table([(key, recipe.summary) for key, recipe in RECIPES.items()]))
        click.echo("\ncxrgan recipes NAME shows its fields; cxrgan train --recipe NAME trains it.")


def describe(recipe: Recipe) -> str:
    """Return every field of a recipe with its value and its meaning, by section."""
    changed = recipe.difference(Recipe())
    sections = meanings(Recipe)
    fields = [name for section in sections.values() for name in section]
    names = max(map(len, fields))
    values = max(len(spell(getattr(recipe, name))) for name in fields)
    lines = [f"{recipe.name}: {recipe.summary}", "* is not the default"]
    for title, section in sections.items():
        lines += ["", title]
        for name, meaning in section.items():
            mark, value = "*" if name in changed else " ", spell(getattr(recipe, name))
            lines.append(f"{mark} {name:<{names}}  {value:<{values}}  {meaning}")
    return "\n".join([*lines, "", "cxrgan train --set FIELD=VALUE changes one."])


@main.command()
@recipe_name_option()
@set_option
@click.option(
    "--steps", type=click.IntRange(1), default=20, show_default=True, help="Measured steps."
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Fresh processes, one after another.",
)
@json_option
def benchmark(recipe_name, settings, steps, processes, as_json):
    """Measure images/s and memory of a recipe's training step."""
    from keras_cxrgan.benchmark import benchmark as run_benchmark

    fields = read_settings(settings, {})
    recipe = Recipe.load(recipe_name).override(**fields)
    check_effect([recipe], fields)
    with Progress() as progress:
        results = run_benchmark(recipe, steps=steps, processes=processes, report=progress)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    explained = {
        "fit": "images/s with fit",
        "loop": "images/s in a bare loop",
        "fit_over_loop": "fit / bare loop",
        "plain_layers": "images/s of plain layers",
        "fused_over_plain": "fused / plain layers",
        "peak_mib": "peak memory, MiB",
    }
    rows = [
        (text, "  ".join(f"{result[key]:8.2f}" for result in results))
        for key, text in explained.items()
        if key in results[0]
    ]
    click.echo(f"\n{recipe.name}: one column a process")
    click.echo(table(rows))
