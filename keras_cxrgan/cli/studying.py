"""`cxrgan study`."""

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
    verbose_option,
)
from keras_cxrgan.study.protocols import PROTOCOLS
from keras_cxrgan.terminal import (
    Progress,
    format_seconds,
    grid,
    paragraphs,
    quiet_tensorflow,
    table,
)


@main.command("study")
@click.argument("manifest")
@click.option(
    "--arms",
    default="real,oversampled,classic,gan,classic+gan,copies",
    show_default=True,
    help="What the classifier is fitted on, separated by commas; see above.",
)
@click.option(
    "--folds",
    type=int,
    help="Make so many folds by patient.  [default: the manifest's folds, or its train and test]",
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Use this class only; repeatable."
)
@click.option(
    "--sizes",
    default="100%",
    show_default=True,
    help="Shares of the training films, such as 25%,50%,100%: small sets gain most, it is said.",
)
@click.option(
    "--ratios",
    default="1",
    show_default=True,
    help="Images added for each real film of a class, such as 0.5,1,2,4.",
)
@click.option(
    "--seeds",
    default="0,1,2,3,4",
    show_default=True,
    help="Trainings of each classifier; with one, the answer is about two networks.",
)
@click.option(
    "--classifier",
    default="cnn",
    show_default=True,
    metavar="cnn|inception|PATH",
    help="The small CNN of the papers, InceptionV3 (ImageNet weights where they can be had), or a"
    " .keras file.",
)
@click.option(
    "--optimizer",
    default="adam",
    show_default=True,
    metavar="adam|sgd",
    help="Of the classifier; sgd has Nesterov's momentum 0.9.",
)
@click.option(
    "--steps", type=int, default=500, show_default=True, help="Optimizer steps, in every arm."
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Films in one step.")
@click.option(
    "--learning-rates",
    default="0.001",
    show_default=True,
    help="Of several, each cell takes the best on films held back from its training part.",
)
@recipe_name_option(None)
@set_option
@click.option(
    "--gan-images", type=int, help="Images seen by each GAN.  [default: as the recipe says]"
)
@click.option(
    "--gan-per-seed",
    is_flag=True,
    help="Train the GANs anew for each seed, so that their chance is in the interval too.",
)
@click.option(
    "--generator",
    "generators",
    multiple=True,
    metavar="CLASS=RUN",
    help="Take this run for a class and train none; refused if it saw tested films. Repeatable.",
)
@click.option(
    "--external", metavar="DATA", help="Films of other patients, tested too; they decide nothing."
)
@click.option(
    "--protocol",
    default="",
    metavar="davoodi2021|ng2023",
    help="Take a paper's settings where no option is given, test the networks in its way as well,"
    " and lay its tables beside both.",
)
@click.option("--out", type=click.Path(), help="Folder.  [default: runs/study-MANIFEST]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
@verbose_option
def study_command(
    manifest, arms, folds, classes, sizes, ratios, seeds, classifier, optimizer, steps, batch_size,
    learning_rates, recipe_name, settings, gan_images, gan_per_seed, generators, external, protocol,
    out, dry_run, as_json, verbose,
):  # fmt: skip
    """Find out whether generated images help a classifier, also if they do not.

    Fits the same classifier on the same patients with and without generated images, with as many
    optimizer steps, and tests it on patients that neither it nor any GAN has seen. Answers for
    each arm in one sentence with an interval: helps, hurts, or no difference shown, and how large
    a difference cannot be excluded.

    \b
    real         the real films alone; what all others are compared with
    oversampled  real films, the classes shown equally often
    weighted     real films, the classes weighted equally in the loss
    classic      real films turned, shifted, scaled, exposed anew each time
    gan          real films and images of GANs trained on the same films
    classic+gan  both
    gan-even     real films, and generated ones of the smaller classes until all are as large
    gan-only     generated images alone, tested on real films
    copies       real films and copies of them: a control that must show nothing

    Chance looks like a gain where one lucky training is compared with another, or films of one
    patient count as many: hence several seeds, intervals over patients, and a correction for the
    number of arms. Images that help no more than classic augmentation are not worth a GAN. The
    same command again goes on where it stopped.

    \b
    cxrgan split films/ --out manifest.csv --folds 5
    cxrgan study manifest.csv --dry-run
    cxrgan study manifest.csv --arms real,classic,gan --sizes 25%,50%,100% --gan-images 200000
    cxrgan study manifest.csv --external other-hospital/ --seeds 0,1,2 --json
    """
    with quiet_tensorflow(verbose, needed=not dry_run or bool(generators)):
        from keras_cxrgan.workflows import designing, reproducing, studying
    out = Path(out or Path("runs") / f"study-{Path(manifest.partition(':')[0]).stem}")
    given = {
        "arms": [name.strip() for name in arms.split(",")],
        "classifier": classifier,
        "optimizer": optimizer,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rates": _numbers(learning_rates, "--learning-rates", "0.001,0.0001"),
        "recipe": recipe_name,
    }
    if protocol in PROTOCOLS:
        context = click.get_current_context()
        options = {"recipe": "recipe_name"}
        for name, value in PROTOCOLS[protocol].settings.items():
            source = context.get_parameter_source(options.get(name, name))
            if source is click.core.ParameterSource.DEFAULT:
                given[name] = value
    with Progress() as progress:
        plan = studying.plan_study(
            manifest,
            out,
            **given,
            folds=folds,
            classes=classes,
            sizes=_numbers(sizes, "--sizes", "25%,50%,100%"),
            ratios=_numbers(ratios, "--ratios", "0.5,1,2"),
            seeds=reproducing.parse_seeds(seeds),
            fields=read_settings(settings, {}),
            gan_images=gan_images,
            gan_per_seed=gan_per_seed,
            generators=_pairs(generators),
            external=external,
            protocol=protocol,
            report=progress,
        )
        about = designing.describe(plan)
        if dry_run:
            click.echo(json.dumps(about, indent=2) if as_json else _plan_text(about, out))
            return
        if not as_json:
            progress.end()
            click.echo(_plan_text(about, out) + "\n", err=True)
        try:
            written = studying.run_study(plan, progress)
        except reproducing.Stopped as stopped:
            click.echo(str(stopped), err=True)
            sys.exit(130)
        except KeyboardInterrupt:
            progress.end()
            click.echo(f"stopped in {out}; the same command goes on from there", err=True)
            sys.exit(130)
    numbers, page = (out / name for name in reproducing.RESULTS)
    if as_json:
        click.echo(numbers.read_text(), nl=False)
    else:
        click.echo(_results_text(written))
        click.echo("\n" + table([("page", str(page)), ("numbers", str(numbers))]))
    if written["failed"]:
        raise click.ClickException(f"failed: {', '.join(written['failed'])} (see {page})")


def _numbers(text: str, option: str, example: str) -> list[float]:
    try:
        parts = [part.strip() for part in text.split(",")]
        return [float(p[:-1]) / 100 if p.endswith("%") else float(p) for p in parts]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} must be numbers such as {example}", param_hint=option
        ) from None


