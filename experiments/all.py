"""Every experiment of the papers, one after another, and one page of all their results."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click

from keras_cxrgan.workflows.reproducing import RESULTS, SCALES

NAMES = (
    "noori2024",
    "venu2020",
    "ng2023_size",
    "ng2023_epochs",
    "ng2023_wgan_gp",
    "davoodi2021",
    "incremental",
    "davoodi2021_study",
    "ng2023_study",
    "venu2020_study",
)
REPORT = ("report.md", "report.html")
STOPPED = 130


def run_one(name: str, arguments: list[str]) -> tuple[int, str]:
    """Run an experiment in a process of its own; return its exit code and last line of stderr.

    A process gives its memory back, and takes nothing with it when it dies.
    """
    if importlib.util.find_spec(f"experiments.{name}") is None:
        return 1, f"there is no experiments/{name}.py"
    root = str(Path(__file__).resolve().parent.parent)
    paths = filter(None, [root, os.environ.get("PYTHONPATH")])
    last = ""
    with subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        text=True,
    ) as process:
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
            return process.wait(), last
        except KeyboardInterrupt:
            process.wait()  # it got the signal too, and saves its state
            return STOPPED, "stopped"


def named(pairs: tuple[str, ...], option: str) -> dict[str, list[str]]:
    """Return ("a", "venu2020=b") as {"": ["a"], "venu2020": ["b"]}."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals and name not in NAMES:
            raise click.BadParameter(
                f"{name!r} is no experiment: {', '.join(NAMES)}", param_hint=option
            )
        found.setdefault(name if equals else "", []).append(value if equals else pair)
    return found


def run_all(names, out: Path, arguments, run=run_one) -> list[dict]:
    """Run the experiments; return {"name", "state", "results"} of each, failed ones too.

    Args:
        arguments: function of a name that gives its command line.
        run: function (name, arguments) -> (exit code, last line of its messages).
    """
    entries = []
    for name in names:
        click.echo(f"== {name}", err=True)
        results = out / name / RESULTS[0]
        code, last = run(name, ["--out", str(out / name), *arguments(name)])
        stopped = code in (STOPPED, -signal.SIGINT, -signal.SIGTERM)
        if stopped:
            state = "stopped; the same command goes on"
        elif code:
            state = f"failed: {last.removeprefix('Error: ')}"
        else:
            state = "complete"
        entries.append(
            {
                "name": name,
                "state": state,
                "results": json.loads(results.read_text()) if results.is_file() else None,
                "code": STOPPED if stopped else code,
            }
        )
        if stopped:
            break
    return entries


def write_report(out: Path, entries: list[dict], scale: str, seeds: str) -> None:
    """Write `report.md` and `report.html`, which holds its figures."""
    from keras_cxrgan.sharing import experiment_report

    about = f"Scale: {scale}; seeds: {seeds}."
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT[0]).write_text(experiment_report.markdown(entries, about), encoding="utf-8")
    (out / REPORT[1]).write_text(experiment_report.page(entries, about, out), encoding="utf-8")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    multiple=True,
    metavar="[NAME=]PATH",
    help="Folder of films, of all or of one experiment; repeatable.  [default: phantom films]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=CLASS",
    help="Class that an experiment trains on; repeatable.  [default: as the papers]",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/all"), show_default=True)
@click.option("--scale", type=click.Choice(SCALES), default="smoke", show_default=True)
@click.option("--seeds", default="0", show_default=True, help="Separated by commas.")
@click.option("--features", default="cxr", show_default=True, help="Extractor of the scores.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Repeatable.")
def main(data, classes, out, scale, seeds, features, only):
    """Run every experiment, go on where it stopped, and write one report page."""
    sources, wanted = named(data, "--data"), named(classes, "--class")

    def arguments(name):
        given = ["--scale", scale, "--seeds", seeds, "--features", features]
        for source in (sources.get(name) or sources.get("") or [])[-1:]:
            given += ["--data", source]
        for label in wanted.get(name) or wanted.get("") or []:
            given += ["--class", label]
        return given

    entries = run_all(only or NAMES, out, arguments)
    write_report(out, entries, scale, seeds)
    for entry in entries:
        click.echo(f"{entry['name']}: {entry['state']}")
    click.echo(f"{out / REPORT[0]}\n{out / REPORT[1]}")
    if entries[-1]["code"] == STOPPED:
        raise SystemExit(STOPPED)
    if failed := [entry["name"] for entry in entries if entry["code"]]:
        raise click.ClickException(f"failed: {', '.join(failed)} (see {out / REPORT[0]})")


if __name__ == "__main__":
    main()
