"""`cxrgan split`."""

from __future__ import annotations

import json

import click

from keras_cxrgan.cli.base import (
    json_option,
    layout_option,
    main,
    on_bad_file_option,
    verbose_option,
)
from keras_cxrgan.terminal import Progress, grid, paragraphs, quiet_tensorflow, table

DEFAULT_FRACTIONS = "train=0.7,val=0.15,test=0.15"


@main.command("split")
@click.argument("data", type=click.Path())
@click.option("--out", type=click.Path(), required=True, help="CSV file of the manifest.")
@click.option(
    "--fractions",
    metavar="NAME=SHARE,...",
    help=f"The splits and their shares of the files.  [default: {DEFAULT_FRACTIONS}]",
)
@click.option("--folds", type=int, help="Equal folds fold0, fold1, ... in place of --fractions.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed, same split.")
@click.option(
    "--patient-regex",
    metavar="REGEX",
    help="One group that finds the patient in a file's name; it goes before all else.",
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Only this class; repeatable."
)
@layout_option
@on_bad_file_option
@click.option("--overwrite", is_flag=True, help="Replace a manifest that is there.")
@json_option
@verbose_option
def split_command(
    data, out, fractions, folds, seed, patient_regex, classes, layout, on_bad_file, overwrite,
    as_json, verbose,
):  # fmt: skip
    """Split the films of DATA by patient, without leaks, into a manifest.

    DATA is a folder or zip of films, a public set as downloaded, a CSV that lists films, or
    tfds:NAME. Films of one patient, and copies and near copies of one film, stay on one side;
    classes are balanced. The manifest is then what every command takes as its data.

    \b
    cxrgan split chest_xray/ --out manifest.csv
    cxrgan split films/ --out folds.csv --folds 5 --patient-regex "person(\\d+)_"
    cxrgan train --data manifest.csv --split train
    """
    if fractions and folds is not None:
        raise click.UsageError("give --fractions or --folds, not both")
    shares = read_fractions(fractions or DEFAULT_FRACTIONS)
    # Only sets of tensorflow-datasets are read by TensorFlow.
    with quiet_tensorflow(verbose, needed=data.startswith("tfds:")):
        from keras_cxrgan.workflows.splitting import split
    with Progress() as progress:
        result = split(
            data,
            out,
            classes=classes,
            layout=layout,
            fractions=shares,
            folds=folds,
            seed=seed,
            patient_regex=patient_regex,
            on_bad_file=on_bad_file,
            overwrite=overwrite,
            report_progress=progress,
        )
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo("\n" + summarize_split(result))


def read_fractions(text: str) -> dict[str, float]:
    """Read `train=0.7,test=0.3`."""
    shares = {}
    for part in text.split(","):
        name, _, share = (side.strip() for side in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            raise click.BadParameter(
                f"{part!r} must be NAME=SHARE, such as {DEFAULT_FRACTIONS}",
                param_hint="--fractions",
            ) from None
        if name in shares:
            raise click.BadParameter(f"{name} is given twice", param_hint="--fractions")
        shares[name] = value
    return shares


def summarize_split(result: dict) -> str:
    """Return the counts by split and class, what was joined, and the warnings."""
    labels = list(result["classes"])
    whole = {"classes": result["classes"], "files": result["files"], "patients": result["patients"]}

    def row(name, part):
        cells = [f"{part['files']:,}", f"{part['patients']:,}"]
        cells += [f"{part['classes'][label]['files']:,}" for label in labels]
        off = part.get("largest_share_difference")
        return [name, *cells, "" if off is None else f"{100 * off:.1f}"]

    counts = grid(
        "Files by split and class",
        ["split", "files", "patients", *labels, "off"],
        [*(row(name, part) for name, part in result["splits"].items()), row("all", whole)],
        "off: at most so many percentage points between a class's share here and in the whole",
    )
    found_by = ", ".join(f"{how} {count:,}" for how, count in result["patients_found_by"].items())
    rows = [
        ("manifest", result["manifest"]),
        ("patients from", f"{found_by or 'nothing'} ({result['files']:,} files)"),
        ("copies", f"{result['duplicate_files']:,} files have the content of another"),
        ("near copies", f"{len(result['near_duplicates']):,} groups of films that look the same"),
        ("joined", f"{len(result['joined_patients']):,} groups of patients that share a film"),
    ]
    text = f"{counts}\n\n{table(rows)}"
    if result["notes"]:
        text += "\n\n" + paragraphs("Read as", result["notes"])
    if result["warnings"]:
        text += "\n\n" + paragraphs("Warnings", result["warnings"])
    return text
