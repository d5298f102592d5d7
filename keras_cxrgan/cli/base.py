"""What all commands share: the group, errors as one clear line, common options."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from keras_cxrgan import __version__
from keras_cxrgan.recipe import FEW_FILMS, Recipe
from keras_cxrgan.rules import CHOICES

CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def short_name(source: str) -> str:
    """Return what results of films or images are called: a folder's name, a file's without ending.

    >>> short_name("films.zip"), short_name("tfds:pneumonia_mnist")
    ('films', 'tfds-pneumonia_mnist')
    """
    path = Path(source).resolve()
    return (path.name if path.is_dir() else path.stem).replace(":", "-")


class Command(click.Command):
    """A command whose `ValueError`s are messages to the user, not tracebacks."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            place = Path(error.filename) if error.filename else None
            if place and place.suffix == ".tmp":
                place = place.parent  # a name that nobody gave
            named = f" {place}" if place else ""
            mend = "out" in ctx.params and error.errno in CANNOT_WRITE
            raise click.ClickException(
                f"cannot use{named}: {error.strerror or error}{'; choose another --out' * mend}"
            ) from error


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


def recipe_option(field: str, flag: str, help: str):
    """An option that changes one recipe field; its default is the recipe's."""
    kind = {"int": int, "float": float}.get(Recipe.__dataclass_fields__[field].type, str)
    return click.option(
        flag,
        field,
        type=click.Choice(CHOICES[field]) if field in CHOICES else kind,
        default=None,
        help=f"{help}  [default: the recipe's]",
    )


def recipe_name_option(default: str | None = "default"):
    """Return --recipe; a default of None is the recipe for as many films as there are."""
    by_films = f"small_data for fewer than {FEW_FILMS:,} films, else default"
    return click.option(
        "--recipe",
        "recipe_name",
        default=default,
        metavar="NAME|FILE",
        help=f"A recipe by name (cxrgan recipes) or a JSON file.  [default: {default or by_films}]",
    )


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change any recipe field; repeatable.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Write into a folder that already holds files."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show the messages of TensorFlow too."
)


layout_option = click.option(
    "--layout",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="How a public set lies on disk: auto recognises kermany, covid19-radiography,"
    " covid-chestxray, nih, rsna, montgomery and shenzhen; folder is the plain reading.",
)
on_bad_file_option = click.option(
    "--on-bad-file",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do about films that cannot be read.",
)
allow_leak_option = click.option(
    "--allow-leak",
    is_flag=True,
    help="Cross from training to held-out films all the same; every result will say so.",
)


def read_settings(settings, given) -> dict:
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
