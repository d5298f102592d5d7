"""The films of a study and its parts: who is trained on, who chooses, who is tested."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from keras_cxrgan.data.manifest import Entry, is_manifest, read_manifest
from keras_cxrgan.data.records import Record, content_hash
from keras_cxrgan.data.sources import ALL, HELD_OUT, named_split, read_source
from keras_cxrgan.data.splits import crossing
from keras_cxrgan.workflows.splitting import split

FEWEST = 4  # films of a class to train on, below which nothing is learnt of it
VALIDATION_SHARE = 0.2
_FOLD = re.compile(r"fold\d+")


@dataclass(frozen=True)
class Films:
    """Labelled films, by their place; a film without a patient is a patient of its own."""

    source: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    hashes: tuple[str, ...]

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The number of each film's class."""
        return tuple(self.classes.index(record.label) for record in self.records)

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The name of each film's patient."""
        return tuple(
            record.patient or f"film-{digest[:16]}"
            for record, digest in zip(self.records, self.hashes)
        )

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """A key for each film's patient: who has one film under two names is one patient."""
        joined, first = {}, {}

        def key(name):
            while name in joined:
                name = joined[name]
            return name

        for record, digest, name in zip(self.records, self.hashes, self.named):
            for content in filter(None, (digest, record.original)):
                one, other = sorted((key(name), key(first.setdefault(content, name))))
                if one != other:
                    joined[other] = one
        return tuple(map(key, self.named))


@dataclass(frozen=True)
class Part:
    """One division into films to train on and films to test on, as places in `Films`."""

    name: str
    training: tuple[int, ...]
    test: tuple[int, ...]


def read_films(
    source: str, classes: Sequence[str] = (), folds: int | None = None, report=None
) -> tuple[Films, list[Part]]:
    """Return the films of a manifest and its parts: each fold in turn, or the test split.

    A set that comes divided into train and test needs no manifest.

    Args:
        folds: make so many folds by patient, with copies and near copies on one side, in the
            place of the manifest's own splits.

    Raises `ValueError` for a source without labels or patient-wise splits.
    """
    if folds is not None:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "folds.csv"
            split(source, table, classes=classes, folds=folds, report_progress=report)
            entries = read_manifest(table)
    elif is_manifest(named_split(source)[0]):
        entries = read_source(source, classes, ALL)[1]
    elif not Path(named_split(source)[0]).exists():
        raise ValueError(f"there is no {source}: give a manifest (cxrgan split FILMS --out FILE)")
    else:
        entries = _as_published(source, classes)
    films = _films(source, entries)
    return films, _parts(source, films, entries)


def is_divided(source: str) -> bool:
    """Return whether a source comes with folds, or with films to train on and to test on."""
    splits = {record.split for record in read_source(source, split=ALL)[0].records}
    return {"train", "test"} <= splits or (
        len(splits) > 1 and all(_FOLD.fullmatch(name or "") for name in splits)
    )


def _as_published(source: str, classes: Sequence[str]) -> list[Entry]:
    """Return the films of a set that comes divided into train and test."""
    records = read_source(source, classes, ALL)[0].records
    if not {"train", "test"} <= {record.split for record in records}:
        raise ValueError(
            f"{source} is no manifest: make one with cxrgan split {source} --out manifest.csv"
            " --folds 5, or let the study make folds by patient with --folds 5"
        )
    return [Entry(record, content_hash(record.read()), record.source or "") for record in records]


def _films(source: str, entries: Sequence[Entry]) -> Films:
    without = [entry.record.name for entry in entries if not entry.record.label]
    if without:
        raise ValueError(
            f"{len(without)} of the {len(entries)} films of {source} have no class ({without[0]},"
            " ...): put each in the folder of its class, or name the classes with --class"
        )
    names = tuple(sorted({entry.record.label for entry in entries}))
    if len(names) < 2:
        raise ValueError(f"{source} has films of {names[0]} alone: a study needs two classes")
    return Films(source, names, tuple(e.record for e in entries), tuple(e.sha256 for e in entries))


def _parts(source: str, films: Films, entries: Sequence[Entry]) -> list[Part]:
    splits = [entry.record.split for entry in entries]
    places = {name: [i for i, other in enumerate(splits) if other == name] for name in splits}
    if len(places) > 1 and all(map(_FOLD.fullmatch, places)):
        names = sorted(places, key=lambda name: int(name.removeprefix("fold")))
        parts = [
            Part(name, tuple(i for i, s in enumerate(splits) if s != name), tuple(places[name]))
            for name in names
        ]
    else:
        held = [name for name in places if name.lower() in ("test", "testing")]
        training = [name for name in places if name not in held]
        unknown = [n for n in training if n.lower() != "train" and n.lower() not in HELD_OUT]
        if not held or not training or unknown:
            raise ValueError(
                f"{source} has the splits {', '.join(places)}: a study needs folds, or train and"
                " test; pass --folds 5, which makes them by patient"
            )
        chosen = tuple(i for i, name in enumerate(splits) if name in training)
        parts = [Part("test", chosen, tuple(i for i, name in enumerate(splits) if name in held))]
    for part in parts:
        check_apart(films, part.training, part.test)
    return parts


