"""From a data set to its manifest: hashes, patients, splits."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_cxrgan.data import sources
from keras_cxrgan.data.dicom import pseudonym
from keras_cxrgan.data.inspection import FileFacts, near_pairs_grouped, read_facts
from keras_cxrgan.data.manifest import Entry, write_manifest
from keras_cxrgan.data.patients import compile_patient_regex
from keras_cxrgan.data.prepare import BadFiles, in_order
from keras_cxrgan.data.records import Record
from keras_cxrgan.data.splits import FRACTIONS, split_patients


def split(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: Sequence[str] = (),
    layout: str = "auto",
    fractions: Mapping[str, float] = FRACTIONS,
    folds: int | None = None,
    seed: int = 0,
    patient_regex: str | None = None,
    on_bad_file: str = "error",
    overwrite: bool = False,
    report_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Split a data set by patient and write the manifest; return a summary ready for JSON.

    A film's patient is what `patient_regex` finds in its name, else what the layout or a table
    says (see `read_layout`), else the DICOM tag PatientID, under the name that other films of the
    tag were given. A film without any is a patient of its own, which is warned of. Copies, exact and near, stay on one side.

    Args:
        out: the CSV file of the manifest.
        patient_regex: a pattern with one group, such as `person(\\d+)_`.
        on_bad_file: "skip" leaves files out that cannot be read.

    Raises `ValueError` when `out` exists and `overwrite` is false, for files that cannot be
    read, and when there are too few patients.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder: give the name of a CSV file (--out)")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} already exists; choose another --out, or pass --overwrite")
    pattern = compile_patient_regex(patient_regex) if patient_regex is not None else None
    reading, _ = sources.read_source(source, classes, sources.ALL, layout=layout, allow_leak=True)
    facts, rejected = _look(reading.records, on_bad_file, report_progress)
    records = [record for record, fact in zip(reading.records, facts) if not fact.reason]
    facts = [fact for fact in facts if not fact.reason]
    patients, found_by = [], Counter()
    for record, fact in zip(records, facts):
        matched = pattern.search(record.name) if pattern else None
        candidates = {
            "--patient-regex": matched and matched.group(1),
            f"{reading.layout} layout": record.patient,
            # RSNA's tags name the exam, as its table does.
            "DICOM PatientID": None if reading.layout == "rsna" else fact.patient,
        }
        how = next((how for how, patient in candidates.items() if patient), None)
        patients.append(candidates[how] if how else None)
        found_by.update([how] if how else [])
    patients = _by_given_name(patients, facts)
    alike = near_pairs_grouped(facts)
    hashes = [fact.sha256 for fact in facts]
    made = split_patients(
        [record.label for record in records],
        patients,
        hashes,
        fractions=fractions,
        seed=seed,
        folds=folds,
        near_duplicates=[(group[0], other) for group in alike for other in group[1:]],
        originals=[record.original for record in records],
    )
    write_manifest(
        out,
        [
            Entry(
                replace(record, patient=patient, split=name),
                digest,
                record.source or Path(source).resolve().name,
                None if folds is None else int(name.removeprefix("fold")),
            )
            for record, patient, name, digest in zip(records, patients, made.names, hashes)
        ],
    )
    return {
        "manifest": str(out),
        "source": str(source),
        "layout": reading.layout,
        "notes": sources.describe_left_out(reading),
        "seed": seed,
        "patients_found_by": dict(found_by),
        "near_duplicates": [[records[i].name for i in group] for group in alike],
        "rejected": rejected,
        **made.report,
        "warnings": _warnings(made.report, found_by, patient_regex, records, rejected),
    }


def _by_given_name(patients: Sequence[str | None], facts: Sequence[FileFacts]) -> list[str | None]:
    """Return patients whom only a tag names by the name that a table or layout gives them.

    It gives it to films of the same tag, or is the tag itself. A tag of several such names is no
    patient's: anonymisers write the same one for all.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for patient, fact in zip(patients, facts):
        if patient and patient != fact.tagged:
            names[pseudonym(patient)].add(patient)
            names[fact.tagged or ""].add(patient)
    alone = {tag: min(given) for tag, given in names.items() if len(given) == 1}
    return [
        alone.get(patient, patient) if patient and patient == fact.tagged else patient
        for patient, fact in zip(patients, facts)
    ]


def _look(
    records: Sequence[Record], on_bad_file: str, report_progress: Callable | None
) -> tuple[list[FileFacts], list[tuple[str, str]]]:
    """What every film is, read in parallel, and (name, reason) of those that cannot be used."""
    facts: list[FileFacts] = []
    for fact in in_order(read_facts, records, min(os.cpu_count() or 1, 32)):
        facts.append(fact)
        if report_progress:
            report_progress("films", len(facts), len(records))
    rejected = [(fact.name, fact.reason) for fact in facts if fact.reason]
    if rejected and on_bad_file != "skip":
        raise BadFiles(rejected, len(facts), "Remove or repair them, or pass --on-bad-file skip.")
    return facts, rejected


def _warnings(
    report: dict,
    found_by: Mapping[str, int],
    patient_regex: str | None,
    records: Sequence[Record],
    rejected: Sequence,
) -> list[str]:
    warnings = []
    unknown = report["files_without_patient"]
    if unknown:
        warnings.append(
            f"{unknown:,} of {report['files']:,} files have no known patient and each counts as "
            "one of its own: if a patient has several of them, they may lie on both sides "
            "(give --patient-regex, or a metadata.csv with the columns file and patient_id)"
        )
    if patient_regex and "--patient-regex" not in found_by:
        warnings.append(f"--patient-regex {patient_regex!r} found no patient in any name")
    if rejected:
        warnings.append(f"{len(rejected):,} files cannot be read and are in no split")
    for name, described in report["splits"].items():
        lacking = [label for label, count in described["classes"].items() if not count["files"]]
        if lacking:
            warnings.append(f"{name} has no file of {', '.join(lacking)}: too few patients")
    labels = defaultdict(set)
    for record in records:
        labels[record.source].add(record.label)
    apart = [f"{source}: {min(found)}" for source, found in labels.items() if len(found) == 1]
    if None not in labels and len(labels) > 1 and all(map(all, labels.values())) and apart:
        warnings.append(
            f"these sources hold one class only ({', '.join(sorted(apart))}): a classifier can"
            " learn the source instead of the disease, and no split mends that"
        )
    return warnings
