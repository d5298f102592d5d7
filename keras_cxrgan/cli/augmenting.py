"""`cxrgan augment`."""

from __future__ import annotations

import json

import click

from keras_cxrgan.cli.base import (
    allow_leak_option,
    json_option,
    layout_option,
    main,
    on_bad_file_option,
    overwrite_option,
    read_settings,
    verbose_option,
)
from keras_cxrgan.terminal import Progress, paragraphs, quiet_tensorflow, table


@main.command("augment")
@click.argument("data", type=click.Path())
@click.option(
    "-n", "--count", type=int, default=1000, show_default=True, help="Augmented films a class."
)
@click.option("--out", type=click.Path(), required=True, help="Folder for films and films.csv.")
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Only this class; repeatable."
)
@click.option("--split", metavar="NAME", help="Of a manifest or a set with splits: its films.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Film i of a class is fixed by it and i."
)
@click.option("--flip", is_flag=True, help="Mirror some; this puts the heart on the other side.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="RANGE=VALUE",
    help="rotation=5 (degrees), scale=0.9,1.1, translation=0.1, crop=1 (least share kept),"
    " brightness=0.5, contrast=0.5, probability=0.5 (of each); repeatable.",
)
@click.option("--image-size", type=int, help="Pixels of the files.  [default: as the films are]")
@click.option("--originals/--no-originals", default=True, help="Also write the films themselves.")
@layout_option
@on_bad_file_option
@allow_leak_option
@overwrite_option
@json_option
@verbose_option
def augment_command(
    data, count, out, classes, split, seed, flip, changes, image_size, originals, layout,
    on_bad_file, allow_leak, overwrite, as_json, verbose,
):  # fmt: skip
    """Turn, shift, scale and expose the films of DATA differently: classic augmentation.

    Copies stay with their film's patient, and films for judging are refused. The table that is
    written is then the data of a training.

    \b
    cxrgan augment chest_xray/train --count 1000 --out augmented/
    cxrgan augment manifest.csv --split train --class COVID --count 500 --out covid/
    cxrgan train --data augmented/films.csv --class COVID
    """
    # Only sets of tensorflow-datasets are read by TensorFlow.
    with quiet_tensorflow(verbose, needed=data.startswith("tfds:")):
        from keras_cxrgan.data.augmentation import ClassicAugmentation
        from keras_cxrgan.workflows.augmenting import augment_films
    given = {"flip": True} if flip else {}
    settings = ClassicAugmentation().override(**given, **read_settings(changes, given))
    with Progress() as progress:
        result = augment_films(
            data,
            out,
            count,
            classes=classes,
            split=split,
            layout=layout,
            seed=seed,
            settings=settings,
            image_size=image_size,
            keep_originals=originals,
            allow_leak=allow_leak,
            on_bad_file=on_bad_file,
            overwrite=overwrite,
            report_progress=progress,
        )
    for leak in result["leaks"]:
        click.echo(f"LEAK ALLOWED: {leak}", err=True)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    counts = ", ".join(f"{label or 'no class'} {n:,}" for label, n in result["images"].items())
    rows = [("films", f"{result['films']:,}"), ("written", counts), ("table", result["table"])]
    text = table(rows)
    if result["warnings"]:
        text += "\n\n" + paragraphs("Warnings", result["warnings"])
    click.echo("\n" + text)
