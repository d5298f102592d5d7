"""`cxrgan inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_cxrgan.cli.base import (
    json_option,
    layout_option,
    main,
    overwrite_option,
    short_name,
    verbose_option,
)
from keras_cxrgan.terminal import Progress, grid, paragraphs, quiet_tensorflow, table


@main.command("inspect")
@click.argument("data", type=click.Path())
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Class of DATA; repeatable."
)
@layout_option
@click.option(
    "--out", type=click.Path(), help="Folder for the report.  [default: inspections/DATA]"
)
@click.option(
    "--workers", type=click.IntRange(1), help="Threads that read files.  [default: all cores]"
)
@click.option("--strict", is_flag=True, help="Exit with code 1 when there are problems.")
@overwrite_option
@json_option
@verbose_option
def inspect_command(data, classes, layout, out, workers, strict, overwrite, as_json, verbose):
    """Look at the films before training: counts, copies, suspects, shortcuts.

    DATA is a folder or zip of films, a public set as downloaded, a manifest or other CSV,
    tfds:NAME, or a run, for the films it was trained on. Every file is read once. Problems are
    unreadable files, duplicates across classes or splits, patients in several splits, and a class
    that can be told without looking at the film.

    \b
    cxrgan inspect chest_xray/
    cxrgan inspect films.zip --class NORMAL --strict
    """
    out = out or str(Path("inspections") / "-".join([short_name(data), *classes]))
    # Only sets of tensorflow-datasets are read by TensorFlow.
    with quiet_tensorflow(verbose, needed=data.startswith("tfds:")):
        from keras_cxrgan.workflows import inspecting
    with Progress() as progress:
        result = inspecting.inspect(
            data,
            out=out,
            classes=classes,
            layout=layout,
            workers=workers,
            overwrite=overwrite,
            report_progress=progress,
        )
    if as_json:
        click.echo((Path(out) / inspecting.FILE).read_text(encoding="utf-8"), nl=False)
    else:
        for made in inspecting.tables(result):
            click.echo("\n" + grid(made.title, made.header, made.rows, made.note))
        for title in ("read_as", "findings", "warnings", "problems"):
            if result[title]:
                click.echo("\n" + paragraphs(title.replace("_", " ").capitalize(), result[title]))
        files = [("report", "inspection.md"), ("films", "contact_sheet.png")]
        click.echo("\n" + table([(name, str(Path(out) / file)) for name, file in files]))
    if strict and result["problems"]:
        raise click.exceptions.Exit(1)
