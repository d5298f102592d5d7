"""`cxrgan ablate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from keras_cxrgan.cli.base import (
    json_option,
    main,
    read_settings,
    recipe_name_option,
    set_option,
    short_name,
    verbose_option,
)
from keras_cxrgan.terminal import (
    Progress,
    format_seconds,
    grid,
    paragraphs,
    quiet_tensorflow,
    table,
)


@main.command("ablate")
@click.option(
    "--data",
    type=click.Path(),
    help="Films to train on, as of cxrgan train.  [default: 60 films of the built-in phantom]",
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Use this class only; repeatable."
)
@recipe_name_option()
@set_option
@click.option(
    "--change",
    "changes",
    multiple=True,
    metavar="'LABEL: FIELD=VALUE ...'",
    help="A row: the recipe with these fields changed; repeatable.",
)
@click.option(
    "--images", type=int, help="Images seen by each training, in whole passes over the films."
)
@click.option(
    "--epochs", type=int, help="The same in passes over the films.  [default: the recipe's]"
)
@click.option(
    "--seeds",
    default="0",
    show_default=True,
    help="Trainings of each row, such as 0,1,2; from three on, differences can be told from chance.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="LABEL",
    help="Rows to train; repeatable. Of the others, what is complete is shown.  [default: all]",
)
@click.option(
    "--held-out",
    type=click.Path(),
    help="Films of other patients, never trained on: scored against too, equally many.",
)
@click.option(
    "--curve",
    type=int,
    default=0,
    metavar="N",
    help="Also score at N points of each training and draw the curves.",
)
@click.option(
    "--features",
    default="cxr",
    show_default=True,
    metavar="NAME|PATH",
    help="Network that scores, as of cxrgan evaluate.",
)
@click.option(
    "--out",
    type=click.Path(),
    help="Folder for runs, tables and figures.  [default: runs/ablation-RECIPE-DATA]",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
@verbose_option
def ablate_command(
    data, classes, recipe_name, settings, changes, images, epochs, seeds, only, held_out,
    curve, features, out, dry_run, as_json, verbose,
):  # fmt: skip
    """Find out what each ingredient of a recipe does: change one at a time.

    Trains the recipe and each --change of it on the same films, with the same seeds and as many
    images seen, and scores them alike: beside what one half of the real films scores against the
    other, with the spread over the seeds, and with the difference from the recipe as it is. The
    same command again goes on where it stopped.

    \b
    cxrgan ablate --data chest_xray/train --class NORMAL --recipe default \\
        --change 'no EMA: ema_half_life=0' \\
        --change 'R1: penalty=r1 penalty_weight=1' \\
        --images 100000 --seeds 0,1,2 --held-out chest_xray/test --dry-run
    """
    with quiet_tensorflow(verbose):
        from keras_cxrgan.workflows import ablating, reproducing
    if out is None:
        name = "phantom" if data is None else short_name(data)
        out = Path("runs") / "-".join(["ablation", Path(recipe_name).stem, name, *classes])
    with Progress() as progress:
        plan = ablating.plan_ablation(
            recipe_name,
            changes,
            out,
            data=data,
            classes=classes,
            images=images,
            epochs=epochs,
            seeds=reproducing.parse_seeds(seeds),
            only=only,
            held_out=held_out,
            curve=curve,
            features=features,
            fields=read_settings(settings, {"epochs": epochs} if epochs else {}),
            report=progress,
        )
        about = ablating.describe(plan)
        if dry_run:
            click.echo(json.dumps(about, indent=2) if as_json else _plan_text(about, out))
            return
        try:
            written = ablating.run_ablation(plan)
        except reproducing.Stopped as stopped:
            click.echo(str(stopped), err=True)
            sys.exit(130)
    numbers, page = (Path(out) / name for name in reproducing.RESULTS)
    if as_json:
        click.echo(numbers.read_text(), nl=False)
    else:
        click.echo(
            _results_text(written)
            + "\n\n"
            + table([("page", str(page)), ("numbers", str(numbers))])
        )
    if written["failed"]:
        raise click.ClickException(f"failed: {', '.join(written['failed'])} (see {page})")


def _plan_text(about: dict, out) -> str:
    films, seeds = f"{about['films']:,}", about["seeds"]
    if about["held_out_films"]:
        films += f", and {about['held_out_films']:,} held out"
    rows = [
        (row, "; ".join(f"{name} {new} (base: {old})" for name, (old, new) in changed.items()))
        for row, changed in about["rows"].items()
    ]
    rows[0] = (rows[0][0], f"recipe {about['recipe']}")
    left = about["trainings"] - about["complete"]
    time = "unknown before the first training; then this plan tells it (cxrgan benchmark, too)"
    if about["seconds_left"] is not None:
        time = f"about {format_seconds(about['seconds_left'])} of training, as measured so far"
    done = f", {about['complete']} of them complete" if about["complete"] else ""
    facts = [
        ("films", films),
        ("images seen", f"{about['images_seen']:,} by each training ({about['epochs']:,} epochs)"),
        ("scored", f"{about['scored']:,} generated images against as many real films"),
        (
            "trainings",
            f"{about['trainings']}{done}: {len(rows)} rows, seeds {', '.join(map(str, seeds))}",
        ),
        ("time left", time if left else "none"),
        ("out", str(out)),
    ]
    return "rows\n" + table(rows) + "\n\n" + table(facts)


def _results_text(written: dict) -> str:
    parts = []
    for each in written["tables"]:
        rows = [[cell.replace("**", "*") for cell in row] for row in each["rows"]]
        parts.append(grid(each["title"], each["header"], rows))
        if each["note"]:
            parts[-1] += "\n" + paragraphs("", [each["note"].replace("**", "*")]).lstrip("\n")
    failed = [cell for cell in written["cells"] if "error" in cell]
    if failed:
        parts.append(paragraphs("Failed", [f"{cell['name']}: {cell['error']}" for cell in failed]))
    return "\n" + "\n\n".join(parts)
