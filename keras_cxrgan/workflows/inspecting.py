"""What is wrong with a data set, before anything is trained on it: facts, sentences, pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import keras_cxrgan
from keras_cxrgan.data import inspection as inspecting
from keras_cxrgan.data import sources
from keras_cxrgan.data.images import decode, prepare_image
from keras_cxrgan.data.inspection import Inspection, inspect_records
from keras_cxrgan.data.records import Record
from keras_cxrgan.data.shortcuts import SIGNIFICANT
from keras_cxrgan.evaluation import report
from keras_cxrgan.evaluation.report import Table, p_value
from keras_cxrgan.sharing.contact_sheet import contact_sheet

FILE = "inspection.json"
SHOWN = 10
NAMED = 5  # files in a sentence
LISTED = 20  # rows of a table
THUMBNAIL = 128  # pixels
# No disease changes these, so that a class told by them is a fault of the set.
TECHNICAL = ("file format", "size", "bit depth", "channels")

MEANING = f"""\
Suspects are not verdicts: look at them in the contact sheet. Near duplicates have perceptual
hashes of at most {inspecting.NEAR_BITS} different bits of 64 and 32x32 thumbnails that correlate
by {inspecting.NEAR_CORRELATION} or more; cropped, turned or flipped copies are not found. A
shortcut is what tells the class without the film: a classifier, and a GAN trained on one class,
can learn it instead of the disease. p is multiplied by the number of tests made.
Border is the share of near-black pixels in the outer 4 %. The mean grey level and the border can
also follow from the disease or from how ill patients are filmed; file format, size, bit depth and
channels cannot.
"""


def inspect(
    source: str,
    *,
    out: str | Path | None = None,
    classes: Sequence[str] = (),
    layout: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    report_progress=None,
) -> dict:
    """Look at every film of a set once, and say what it holds and what is wrong with it.

    Args:
        source: folder or zip of films, a public set, a manifest or other CSV, `tfds:NAME`, or a
            run, for the films it was trained on.
        out: folder for inspection.json, inspection.md and contact_sheet.png; None writes none.
        classes: classes to keep; all when empty.
        layout: how a public set lies on disk (`read_layout`).
        workers: threads; all cores by default.

    Returns the JSON-ready facts of `inspect_records` beside sentences: `findings`, `warnings`
    and `problems`, which are what `cxrgan inspect --strict` fails on: unreadable files,
    duplicates across classes or splits, patients in several splits, shortcuts. Raises
    `ValueError` with one clear line for everything a user can mend.

    Example:
        >>> result = inspect("chest_xray/", out="inspections/chest_xray")
        >>> result["problems"]
    """
    progress = report_progress or (lambda *_: None)
    place, classes, layout = _films_of(str(source), tuple(classes), layout)
    inputs = report.provenance([place, list(classes), layout])
    if out is not None:
        out = Path(out)
        sources.check_outside(out, place)
        report.check_out(inputs, out, overwrite, FILE)
    # Manifests that leak are what this command is for: it names the leaks.
    reading, _ = sources.read_source(place, classes, sources.ALL, layout=layout, allow_leak=True)
    records = reading.records
    found = inspect_records(
        records, workers=workers, progress=lambda done, total: progress("inspect", done, total)
    )
    result = {
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "inputs": inputs,
        "source": place,
        "only_classes": list(classes),
        "layout": reading.layout,
        "left_out": reading.left_out,
        "read_as": sources.describe_left_out(reading),
        "findings": _findings(found),
        "warnings": _warnings(found),
        "problems": _problems(found),
        **found.as_dict(),
    }
    if out is not None:
        report.write(out, FILE, result, "inspection.md", markdown(result))
        contact_sheet(_rows(found, records), out / "contact_sheet.png")
    return result


def _films_of(source: str, classes: tuple, layout: str) -> tuple[str, tuple[str, ...], str]:
    """The source, classes and layout themselves, or those that a run was trained on."""
    # All stages of a grown run are fed the same films.
    data = min(Path(source).glob("stages/*/data.json"), default=Path(source) / "data.json")
    if source == "phantom":
        raise ValueError("the phantom is computed and has no files to inspect: give a folder")
    if not data.is_file():
        return source, classes, layout
    try:
        about = json.loads(data.read_text(encoding="utf-8"))
        place, trained = str(about["source"]), tuple(about.get("classes", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{data} does not say what the run was trained on: give the folder of its films"
        ) from None
    if place == "phantom":
        raise ValueError(f"{source} was trained on the phantom, which has no files to inspect")
    path = sources.named_split(place)[0]
    if not path.startswith(sources.TFDS) and not Path(path).exists():
        raise ValueError(
            f"{source} was trained on {place}, which does not exist from here: give that folder"
        )
    place = f"{place}:{about['split']}" if about.get("split") else place
    return place, classes or trained, about.get("layout", layout)


def _findings(found: Inspection) -> list[str]:
    counts, patients = found.counts, found.patients
    sentences = [
        f"{_count(counts['files'], 'file')}"
        f" in {_count(len(found.classes), 'class', 'classes')}: "
        + ", ".join(f"{label} {each['files']:,}" for label, each in found.classes.items())
    ]
    if found.splits:
        parts = ", ".join(f"{name} {count:,}" for name, count in found.splits.items())
        sentences.append(f"splits: {parts}")
    if patients["patients"]:
        sentences.append(
            f"{_count(patients['patients'], 'patient')} of {_count(patients['files'], 'file')},"
            f" at most {patients['most_files']:,} of one ("
            + ", ".join(f"{how}: {number:,}" for how, number in patients["found"].items())
            + ")"
        )
    for kind, text in (
        ("same file", "the same file more than once"),
        ("same pixels", "the same pixels in different files"),
        ("near", "nearly the same picture"),
    ):
        groups = [group for group in found.duplicates if group["kind"] == kind]
        if groups:
            files = sum(len(group["files"]) for group in groups)
            sentences.append(
                f"{text}: {_count(len(groups), 'group')} of {files:,} files"
                f" ({_names(groups[0]['files'])})"
            )
    return sentences + _shortcut_sentences(found.shortcuts)


def _warnings(found: Inspection) -> list[str]:
    patients, counts = found.patients, found.counts
    sentences = []
    if not patients["patients"]:
        sentences.append(
            "no patients are known: films of one patient may lie on both sides of a split, and"
            " the shortcut report counts files as independent"
        )
    elif patients["files"] < counts["files"]:
        sentences.append(f"{counts['files'] - patients['files']:,} files have no known patient")
    if patients["in_several_classes"]:
        names = patients["in_several_classes"]
        sentences.append(
            f"{_count(len(names), 'patient')} in several classes ({_names(names)}): keep each on"
            " one side of a split"
        )
    rules: dict[str, list[dict]] = {}
    for suspect in found.suspects:
        rules.setdefault(suspect["suspects"], []).append(suspect)
    for suspects, those in rules.items():
        names = _names([each["file"] for each in those])
        sentences.append(
            f"{_count(len(those), 'image')} may be {suspects} ({those[0]['measure']}; {names}):"
            " suspects, not verdicts"
        )
    deep = sum(facts.codec == "PNG" and facts.bits > 8 for facts in found.files)
    if 0 < deep < counts["readable"]:
        sentences.append(
            f"{_count(deep, 'file')} of more than 8 bits among others: windowed between"
            " the 0.1 and 99.9 percentiles when they are read, unless --window is given"
        )
    told = [name for name in _telling(found.shortcuts) if name not in TECHNICAL]
    if told:
        sentences.append(
            f"{' and '.join(told)} tell something of the class; that can be a shortcut, or the"
            " disease itself"
        )
    if found.shortcuts["left_out"]:
        sentences.append(
            "too few files to look for shortcuts (five of each class are needed): "
            + ", ".join(found.shortcuts["left_out"])
        )
    return sentences


def _problems(found: Inspection) -> list[str]:
    problems = []
    if found.unreadable:
        first = found.unreadable[0]
        problems.append(
            f"{_count(len(found.unreadable), 'unreadable file')}:"
            f" {Path(first['file']).name} ({first['reason']})"
            + (", ..." if len(found.unreadable) > 1 else "")
        )
    for across, where in (("across_classes", "classes"), ("across_splits", "splits")):
        groups = [group for group in found.duplicates if group[across]]
        if groups:
            problems.append(
                f"{_count(len(groups), 'group')} of duplicates across {where}"
                f" ({groups[0]['kind']}: {_names(groups[0]['files'])})"
            )
    names = found.patients["in_several_splits"]
    if names:
        problems.append(f"{_count(len(names), 'patient')} in several splits ({_names(names)})")
    told = [name for name in _telling(found.shortcuts) if name in TECHNICAL]
    if told:
        problems.append(f"the class can be told without the film, by {' or '.join(told)} alone")
    return problems


def _telling(shortcuts: dict) -> list[str]:
    return [
        entry["feature"]
        for entry in shortcuts["features"]
        if entry["found"] or any(each["found"] for each in entry["classes"])
    ]


def _shortcut_sentences(shortcuts: dict) -> list[str]:
    if not shortcuts["features"]:
        return []
    sentences, weak = [], []
    for entry in shortcuts["features"]:
        together = entry["feature"] == "all together"
        name = entry["feature"] + ("" if together else " alone")
        told = [each for each in entry["classes"] if each["found"]]
        if entry["found"]:
            sentences.append(
                f"{name}: the class is told right for {entry['accuracy']:.1%} of the films"
                f" (chance {entry['chance']:.1%}, p {_p(entry['p'])})"
            )
        # With two classes, or all features, this would repeat what was said.
        if not entry["found"] or (len(shortcuts["classes"]) > 2 and not together):
            sentences += [
                f"{name} gives {each['label']} away: {each['recall']:.0%} of it is named, and"
                f" {each['precision']:.0%} of what is named is {each['label']} (its share is"
                f" {each['share']:.0%}, p {_p(each['p'])})"
                for each in told
            ]
        if not entry["found"] and not told and entry["p"] < SIGNIFICANT:
            weak.append(f"{entry['feature']} {entry['accuracy']:.1%}")
    if weak:
        chance = shortcuts["features"][0]["chance"]
        sentences.append(
            f"more than chance ({chance:.1%}), but too little to be called a shortcut: "
            + ", ".join(weak)
        )
    none = (
        "no shortcut found: format, size, bit depth, channels, border and mean grey level do not"
        " tell the class better than chance"
    )
    return sentences or [none]


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _names(names: Sequence[str]) -> str:
    """The last parts of some paths."""
    shown = [Path(name).name for name in names[:NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")


def tables(result: dict) -> list[Table]:
    """The tables of an inspection, for the terminal and for the page."""
    made = [_classes_table(result)]
    counts = result["counts"]
    sizes = tuple((size, f"{number:,}") for size, number in counts["sizes"].items())
    more = counts["distinct_sizes"] - len(sizes)
    note = f"and {more:,} more sizes" if more else ""
    made.append(Table("sizes, width x height", ("", "files"), sizes, note))
    if result["shortcuts"]["features"]:
        made.append(_shortcuts_table(result["shortcuts"]))
    for title, header, rows in (
        ("unreadable files", ("", "reason"),
         [(_below(result, each["file"]), each["reason"]) for each in result["unreadable"]]),
        ("duplicates", ("", "files", "kind", "classes", "splits"),
         [(_names(each["files"]), f"{len(each['files']):,}", each["kind"],
           ", ".join(each["classes"]), ", ".join(each["splits"]))
          for each in result["duplicates"]]),
        ("suspects (no verdicts)", ("", "class", "may be", "because of", "value"),
         [(Path(each["file"]).name, each["label"] or "", each["suspects"], each["measure"],
           f"{each['value']:.2f}") for each in result["suspects"]]),
    ):  # fmt: skip
        if rows:
            note = f"and {len(rows) - LISTED:,} more, in {FILE}" if len(rows) > LISTED else ""
            made.append(Table(title, header, tuple(rows[:LISTED]), note))
    return made


def _below(result: dict, name: str) -> str:
    """A file's name below the source, where it lies there."""
    return name.removeprefix(str(Path(result["source"]) / "_")[:-1])