def check_apart(films: Films, training: Sequence[int], test: Sequence[int]) -> None:
    """Raise `ValueError` if a patient, by name or by a film, is both trained and tested on."""
    patients = films.patients
    shared = {patients[i] for i in training} & {patients[i] for i in test}
    if shared:
        raise ValueError(
            f"{_some(shared, 'patient')} of {films.source} would be trained and tested on, by name or"
            " by a film under two names: make a new manifest (cxrgan split)"
        )


def crossed_films(films: Films, trained_on: set[str] | frozenset[str], test: Sequence[int]):
    """Return the names of tested films that, or of whose patients a film, was trained on.

    Args:
        trained_on: SHA-256 of films, as `runs.films_of` gives them.
    """
    records = [films.records[i] for i in test]
    contents = crossing(
        trained_on,
        [record.name for record in records],
        [films.hashes[i] for i in test],
        [record.original for record in records],
    )
    known = zip(films.patients, films.hashes, films.records)
    seen = {
        patient
        for patient, digest, record in known
        if digest in trained_on or record.original in trained_on
    }
    return sorted({*contents, *(films.records[i].name for i in test if films.patients[i] in seen)})


def read_external(source: str, films: Films) -> Films:
    """Return the films of an external test set, of the study's classes, no patient in common."""
    reading, entries = read_source(source, films.classes, ALL, allow_leak=True)
    hashes = [entry.sha256 for entry in entries]
    if not entries:
        hashes = [content_hash(record.read()) for record in reading.records]
    external = Films(str(source), films.classes, reading.records, tuple(hashes))
    shared = {*external.named} & {*films.named}
    if shared:
        raise ValueError(
            f"{_some(shared, 'patient')} of --external {source} are in {films.source} too: leave"
            " them out, or, if they are other people, give them other names"
        )
    crossed = crossed_films(external, set(films.hashes), range(len(hashes)))
    if crossed:
        raise ValueError(
            f"{_some(crossed, 'film')} of --external {source} are in {films.source} too: leave"
            " them out"
        )
    return external


def choose(films: Films, part: Part, size: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return the films to fit on and those to choose by, of a share of a part's training films.

    Whole patients, in each class the same share; a smaller size lies inside every larger one.
    A fifth of the patients chosen, at least one of each class, choose the state and are neither
    fitted on nor seen by a GAN: their films in its images would make the choice blind.
    """
    by_patient: dict[str, list[int]] = defaultdict(list)
    for index in part.training:
        by_patient[films.patients[index]].append(index)
    labels = films.labels
    by_class: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(by_patient):
        counts = Counter(labels[i] for i in by_patient[patient])
        by_class[min(counts, key=lambda label: (-counts[label], label))].append(patient)
    fitted, validating = [], []
    for patients in by_class.values():
        inside = _share(_drawn(patients, seed, "size"), by_patient, size)
        held = _share(_drawn(inside, seed, "validation"), by_patient, VALIDATION_SHARE)
        for patient in inside:
            (validating if patient in held else fitted).extend(by_patient[patient])
    return sorted(fitted), sorted(validating)


def _share(patients: list[str], films: dict[str, list[int]], share: float) -> list[str]:
    """Return the first patients who together have a share of the films, at least one of them."""
    wanted = share * sum(len(films[patient]) for patient in patients)
    chosen, count = [], 0
    for patient in patients:
        # To the nearer side of the share: a patient of many films must not make it twice as large.
        if chosen and count + len(films[patient]) / 2 > wanted + 1e-9:
            break
        chosen.append(patient)
        count += len(films[patient])
    return chosen


def _drawn(patients: Sequence[str], seed: int, what: str) -> list[str]:
    return sorted(patients, key=lambda p: hashlib.sha256(f"{seed}\0{what}\0{p}".encode()).digest())


def count_classes(films: Films, places: Sequence[int]) -> list[int]:
    """Return the number of films of each class among these places."""
    counts = Counter(films.labels[i] for i in places)
    return [counts[number] for number in range(len(films.classes))]


def training_entries(films: Films, places: Sequence[int]) -> list[Entry]:
    """Return the rows of a manifest that has these films, all to train on."""
    return [
        Entry(
            replace(films.records[i], split="train"), films.hashes[i], films.records[i].source or ""
        )
        for i in places
    ]


def _some(names, what: str) -> str:
    names = sorted(names)
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({', '.join(names[:3])}{more})"