def _pairs(texts) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    wrong = [text for text, (name, _, run) in zip(texts, pairs) if not name or not run]
    if wrong:
        raise click.BadParameter(
            f"{wrong[0]!r} must be CLASS=RUN, such as NORMAL=runs/normal", param_hint="--generator"
        )
    return {name: run for name, _, run in pairs}


def _plan_text(about: dict, out: Path) -> str:
    classes = ", ".join(f"{name} {films:,}" for name, films in about["classes"].items())
    films = f"{about['films']:,} of {about['patients']:,} patients ({classes})"
    fits = [
        (place, f"{counts['fitted']:,} to fit on, {counts['validation']:,} to choose by")
        for place, counts in about["fitted"].items()
    ]
    tests = ", ".join(f"{name} {part['test']:,}" for name, part in about["parts"].items())
    network = f"{about['classifier']}, {about['image_size']} px"
    network += f", {about['steps']:,} steps of {about['batch_size']}"
    gans = f"{about['gans']} of the recipe {about['recipe']}"
    if about["gans"]:
        each = about["gan_images"] and f"{about['gan_images']:,} images seen"
        gans += f", {each or str(about['gan_epochs']) + ' epochs'} each"
    if about["generators"]:
        gans = ", ".join(f"{name} of {run}" for name, run in about["generators"].items())
    done = f", {about['complete']} of them complete" if about["complete"] else ""
    time = "unknown before the first cell; then this plan tells it"
    if about["seconds_left"] is not None:
        time = f"about {format_seconds(about['seconds_left'])}, as measured so far"
    rows = [
        ("films", films),
        *fits,
        ("tested", tests),
        *([("external", f"{about['external']['films']:,} films")] if about["external"] else []),
        ("classifier", network),
        ("GANs", gans),
        ("cells", f"{about['cells']}{done}: seeds {', '.join(map(str, about['seeds']))}"),
        ("time left", time if about["complete"] < about["cells"] else "none"),
        ("out", str(out)),
    ]  # fmt: skip
    return "arms\n" + table(list(about["arms"].items())) + "\n\n" + table(rows)


def _results_text(written: dict) -> str:
    parts = [grid(each["title"], each["header"], each["rows"]) for each in written["tables"]]
    failed = [cell for cell in written["cells"] if "error" in cell]
    if failed:
        parts.append(paragraphs("Failed", [f"{cell['name']}: {cell['error']}" for cell in failed]))
    parts.append(paragraphs("Limits", written["limits"]))
    parts.append(paragraphs("Answer", written["answer"]))
    return "\n" + "\n\n".join(parts)