def _classes_table(result: dict) -> Table:
    def shares(values: dict) -> str:
        shown = [f"{name} {number:,}" for name, number in list(values.items())[:4]]
        return ", ".join(shown) + (", ..." if len(values) > 4 else "")

    rows = []
    together = [("all", result["counts"])] if len(result["classes"]) > 1 else []
    for label, each in [*result["classes"].items(), *together]:
        grey = "" if each["mean_grey"] is None else f"{each['mean_grey']:.0f}"
        border = "" if each["border"] is None else f"{each['border']:.0%}"
        rows.append(
            (label, f"{each['files']:,}", shares(each["formats"]), shares(each["bits"]),
             shares(each["modes"]), f"{each['distinct_sizes']:,}", grey, border)
        )  # fmt: skip
    header = ("class", "files", "format", "bits", "channels", "sizes", "mean grey", "black border")
    return Table(result["source"], header, tuple(rows))


def _shortcuts_table(shortcuts: dict) -> Table:
    rows = []
    for entry in shortcuts["features"]:
        given = [each for each in entry["classes"] if each["found"]]
        best = max(given, key=lambda each: each["recall"] * each["precision"], default=None)
        rows.append(
            (
                ("> " if entry["found"] or given else "  ") + entry["feature"],
                f"{entry['accuracy']:.1%}",
                f"{entry['chance']:.1%}",
                p_value(entry["p"]),
                f"{best['label']}: {best['recall']:.0%}, {best['precision']:.0%}" if best else "",
            )
        )
    return Table(
        "can the class be told without the film?",
        ("by this alone", "accuracy", "chance", "p", "given away: found, right"),
        tuple(rows),
        f"Five-fold cross-validation of {_count(shortcuts['files'], 'file')},"
        f" {shortcuts['groups']:,} of them independent; > marks a shortcut.",
    )


