"""The public chest X-ray sets, read exactly as they are downloaded (`--layout`)."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from keras_cxrgan.data.listing import (
    Files,
    Table,
    base,
    folders_of,
    is_mask,
    list_files,
    read_text,
    rows_by_image,
    stem,
)
from keras_cxrgan.data.patients import patient_of
from keras_cxrgan.data.records import Record, select_classes
from keras_cxrgan.data.tables import Reading, columns_used, plain_tables

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
"""Folders, in lower case, that tell the split of the films below them."""

RSNA_MAPPING = "pneumonia-challenge-dataset-mappings"
_RADIOGRAPHY = re.compile(r"(covid|normal|lung_opacity|viral pneumonia)[-\d (]*\d", re.IGNORECASE)


def read_layout(
    source: str | os.PathLike, layout: str = "auto", classes: Sequence[str] = ()
) -> Reading:
    """Reads a public set as it was downloaded, as a folder or zip: labels, patients, splits.

    `auto` recognises the set by its structure and notes what it took and why; `folder` is the
    plain reading, helped by any CSV with a file, a label and a patient column. `classes` keeps
    those labels only. Raises ValueError (one line) for an unknown layout, or one that does not
    fit what is there.

    >>> read_layout("chest_xray.zip").layout  # doctest: +SKIP
    'kermany'
    """
    if layout != "auto":
        _check_layout(layout)
    source = Path(source)
    files = list_files(source)
    notes = []
    if layout == "auto":
        layout, reason = _recognise(files)
        notes.append(f"layout {layout}: {reason}; another can be named (--layout)")
    reading = LAYOUTS[layout](files)
    left_out = {reason: count for reason, count in reading.left_out.items() if count}
    if files.leftovers:
        left_out["macOS leftover (__MACOSX, ._*)"] = files.leftovers
    if files.overviews:
        left_out["overview of generated images (grid.png)"] = files.overviews
    if not reading.records:
        reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
        raise ValueError(f"{source}: the {layout} layout keeps no image ({reasons}) (--layout)")
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    kept = select_classes(list(reading.records), classes, source)
    if len(kept) < len(reading.records):
        left_out["other class (--class)"] = len(reading.records) - len(kept)
    return Reading(layout, tuple(kept), left_out, (*notes, *reading.notes))


def _kermany(files: Files) -> Reading:
    """Kermany 2018: {train,val,test}/{NORMAL,PNEUMONIA}, perhaps twice (a nested chest_xray/)."""

    def decide(name: str, record: Record) -> Record | str:
        above, label = ("", "", *folders_of(name))[-2:]
        if label.upper() not in ("NORMAL", "PNEUMONIA"):
            return "outside of the folders NORMAL and PNEUMONIA"
        patient, split = patient_of(name, "kermany"), SPLIT_FOLDERS.get(above.lower())
        return replace(record, label=label.upper(), patient=patient, split=split)

    records, left_out = _sift(files, decide, lambda name: tuple(name.split("/")[-3:]))
    if not records:
        raise files.misfit("kermany", "folders NORMAL and PNEUMONIA below train, val and test")
    notes = []
    val = sum(record.split == "val" for record in records)
    if 0 < val < 100:
        notes.append(f"val has {val} files, too few to measure anything: split again by patient")
    pairs = {(record.patient, record.split) for record in records if record.patient}
    crossing = sum(count > 1 for count in Counter(patient for patient, _ in pairs).values())
    if crossing:
        notes.append(
            f"{crossing} person numbers occur in more than one split (perhaps the numbering "
            "restarts): each is held to be one patient, so that a new split cannot leak"
        )
    return Reading("kermany", records, left_out, tuple(notes))


def _covid19_radiography(files: Files) -> Reading:
    """COVID-19 Radiography (Chowdhury 2020): <class>/{images,masks}; older versions <class>/."""
    classes = _radiography_classes(files)

    def decide(name: str, record: Record) -> Record | str:
        if is_mask(name):
            return "lung mask"
        above, folder = ("", "", *folders_of(name))[-2:]
        if folder.lower() == "images":
            return replace(record, label=above or files.source.stem)
        if folder in classes:
            return replace(record, label=folder)
        return "outside of the class folders"

    records, left_out = _sift(files, decide)
    if not records:
        raise files.misfit("covid19-radiography", "folders <class>/images and <class>/masks")
    note = (
        "no patients are published, and each class comes from other sources (Viral Pneumonia: "
        "children; Normal: RSNA and Kermany): the source may tell the class"
    )
    return Reading("covid19-radiography", records, left_out, (note,))


def _covid_chestxray(files: Files) -> Reading:
    """ieee8023/covid-chestxray-dataset (Cohen 2020): metadata.csv beside images/."""
    table = files.table("filename", "finding", "view")
    if table is None:
        raise files.misfit("covid-chestxray", "metadata.csv with filename, finding and view")
    rows, absent = rows_by_image(files, table, "filename")

    def decide(name: str, record: Record) -> Record | str:
        row = rows.get(name)
        reason = f"not in {table.name}" if row is None else _unfit_row(row)
        return reason or replace(record, label=row["finding"], patient=row.get("patientid") or None)

    records, left_out = _sift(files, decide)
    kept = [row for name, row in rows.items() if not _unfit_row(row)]
    notes = [f"views: {_counts(row['view'] for row in kept)} (Supine and Erect are taken as AP)"]
    unlicensed = sum(not row["license"] for row in kept if "license" in row)
    if unlicensed:
        notes.append(f"{unlicensed} images state no licence: do not pass them on")
    return Reading("covid-chestxray", records, left_out, (*notes, *_absent(absent, table)))


def _unfit_row(row: dict[str, str]) -> str | None:
    modality, view = row.get("modality", "").lower(), row["view"].lower()
    if modality == "ct" or view in ("ct", "axial", "coronal"):
        return "CT"
    if modality not in ("", "x-ray", "xray"):
        return f"modality {row['modality']}"
    if view in ("l", "lateral"):
        return "lateral view"
    if not re.match(r"(pa|aps?)\b", view):
        return f"view {row['view'] or 'not stated'}"
    return "finding not known" if row["finding"].lower() in ("", "todo", "unknown") else None


def _nih(files: Files) -> Reading:
    """NIH ChestX-ray14 (Wang 2017): Data_Entry_2017.csv beside images_001/images/."""
    table = files.table("image index", "finding labels")
    if table is None:
        raise files.misfit("nih", "Data_Entry_2017.csv with Image Index and Finding Labels")
    rows = {row["image index"]: row for row in table.rows}
    splits = {}
    for path, record in files.others.items():
        split = {"train_val_list.txt": "train", "test_list.txt": "test"}.get(base(path))
        if split:
            splits.update(dict.fromkeys(read_text(record).split(), split))

    def decide(name: str, record: Record) -> Record | str:
        row = rows.get(base(name))
        if row is None:
            return f"not in {table.name}"
        # The table writes 1 for the patient whom the file names write 00000001.
        number = row.get("patient id", "")
        patient = number.zfill(8) if number else patient_of(name, "nih")
        label, split = row["finding labels"] or None, splits.get(base(name))
        return replace(record, label=label, patient=patient, split=split)

    records, left_out = _sift(files, decide, base)
    kept = [rows[base(record.path)] for record in records]
    several = sum("|" in row["finding labels"] for row in kept)
    notes = [
        f"labels from {table.name} (text mining); {several} images have several (A|B)",
        f"views: {_counts(row.get('view position', '') for row in kept)}",
    ]
    if splits:
        notes.append("splits from train_val_list.txt (as train) and test_list.txt")
    return Reading("nih", records, left_out, (*notes, *_absent(len(rows) - len(kept), table)))


def _rsna(files: Files) -> Reading:
    """RSNA Pneumonia Detection 2018: stage_2_train_labels.csv, one row per box, and DICOM.

    `patientId` names an exam: 26,684 of 11,452 patients. Who they are, RSNA's mapping to NIH tells.
    """
    table, detailed = files.table("patientid", "target"), files.table("patientid", "class")
    if table is None:
        raise files.misfit("rsna", "stage_2_train_labels.csv with patientId and Target")
    boxes = Counter(row["patientid"] for row in table.rows)
    labels = {
        row["patientid"]: "Lung Opacity" if row["target"] == "1" else "No Lung Opacity"
        for row in table.rows
    }
    if detailed is not None:
        labels |= {row["patientid"]: row["class"] for row in detailed.rows if row["class"]}

    patients, told = _rsna_patients(files)

    def decide(name: str, record: Record) -> Record | str:
        exam = stem(name)
        if exam in boxes:
            return replace(record, label=labels[exam], patient=patients.get(exam))
        in_test = any("test" in folder.lower() for folder in folders_of(name))
        return "test image without a label" if in_test else f"not in {table.name}"

    records, left_out = _sift(files, decide, stem)
    several = sum(boxes[stem(record.path)] > 1 for record in records)
    notes = [
        f"{several} films have several rows (one per box): one image each",
        told,
        "these films are a part of NIH ChestX-ray14: do not mix or test across the two",
    ]
    return Reading("rsna", records, left_out, (*notes, *_absent(len(boxes) - len(records), table)))


def _rsna_patients(files: Files) -> tuple[dict[str, str], str]:
    """Return exam -> patient of NIH ChestX-ray14, and where that is from."""
    unknown = (
        "patientId names an exam, so patients are unknown: lay RSNA's"
        f" {RSNA_MAPPING}_2018.json beside the tables, which tells them"
    )
    for path, record in files.others.items():
        if base(path).startswith(RSNA_MAPPING):
            try:
                rows = json.loads(read_text(record))
                found = {row["subset_img_id"]: patient_of(row["img_id"], "nih") for row in rows}
            except (OSError, ValueError, KeyError, TypeError) as error:
                return {}, f"{base(path)} was not read ({error!r}); {unknown}"
            return found, f"patients from {base(path)}: those of NIH ChestX-ray14"
    return {}, unknown


def _montgomery(files: Files) -> Reading:
    """Montgomery County (Jaeger 2014): MCUCXR_0001_0.png, the label is the last digit."""
    return _tuberculosis(files, "montgomery", "MCUCXR_0001_0")


def _shenzhen(files: Files) -> Reading:
    """Shenzhen Hospital (Jaeger 2014): CHNCXR_0001_0.png, the label is the last digit."""
    return _tuberculosis(files, "shenzhen", "CHNCXR_0001_0")


def _tuberculosis(files: Files, layout: str, example: str) -> Reading:
    def decide(name: str, record: Record) -> Record | str:
        if is_mask(name):
            return "lung mask"
        patient = patient_of(name, layout)
        label = "tuberculosis" if stem(name).endswith("1") else "normal"
        return replace(record, label=label, patient=patient) if patient else "other file name"

    records, left_out = _sift(files, decide, base)
    if not records:
        raise files.misfit(layout, f"images named {example}.png (0 normal, 1 tuberculosis)")
    note = "one hospital only: merged with another set, the hospital may tell the class"
    return Reading(layout, records, left_out, (note,))


def _folder(files: Files) -> Reading:
    """Any folder: one per class, helped by a table with columns of files, labels, patients."""
    tables, rows = plain_tables(files)
    found, relabelled = Counter(), 0

    def decide(name: str, record: Record) -> Record:
        nonlocal relabelled
        row, folders = rows.get(name, {}), [folder.lower() for folder in folders_of(name)]
        splits = [SPLIT_FOLDERS[folder] for folder in folders if folder in SPLIT_FOLDERS]
        label = None if folders and folders[-1] in SPLIT_FOLDERS else record.label
        told, patient = row.get("label"), row.get("patient")
        relabelled += None not in (told, label) and told != label
        found["listed"] += bool(patient)
        patient = patient or patient_of(name, "folder")
        found["known"] += bool(patient)
        split = row.get("split") or (splits[-1] if splits else None)
        told_of = {"source": row.get("source"), "original": row.get("original")}
        return replace(record, label=told or label, patient=patient, split=split, **told_of)

    records, left_out = _sift(files, decide)
    total, listed = len(records), found["listed"]
    by_name = found["known"] - listed
    known = f"patients known for {found['known']} of {total} images"
    notes = [f"{known}: {listed} from a table, {by_name} by the file's name"]
    for table, about, absent in tables:
        used = ", ".join(columns_used(table).values())
        notes.append(f"{table.name} ({used}) is about {about} of {total} images")
        notes += _absent(absent, table)
    if relabelled:
        names = " and ".join(table.name for table, *_ in tables)
        notes.append(f"{relabelled} labels are not the folder's: those of {names} were taken")
    notes += [f"{name} was not read: {reason}" for name, reason in files.unread.items()]
    masks = sum(map(is_mask, files.images))
    if masks:
        notes.append(f"{masks} images are in folders of masks or named so: they are kept")
    return Reading("folder", records, left_out, tuple(notes))


LAYOUTS: dict[str, Callable[[Files], Reading]] = {
    "kermany": _kermany,
    "covid19-radiography": _covid19_radiography,
    "covid-chestxray": _covid_chestxray,
    "nih": _nih,
    "rsna": _rsna,
    "montgomery": _montgomery,
    "shenzhen": _shenzhen,
    "folder": _folder,
}


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        near = difflib.get_close_matches(layout.lower(), LAYOUTS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"no layout {layout!r}{hint}: use auto, {', '.join(LAYOUTS)} (--layout)")


def _recognise(files: Files) -> tuple[str, str]:
    """The layout whose structure is there, and what told it."""
    films = [name for name in files.images if not is_mask(name)]
    clues = {}
    for layout, columns in {
        "nih": ("image index", "finding labels"),
        "rsna": ("patientid", "x", "y", "target"),
        "covid-chestxray": ("filename", "finding", "view", "patientid"),
    }.items():
        table = files.table(*columns)
        if table is not None:
            clues[layout] = f"{table.name} has the columns {', '.join(columns)}"
    if _radiography_classes(files):
        clues["covid19-radiography"] = "its class folders, with masks or metadata beside them"
    named = [name for name in films if patient_of(name, "kermany")]
    parents = {"".join(folders_of(name)[-1:]).upper() for name in films}
    # Kermany's classes beside a third one are somebody's own set: `folder` keeps all of it.
    if parents <= {"NORMAL", "PNEUMONIA"} and 2 * len(named) >= len(films) > 0:
        clues["kermany"] = "NORMAL and PNEUMONIA hold names such as " + base(named[0])
    tuberculosis = {
        layout: [name for name in films if patient_of(name, layout)]
        for layout in ("montgomery", "shenzhen")
    }
    if sum(map(len, tuberculosis.values())) >= 0.9 * len(films):
        for layout, names in tuberculosis.items():
            if names:
                clues[layout] = f"{len(names)} names such as {base(names[0])}"
    if len(clues) > 1:
        raise ValueError(
            f"{files.source} looks like several sets, {' and '.join(clues)}: give the folder of "
            "one, or name the layout (--layout)"
        )
    return next(iter(clues.items()), ("folder", "no public set was recognised"))


def _radiography_classes(files: Files) -> set[str]:
    """Class folders with images/ and masks/, or with <class>.metadata.xlsx beside them."""
    inside = {}
    for name in files.images:
        above, folder = ("", "", *folders_of(name))[-2:]
        if folder.lower() in ("images", "masks") and _RADIOGRAPHY.match(stem(name)):
            inside.setdefault(above or files.source.stem, set()).add(folder.lower())
    suffix = ".metadata.xlsx"
    books = {base(name)[: -len(suffix)] for name in files.others if name.endswith(suffix)}
    folders = {folder for name in files.images for folder in folders_of(name)}
    return {label for label, found in inside.items() if len(found) == 2} | (books & folders)


def _sift(
    files: Files,
    decide: Callable[[str, Record], Record | str],
    identity: Callable[[str], Hashable] = lambda name: name,
) -> tuple[tuple[Record, ...], dict[str, int]]:
    """Kept records and counts of the reasons; of equal identity the least nested is kept."""
    records, left_out, seen = {}, Counter(), set()
    for name in sorted(files.images, key=lambda name: (name.count("/"), name)):
        kept = decide(name, files.images[name])
        if isinstance(kept, Record) and identity(name) in seen:
            kept = "second copy of the same name"
        if isinstance(kept, Record):
            seen.add(identity(name))
            records[name] = kept
        else:
            left_out[kept] += 1
    return tuple(records[name] for name in sorted(records)), dict(left_out)


def _absent(count: int, table: Table) -> list[str]:
    return [f"{count} entries of {table.name} are about no image here"] if count > 0 else []


def _counts(values: Iterable[str]) -> str:
    counted = Counter(values).most_common()
    return ", ".join(f"{value or 'not stated'} {count}" for value, count in counted)
