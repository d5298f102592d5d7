"""`cxrgan generate`, `export`, `figure` and `phantom`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_cxrgan.cli.base import (
    allow_leak_option,
    json_option,
    main,
    overwrite_option,
    verbose_option,
)
from keras_cxrgan.terminal import Progress, describe_best, quiet_tensorflow, table

best_option = click.option(
    "--best",
    is_flag=True,
    help="The checkpoint that scored best (train --evaluate-every), not the newest state.",
)


@main.command()
@click.argument("source", type=click.Path())
@click.option("-n", "--count", type=int, help="Number of images.  [default: 64]")
@click.option(
    "--class",
    "counts",
    multiple=True,
    metavar="NAME=COUNT",
    help="So many of a class, into OUT/NAME/; repeatable. For a generator trained with --set"
    " conditional=true; without this it makes each class in its share of the films.",
)
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
@best_option
@click.option(
    "--held-out",
    metavar="DATA",
    help="Films that a classifier will be tested on (manifest.csv:test): refuse a run that was"
    " trained on any of them.",
)
@click.option(
    "--without-copies-of",
    metavar="DATA",
    help="The films it was trained on: leave out each image that lies as near to one of them as a"
    " copy would, as cxrgan audit measures it, and make another.",
)
@allow_leak_option
@overwrite_option
@json_option
@verbose_option
def generate(
    source, count, counts, out, seed, grid, truncation, best, held_out, without_copies_of,
    allow_leak, overwrite, as_json, verbose,
):  # fmt: skip
    """Make images with a run or an export.

    \b
    cxrgan generate runs/default-phantom -n 1000 --out images/
    cxrgan generate exported/ -n 16 --out few/ --seed 7 --grid
    cxrgan generate runs/all --class COVID=500 --class NORMAL=100 --out fakes/
    cxrgan generate runs/a-fold -n 500 --out fakes/ --held-out manifest.csv:test
    cxrgan generate runs/a-run -n 500 --out fakes/ --without-copies-of films/
    """
    classes = _read_counts(counts)
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    with Progress() as progress:
        result = workflows.generate(
            source,
            out,
            count,
            classes=classes,
            seed=seed,
            grid=grid,
            truncation=truncation,
            overwrite=overwrite,
            best=best,
            held_out=held_out,
            allow_leak=allow_leak,
            without_copies_of=without_copies_of,
            report=progress,
        )
    for leak in result["leaks"]:
        click.echo(f"LEAK ALLOWED: {leak}", err=True)
    for warning in result["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    rows = [
        ("images", f"{result['images']:,} in {result['out']}"),
        ("manifest", result["manifest"]),
    ]
    if result["classes"]:
        made = ", ".join(f"{name} {number:,}" for name, number in result["classes"].items())
        rows.insert(1, ("classes", made))
    if without_copies_of:
        rows.append(("left out", _describe_left_out(result["left_out"])))
    rows += [("grid", result["grid"])] if result["grid"] else []
    rows += [("checkpoint", describe_best(result["selection"]))] if result["selection"] else []
    click.echo("\n" + table(rows))


def _describe_left_out(names: list[str]) -> str:
    if not names:
        return "none: no image was as near to a film as a copy"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names):,} as near to a film as a copy: {', '.join(names[:5])}{more}"


def _read_counts(texts) -> dict[str, int]:
    counts = {}
    for text in texts:
        name, _, number = text.rpartition("=")  # a class may have a = in its name
        if not name or not number.strip().lstrip("-").isdecimal():
            raise click.BadParameter(
                f"{text!r} must be NAME=COUNT, such as --class COVID=100",
                param_hint="--class",
            )
        if name in counts:
            raise click.BadParameter(f"{name} is given twice", param_hint="--class")
        counts[name] = int(number)
    return counts


@main.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="Folder.  [default: RUN/export, or RUN/export-best]")
@best_option
@click.option("--overwrite", is_flag=True, help="Replace an export that is there.")
@json_option
@verbose_option
def export(run, out, best, overwrite, as_json, verbose):
    """Write a run's generator as SavedModel, .keras file and JSON card."""
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    folder = workflows.export(run, out, overwrite=overwrite, best=best)
    if as_json:
        click.echo((folder / "card.json").read_text(), nl=False)
        return
    rows = [
        ("TensorFlow alone", str(folder / "saved_model")),
        ("Keras", str(folder / "generator.keras")),
        ("card", str(folder / "card.json")),
    ]
    selection = json.loads((folder / "card.json").read_text())["selection"]
    rows += [("checkpoint", describe_best(selection))] if selection else []
    click.echo(table(rows))


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--out", type=click.Path(), required=True, help="PNG file.")
@click.option(
    "--columns", type=click.IntRange(1, 64), default=10, show_default=True, help="Images in a row."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the generated images.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@verbose_option
def figure(runs, out, columns, seed, overwrite, verbose):
    """Draw real images above generated ones, a band for each run.

    \b
    cxrgan figure runs/venu2020-NORMAL runs/default-NORMAL --out figure.png
    """
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
    path = workflows.figure(list(runs), out, columns=columns, seed=seed, overwrite=overwrite)
    click.echo(table([("figure", str(path))]))


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
@overwrite_option
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