def markdown(result: dict) -> str:
    """The page: problems, findings, warnings, tables, what the words mean."""
    lines = [f"# Inspection of {result['source']}", ""]
    for title in ("problems", "findings", "warnings", "read_as"):
        if result[title]:
            lines += [
                f"## {title.replace('_', ' ').capitalize()}",
                "",
                *(f"- {text}" for text in result[title]),
                "",
            ]
    for table in tables(result):
        lines += report.markdown_table(table)
    lines += ["## Reading it", "", MEANING, "![Contact sheet](contact_sheet.png)", ""]
    return "\n".join(lines)


def _rows(found: Inspection, records: Sequence[Record]) -> list:
    """Some films of each class, spread over its files; then the suspects by rule, and copies."""
    place_of = {facts.name: index for index, facts in enumerate(found.files)}
    wanted = []
    for label in found.classes:
        places = [
            index
            for index, facts in enumerate(found.files)
            if (facts.label or inspecting.NO_CLASS) == label and not facts.reason
        ]
        spread = np.linspace(0, len(places) - 1, min(SHOWN, len(places))).astype(int)
        chosen = [places[k] for k in spread]
        wanted.append((f"{label}: {len(chosen)} of {len(places):,}", [(k, "") for k in chosen]))
    rules: dict[str, list] = {}
    for suspect in found.suspects:
        caption = f"{suspect['value']:.2f} "
        rules.setdefault(suspect["suspects"], []).append((place_of[suspect["file"]], caption))
    wanted += [
        (f"may be {name}: {min(SHOWN, len(those))} of {len(those):,}", those[:SHOWN])
        for name, those in rules.items()
    ]
    copies = [
        (place_of[name], f"{number}: {group['kind']} ")
        for number, group in enumerate(found.duplicates, 1)
        for name in group["files"][:2]
    ]
    if copies:
        wanted.append((f"duplicates: {min(SHOWN, len(copies))} of {len(copies)}", copies[:SHOWN]))
    rows = []
    for title, chosen in wanted:
        if chosen:
            items = [(_thumbnail(records[k]), f"{text}{_short(records[k])}") for k, text in chosen]
            rows.append((title, items))
    return rows or [("no readable image", [(np.zeros((THUMBNAIL, THUMBNAIL), np.uint8), "")])]


def _thumbnail(record: Record) -> np.ndarray:
    return prepare_image(decode(record.read()), THUMBNAIL, "pad")


def _short(record: Record) -> str:
    name = Path(record.path).name
    return name if len(name) <= 24 else f"{name[:11]}..{name[-11:]}"
