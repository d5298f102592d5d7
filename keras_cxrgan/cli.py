"""The `cxrgan` command: thin click commands over workflows.py. Heavy imports happen inside them."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path

import click

from keras_cxrgan import __version__
from keras_cxrgan.recipe import CHOICES, RECIPES, Recipe
from keras_cxrgan.terminal import Progress, quiet_tensorflow, summarize_run, table


class Command(click.Command):
    """A command whose `ValueError`s are messages to the user, not tracebacks."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            place = f" {error.filename}" if error.filename else ""
            raise click.ClickException(f"cannot use{place}: {error.strerror or error}") from error


class Group(click.Group):
    command_class = Command


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: cxrgan train    (it needs nothing else and takes a few minutes)",
)
@click.version_option(__version__, prog_name="cxrgan")
def main():
    """Train GANs on chest X-rays, make images with them, and export them.

    Synthetic images are for research; they are not for diagnosis.
    """


def _recipe_option(field: str, flag: str, help: str):
    """An option that changes one recipe field; its default is the recipe's."""
    kind = {"int": int, "float": float, "str": str}[Recipe.__dataclass_fields__[field].type]
    return click.option(
        flag,
        field,
        type=click.Choice(CHOICES[field]) if field in CHOICES else kind,
        default=None,
        help=f"{help}  [default: the recipe's]",
    )


_recipe_name_option = click.option(
    "--recipe",
    "recipe_name",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="A recipe by name (cxrgan recipes) or a JSON file.",
)
_set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change any recipe field; repeatable.",
)
_overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Write into a folder that already holds files."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show the messages of TensorFlow too."
)


