"""`cxrgan evaluate` and `audit`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_cxrgan.cli.base import (
    allow_leak_option,
    json_option,
    layout_option,
    main,
    on_bad_file_option,
    overwrite_option,
    short_name,
    verbose_option,
)
from keras_cxrgan.terminal import Progress, grid, paragraphs, quiet_tensorflow, table

MODES = ("pytorch-fid", "legacy-tf", "clean")
DIMS = ("64", "192", "768", "2048")

_held_out_option = click.option(
    "--held-out",
    type=click.Path(),
    help="Real films of other patients, never trained on: they show what copying would hide.",
)
_class_option = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Class of REAL, and of generated images that have classes; repeatable.",
)
_features_option = click.option(
    "--features",
    multiple=True,
    default=("cxr",),
    show_default=True,
    metavar="NAME|PATH",
    help="cxr (ships with the package), fid2015, imagenet, random, or your own Keras model or"
    " SavedModel; repeatable, or separated by commas.",
)
_preparation_options = (
    click.option("--image-size", type=int, help="Pixels.  [default: the generator's]"),
    click.option(
        "--fit",
        type=click.Choice(["crop", "pad", "stretch"]),
        help="How real films become square.  [default: as the run's, else crop]",
    ),
    click.option(
        "--clahe",
        type=float,
        help="CLAHE clip limit for the real films.  [default: as the run's, else 0]",
    ),
    click.option(
        "--window",
        metavar="BLACK,WHITE",
        help="Levels of the real films that are 16-bit PNG.  [default: as the run's, else percentiles]",
    ),
    click.option("-n", "--count", type=int, help="Images to make with a run.  [default: as many as REAL]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Of everything drawn."),
    allow_leak_option,
    click.option("--best", is_flag=True, help="Of a run, take the checkpoint it kept as best."),
    layout_option,
    on_bad_file_option,
    click.option("--no-cache", is_flag=True, help="Compute features anew and keep none."),
    click.option(
        "--devices", default="auto", show_default=True, help="auto, cpu, cpu:2, gpu, gpu:0,1."
    ),
)  # fmt: skip
_mode_option = click.option(
    "--mode",
    type=click.Choice(MODES),
    default="pytorch-fid",
    show_default=True,
    help="Resize and range of the Inceptions; three conventions, three different numbers.",
)
_network_options = (
    click.option(
        "--dims",
        type=click.Choice(DIMS),
        help="Layer of the Inceptions.  [default: 768, as the papers on few films]",
    ),
    _mode_option,
    click.option(
        "--weights",
        multiple=True,
        metavar="[NAME=]PATH",
        help="File with an Inception's weights; otherwise Keras' cache, or a checked download.",
    ),
    click.option(
        "--preparation",
        metavar="range=LOW:HIGH[,size=PIXELS]",
        help="For your own model: what grey levels 0 and 255 become, and the image size.",
    ),
)


def _all(options):
    def decorate(function):
        for option in reversed(tuple(options)):
            function = option(function)
        return function

    return decorate


@main.command()
@click.argument("real", type=click.Path())
@click.argument("fakes", metavar="FAKE...", nargs=-1, required=True, type=click.Path())
@_held_out_option
@click.option(
    "--out", type=click.Path(), help="Folder for the report.  [default: evaluations/REAL-FAKE]"
)
@_features_option
@_all(_network_options)
@_class_option
@_all(_preparation_options)
@click.option(
    "--neighbours", type=int, default=5, show_default=True, help="k of precision and recall."
)
@click.option(
    "--draws",
    type=int,
    help="Sets of images made with a run, each scored.  [default: of 3,000 images with cxr, else 1]",
)
@click.option("--no-references", is_flag=True, help="Leave out the ladder of degraded real films.")
@click.option("--kid-subsets", is_flag=True, help="Also KID as 100 subsets of 1,000 images.")
@click.option(
    "--frechet-infinity",
    is_flag=True,
    help="Also the Fréchet distance extrapolated to endlessly many images (from 5,000 on).",
)
@click.option(
    "--inception-score", is_flag=True, help="Also the Inception Score (needs fid2015's weights)."
)
@overwrite_option
@json_option
@verbose_option
def evaluate(
    real, fakes, held_out, out, features, neighbours, draws, no_references, kid_subsets,
    frechet_infinity, inception_score, overwrite, as_json, verbose, **shared,
):  # fmt: skip
    """Score generated images against real films, with floor, error and warnings.

    REAL is a folder or zip of films, a split of a manifest (manifest.csv:test), tfds:NAME, or
    the word phantom. FAKE is a folder or zip of generated images, a run, or an export; several
    are also compared with each other.

    \b
    cxrgan evaluate phantom runs/default-phantom            the built-in data, offline
    cxrgan evaluate manifest.csv:train runs/default-films --held-out manifest.csv:test
    cxrgan evaluate films/ a-images/ b-images/ --features cxr --features fid2015
    """
    names = _split(features)
    out = out or _default_out("evaluations", real, shared["classes"], fakes)
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
        from keras_cxrgan.evaluation.report import tables
    with Progress() as progress:
        result = workflows.evaluate(
            real,
            fakes,
            held_out=held_out,
            out=out,
            features=names,
            neighbours=neighbours,
            draws=draws,
            references=not no_references,
            kid_subsets=kid_subsets,
            frechet_infinity=frechet_infinity,
            with_inception_score=inception_score,
            overwrite=overwrite,
            report_progress=progress,
            **_options(names, **shared),
        )
    if as_json:
        click.echo((Path(out) / "metrics.json").read_text(), nl=False)
        return
    for made in tables(result):
        click.echo("\n" + grid(made.title, made.header, made.rows, made.note))
    _say(result["findings"], "Findings")
    _say(result["warnings"], "Warnings")
    click.echo("\n" + table([("report", str(Path(out) / "report.md")), ("figures", str(out))]))


@main.command()
@click.argument("real", type=click.Path())
@click.argument("fake", type=click.Path())
@_held_out_option
@click.option(
    "--out", type=click.Path(), help="Folder for the report.  [default: audits/REAL-FAKE]"
)
@click.option(
    "--features",
    default="cxr",
    show_default=True,
    metavar="NAME|PATH",
    help="As of cxrgan evaluate; one.",
)
@_all(_network_options)
@_class_option
@_all(_preparation_options)
@overwrite_option
@json_option
@verbose_option
def audit(real, fake, held_out, out, features, overwrite, as_json, verbose, **shared):
    """Look for copies of training films among generated images.

    REAL is what the generator was trained on. Distances of generated images to it stand beside
    those of held-out films (or, without them, of the training films to each other). No distance
    proves that nothing was copied.

    \b
    cxrgan audit manifest.csv:train runs/default-films --held-out manifest.csv:test
    """
    out = out or _default_out("audits", real, shared["classes"], [fake])
    with quiet_tensorflow(verbose):
        from keras_cxrgan import workflows
        from keras_cxrgan.evaluation.audit_report import tables
    with Progress() as progress:
        result = workflows.audit(
            real,
            fake,
            held_out=held_out,
            out=out,
            features=features,
            overwrite=overwrite,
            report_progress=progress,
            **_options([features], **shared),
        )
    if as_json:
        click.echo((Path(out) / "audit.json").read_text(), nl=False)
        return
    for made in tables(result):
        click.echo("\n" + grid(made.title, made.header, made.rows, made.note))
    _say(result["findings"], "Findings")
    _say(result["warnings"], "Warnings")
    click.echo(
        "\n"
        + table([("report", str(Path(out) / "audit.md")), ("pairs", str(Path(out) / "pairs.png"))])
    )


@main.command("benchmark-evaluation")
@_features_option
@click.option(
    "-n", "--count", type=click.IntRange(20), default=1000, show_default=True, help="Images a side."
)
@click.option("--image-size", type=click.IntRange(8), default=64, show_default=True, help="Pixels.")
@_all(option for option in _network_options if option is not _mode_option)
@click.option(
    "--processes", type=click.IntRange(1), default=3, show_default=True, help="Fresh processes."
)
@json_option
def benchmark_evaluation(
    features, count, image_size, dims, weights, preparation, processes, as_json
):
    """Measure the seconds and memory that extractors and scores take."""
    from keras_cxrgan.benchmark import benchmark_evaluation as measure

    names = _split(features)
    paths = _read_weights(weights, names)
    with Progress() as progress:
        results = {
            name: measure(
                name,
                count=count,
                image_size=image_size,
                dims=dims and int(dims),
                weights=paths.get(name),
                preparation=preparation,
                processes=processes,
                report=progress,
            )
            for name in names
        }
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = [
        (
            f"{name}, {runs[0]['dims']} dims",
            *(
                " ".join(f"{run[key]:.1f}" for run in runs)
                for key in ("building", "tracing", "features", "scores")
            ),
            " ".join(f"{run['images_per_second']:.0f}" for run in runs),
            " ".join(f"{run['peak_mib'] / 1024:.2f}" for run in runs),
        )
        for name, runs in results.items()
    ]
    header = ("", "build s", "trace s", "features s", "scores s", "images/s", "peak GiB")
    title = f"{count:,} + {count:,} images of {image_size}x{image_size}, one number a process"
    click.echo("\n" + grid(title, header, rows))


def _options(names, *, dims, weights, no_cache, window, **others) -> dict:
    """Return the shared options as the workflows take them."""
    return {
        "dims": dims and int(dims),
        "weights": _read_weights(weights, names),
        "cache": not no_cache,
        "window": None if window is None else _read_window(window),
        **others,
    }


def _read_window(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} must be two grey levels, such as 0,4095", param_hint="--window"
        ) from None


def _split(features) -> list[str]:
    return [name.strip() for text in features for name in text.split(",") if name.strip()]


def _read_weights(texts, names) -> dict[str, str]:
    """Read [NAME=]PATH; a bare path belongs to the one extractor that takes weights."""
    takers = [name for name in names if name in ("fid2015", "imagenet")]
    read = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in ("fid2015", "imagenet"):
            if len(takers) != 1:
                raise click.BadParameter(
                    f"{text!r} must say which network it is for, fid2015=PATH or imagenet=PATH,"
                    f" and --features must name it; got --features {','.join(names)}",
                    param_hint="--weights",
                )
            name, path = takers[0], text
        read[name] = path
    return read


def _default_out(folder, real, classes, fakes) -> str:
    return str(Path(folder) / "-".join([short_name(real), *classes, *map(short_name, fakes)]))


def _say(texts, title) -> None:
    if texts:
        click.echo("\n" + paragraphs(title, texts))
