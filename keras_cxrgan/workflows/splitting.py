"""From a data set to its manifest: hashes, patients, splits."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from keras_cxrgan.data.manifest import Entry, write_manifest
from keras_cxrgan.data.records import Record, content_hash, find_records
from keras_cxrgan.data.splits import FRACTIONS, split_patients

# NIH ChestX-ray14: 00001280_004.png is image 4 of patient 1280.
_NIH_NAME = re.compile(r"(\d{8})_\d{3}")
_METADATA = "metadata.csv"


def split(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: Sequence[str] = (),
    fractions: Mapping[str, float] = FRACTIONS,
    folds: int | None = None,
    seed: int = 0,
    patient_regex: str | None = None,
    find_near_duplicates: Callable[[Sequence[Record]], Iterable[tuple[int, int]]] | None = None,
    overwrite: bool = False,
    report_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Split a data set by patient and write the manifest; return a summary ready for JSON.

    A file's patient is what its record says, else what `metadata.csv` at the top of the data
    says, else what `patient_regex` finds in its relative name, else the NIH file name rule
    where all names fit it. A file without any is a patient of its own, which is warned of.

    Args:
        out: the CSV file of the manifest.
        patient_regex: a pattern with one group, such as `person(\\d+)_`.
        find_near_duplicates: returns pairs of indices of records that show the same image.

    Raises `ValueError` when `out` exists and `overwrite` is false, for files that cannot be
    read, and when there are too few patients.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder: give the name of a CSV file (--out)")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} already exists; choose another --out, or pass --overwrite")
    pattern = _compiled(patient_regex)
    records = find_records(source, classes)
    names = _relative_names(records, Path(source))
    patients, found_by, origins = _identify(records, names, Path(source), pattern)
    hashes = _hash_all(records, report_progress)
    pairs = find_near_duplicates(records) if find_near_duplicates else ()
    made = split_patients(
        [record.label for record in records],
        patients,
        hashes,
        fractions=fractions,
        seed=seed,
        folds=folds,
        near_duplicates=pairs,
    )
    write_manifest(
        out,
        [
            Entry(
                replace(record, patient=patient, split=name),
                digest,
                origin,
                None if folds is None else int(name.removeprefix("fold")),
            )
            for record, patient, name, digest, origin in zip(
                records, patients, made.names, hashes, origins
            )
        ],
    )
    return {
        "manifest": str(out),
        "source": str(source),
        "seed": seed,
        "patients_found_by": found_by,
        **made.report,
        "warnings": _warnings(made.report, found_by, patient_regex),
    }


def _compiled(patient_regex: str | None) -> re.Pattern | None:
    if patient_regex is None:
        return None
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise ValueError(
            f"the pattern {patient_regex!r} is wrong ({error}): such as 'person(\\d+)_' "
            "(--patient-regex)"
        ) from None
    if pattern.groups != 1:
        raise ValueError(
            f"the pattern {patient_regex!r} has {pattern.groups} groups: it needs one, in "
            "brackets around the patient, such as 'person(\\d+)_' (--patient-regex)"
        )
    return pattern


def _relative_names(records: Sequence[Record], source: Path) -> list[str]:
    """Names below the source, with forward slashes."""
    if source.is_dir():
        return [
            Path(record.path).relative_to(source).as_posix()
            if record.archive is None
            else record.path
            for record in records
        ]
    return [Path(record.path).name if record.archive is None else record.path for record in records]


def _identify(
    records: Sequence[Record], names: Sequence[str], source: Path, pattern: re.Pattern | None
) -> tuple[list[str | None], dict[str, int], list[str]]:
    """The patient of each file, how many were found by what, and the origin of each file."""
    metadata = _read_metadata(source)
    bare_names = [PurePosixPath(name).name for name in names]
    repeated = Counter(bare_names)
    nih_names = [_NIH_NAME.fullmatch(PurePosixPath(name).stem) for name in bare_names]
    follow_nih = all(nih_names)
    patients, origins, found_by = [], [], Counter()
    for record, name, bare, nih in zip(records, names, bare_names, nih_names):
        # A table that lists bare names cannot tell two files of that name apart.
        unlisted = metadata.get(bare, ("", "")) if repeated[bare] == 1 else ("", "")
        listed, origin = metadata.get(name, unlisted)
        matched = pattern.search(name) if pattern else None
        candidates = {
            "data set": record.patient,
            _METADATA: listed,
            "--patient-regex": matched and matched.group(1),
            "NIH file names": nih.group(1) if follow_nih else None,
        }
        how = next((how for how, patient in candidates.items() if patient), None)
        patients.append(candidates[how] if how else None)
        origins.append(origin or source.resolve().name)
        found_by[how] += 1
    found_by.pop(None, None)
    return patients, dict(found_by), origins


def _read_metadata(source: Path) -> dict[str, tuple[str, str]]:
    """File name -> (patient, origin), of the `metadata.csv` at the top of the data, if any."""
    try:
        if source.is_dir():
            data = (source / _METADATA).read_bytes()
        else:
            data = Record(_METADATA, archive=str(source)).read()
    except (OSError, ValueError):
        return {}
    text = data.decode("utf-8-sig", errors="surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [re.sub(r"[ _-]", "", name).lower() for name in next(rows, [])]

    def column(*wanted):
        return next((header.index(name) for name in wanted if name in header), None)

    file, patient = column("file", "filename", "path"), column("patient", "patientid")
    origin = column("source")
    found: dict[str, tuple[str, str]] = {}
    if file is None or patient is None:
        return found
    for row in rows:
        row += [""] * (len(header) - len(row))
        name = row[file].strip().replace("\\", "/").removeprefix("./")
        value = (row[patient].strip(), row[origin].strip() if origin is not None else "")
        if found.setdefault(name, value)[0] != value[0]:
            raise ValueError(
                f"{_METADATA} of {source} gives {name} two patients ({found[name][0]!r} and "
                f"{value[0]!r}): correct or remove one of the lines"
            )
    return found


def _hash_all(records: Sequence[Record], report_progress: Callable | None) -> list[str]:
    """SHA-256 of every file, read in parallel."""

    def attempt(record):
        try:
            return content_hash(record.read()), ""
        except OSError as error:
            return "", error.strerror or str(error)
        except ValueError as error:
            return "", str(error)

    results = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 32)) as pool:
        for result in pool.map(attempt, records):
            results.append(result)
            if report_progress:
                report_progress("hashes", len(results), len(records))
    bad = [(record.name, reason) for record, (_, reason) in zip(records, results) if reason]
    if bad:
        name, reason = bad[0]
        raise ValueError(
            f"{len(bad)} of {len(records)} files cannot be read, the first {name} ({reason}): "
            "remove or repair them"
        )
    return [digest for digest, _ in results]


def _warnings(report: dict, found_by: dict[str, int], patient_regex: str | None) -> list[str]:
    warnings = []
    unknown = report["files_without_patient"]
    if unknown:
        warnings.append(
            f"{unknown:,} of {report['files']:,} files have no known patient and each counts as "
            "one of its own: if a patient has several of them, they may lie on both sides "
            f"(give --patient-regex, or a {_METADATA} with the columns file and patient_id)"
        )
    if patient_regex and "--patient-regex" not in found_by:
        warnings.append(f"--patient-regex {patient_regex!r} found no patient that was not known")
    for name, described in report["splits"].items():
        lacking = [label for label, count in described["classes"].items() if not count["files"]]
        if lacking:
            warnings.append(f"{name} has no file of {', '.join(lacking)}: too few patients")
    return warnings