@main.command()
@click.option(
    "--data",
    type=click.Path(),
    help="Folder or zip of PNG and JPEG films: flat, or a folder a class.  [default: the built-in"
    " chest phantom]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Use this class folder only; repeatable.",
)
@_recipe_name_option
@click.option("--out", type=click.Path(), help="Run directory.  [default: runs/RECIPE-DATA]")
@_recipe_option("image_size", "--image-size", "Pixels along one side: 32, 64, ... 1024.")
@_recipe_option("batch_size", "--batch-size", "Images in one update.")
@_recipe_option("epochs", "--epochs", "Passes over the images.")
@_recipe_option("fit", "--fit", "How a film becomes square.")
@_recipe_option("clahe_clip_limit", "--clahe", "CLAHE clip limit; 2 is usual, 0 is none.")
@_recipe_option("precision", "--precision", "Number format inside the networks.")
@_recipe_option("seed", "--seed", "Decides initial weights, noise and order of images.")
@_set_option
@click.option(
    "--on-bad-file",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do about films that cannot be read.",
)
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
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop.")
@_json_option
@_verbose_option
def train(
    data, classes, recipe_name, out, settings, on_bad_file, devices, deterministic, extend,
    worker_timeout, memory_budget, dry_run, as_json, verbose, **fields,
):  # fmt: skip
    """Train a GAN; the same command again goes on where it stopped.

    \b
    cxrgan train                                        the built-in phantom
    cxrgan train --data films/ --class NORMAL           your own images
    cxrgan train --data films.zip --recipe venu2020     a paper's networks
    cxrgan train --data films/ --set width=64 --set ema_half_life=5000
    """
    fields = {name: value for name, value in fields.items() if value is not None}
    recipe = Recipe.load(recipe_name).override(**_settings(settings, fields), **fields)
    out = out or str(Path("runs") / f"{Path(recipe_name).stem}-{_data_name(data, classes)}")
    if dry_run:
        click.echo(recipe.to_json(), nl=False)
        return
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    with Progress() as progress:
        result = workflows.train(
            recipe,
            out,
            data=data,
            classes=classes,
            on_bad_file=on_bad_file,
            devices=devices,
            deterministic=deterministic,
            worker_timeout=worker_timeout,
            extend=extend,
            memory_budget=int(memory_budget * 2**30),
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
        click.echo(summarize_run(result))
    if result.state == "stopped":
        click.echo("Stopped. The same command goes on from here.", err=True)
        sys.exit(128 + (signal.SIGTERM if "SIGTERM" in str(result.notes) else signal.SIGINT))


def _settings(settings, given) -> dict:
    """Read FIELD=VALUE texts; a field that `given` options name already is refused."""
    fields = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(
                f"{setting!r} must be FIELD=VALUE, such as --set width=64", param_hint="--set"
            )
        name = name.strip()
        if name in given:
            raise click.BadParameter(
                f"{name} is given twice: also as --{name.replace('_', '-')}", param_hint="--set"
            )
        fields[name] = value.strip()
    return fields


def _data_name(data, classes) -> str:
    if data is None:
        return "-".join(["phantom", *classes])
    return "-".join([Path(data).resolve().stem, *classes])


@main.command()
@click.argument("source", type=click.Path())
@click.option("-n", "--count", type=int, default=64, show_default=True, help="Number of images.")
@click.option(
    "--out", type=click.Path(), required=True, help="Folder for PNG files and manifest.csv."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Image i is fixed by the seed and i."
)
@click.option("--grid", is_flag=True, help="Also write grid.png with the first 64 images.")
@click.option(
    "--truncation",
    type=float,
    help="Keep latents within this distance of 0: fewer odd images, less variety.",
)
@_overwrite_option
@_json_option
@_verbose_option
def generate(source, count, out, seed, grid, truncation, overwrite, as_json, verbose):
    """Make images with a run or an export.

    \b
    cxrgan generate runs/default-phantom -n 1000 --out images/
    cxrgan generate exported/ -n 16 --out few/ --seed 7 --grid
    """
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    with Progress() as progress:
        result = workflows.generate(
            source,
            out,
            count,
            seed=seed,
            grid=grid,
            truncation=truncation,
            overwrite=overwrite,
            report=progress,
        )
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    rows = [
        ("images", f"{result['images']:,} in {result['out']}"),
        ("manifest", result["manifest"]),
    ]
    rows += [("grid", result["grid"])] if result["grid"] else []
    click.echo("\n" + table(rows))


@main.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="Folder.  [default: RUN/export]")
@click.option("--overwrite", is_flag=True, help="Replace an export that is there.")
@_json_option
@_verbose_option
def export(run, out, overwrite, as_json, verbose):
    """Write a run's generator as SavedModel, .keras file and JSON card."""
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    folder = workflows.export(run, out, overwrite=overwrite)
    if as_json:
        click.echo((folder / "card.json").read_text(), nl=False)
        return
    click.echo(
        table(
            [
                ("TensorFlow alone", str(folder / "saved_model")),
                ("Keras", str(folder / "generator.keras")),
                ("card", str(folder / "card.json")),
            ]
        )
    )


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--out", type=click.Path(), required=True, help="PNG file.")
@click.option(
    "--columns", type=click.IntRange(1, 64), default=10, show_default=True, help="Images in a row."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the generated images.")
@_verbose_option
def figure(runs, out, columns, seed, verbose):
    """Draw real images above generated ones, a band for each run.

    \b
    cxrgan figure runs/venu2020-NORMAL runs/default-NORMAL --out figure.png
    """
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    click.echo(
        table([("figure", str(workflows.figure(list(runs), out, columns=columns, seed=seed)))])
    )


@main.command()
@_recipe_name_option
@_set_option
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
@_json_option
def benchmark(recipe_name, settings, steps, processes, as_json):
    """Measure images/s and memory of a recipe's training step."""
    from keras_cxrgan.benchmark import benchmark as run_benchmark

    recipe = Recipe.load(recipe_name).override(**_settings(settings, {}))
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


@main.command()
@click.argument("name", required=False)
@_json_option
def recipes(name, as_json):
    """List the recipes, or show every field of one."""
    if name:
        click.echo(Recipe.load(name).to_json(), nl=False)
    elif as_json:
        click.echo(
            json.dumps(
                {key: dataclasses.asdict(recipe) for key, recipe in RECIPES.items()}, indent=2
            )
        )
    else:
        click.echo(table([(key, recipe.summary) for key, recipe in RECIPES.items()]))
        click.echo("\ncxrgan recipes NAME shows its fields; cxrgan train --recipe NAME trains it.")


@main.command()
@click.argument("out", type=click.Path())
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Number of images.",
)
@click.option("--image-size", type=int, default=256, show_default=True, help="Pixels, 32 to 2048.")
@click.option(
    "--class",
    "labels",
    multiple=True,
    default=("normal",),
    show_default=True,
    help="normal, pneumonia or covid; repeatable.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Image i is fixed by the seed and i."
)
@_overwrite_option
def phantom(out, count, image_size, labels, seed, overwrite):
    """Write images of the digital chest phantom, a folder a class."""
    from keras_cxrgan.data.images import write_png
    from keras_cxrgan.data.phantom import phantoms

    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(
            f"{folder} already holds files; choose another folder, or pass --overwrite"
        )
    with Progress() as progress:
        for index in range(count):
            images, names = phantoms(1, image_size, labels=labels, seed=seed, start=index)
            place = folder / names[0]
            place.mkdir(parents=True, exist_ok=True)
            write_png(place / f"{index:05d}.png", images[0])
            progress("phantom", index + 1, count)
    click.echo(table([("images", f"{count:,} in {folder}")]))
