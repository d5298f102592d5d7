"""Patient-wise splits: no patient and no content on two sides, classes balanced."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

FRACTIONS: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.15, "test": 0.15})
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Split:
    """The split of each file, in the order of the files, and a report ready for JSON."""

    names: tuple[str, ...]
    report: dict[str, Any]


def split_patients(
    labels: Sequence[str | None],
    patients: Sequence[str | None],
    hashes: Sequence[str],
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    folds: int | None = None,
    near_duplicates: Iterable[tuple[int, int]] = (),
    originals: Sequence[str | None] | None = None,
) -> Split:
    """Splits files by patient, stratified by class as well as whole patients allow.

    Files of one patient, files of equal hash or made of one, and near duplicates stay together; a
    file without a patient is a patient of its own. With `folds` the splits are `fold0`, `fold1`, ... of
    equal size. The result depends on the contents and the seed, not on the order of the files.

    Args:
        labels, patients, hashes: one of each per file; the hash is of the file's content.
        fractions: share of the files for each split, summing to 1.
        near_duplicates: pairs of indices of files that show the same image, or patient.
        originals: hash of the file that each was made of, None where it is none's copy.

    Raises `ValueError` when there are fewer groups of patients than splits.

    >>> split_patients("aabb", "1234", "wxyz", fractions={"train": 0.5, "test": 0.5}).report[
    ...     "splits"
    ... ]["test"]["classes"]["a"]
    {'files': 1, 'patients': 1}
    """
    shares = _shares(fractions, folds)
    if not len(labels) == len(patients) == len(hashes):
        raise ValueError("labels, patients and hashes must be as many as there are files")
    if not all(hashes):
        raise ValueError("a file without a hash cannot be split: leave out unreadable files")
    classes = [label or UNLABELLED for label in labels]
    identities = [(patient, 0) if patient else ("", i) for i, patient in enumerate(patients)]
    groups = _joined(patients, hashes, near_duplicates, originals or [None] * len(hashes))
    if len(groups) < len(shares):
        raise ValueError(
            f"{len(hashes)} files make {len(groups)} groups of patients and duplicates, too few "
            f"for {len(shares)} splits: ask for fewer (--fractions, --folds), or check how "
            "patients are told apart (--patient-regex)"
        )
    names = [""] * len(hashes)
    for group, name in _assign(groups, classes, hashes, shares, seed):
        for index in group:
            names[index] = name
    counts = Counter(hashes)
    joined = [sorted({p for p in (patients[i] for i in group) if p}) for group in groups]
    report = {
        "files": len(names),
        "patients": len(set(identities)),
        "files_without_patient": sum(not patient for patient in patients),
        "duplicate_files": len(hashes) - len(counts),
        "joined_patients": sorted(ids for ids in joined if len(ids) > 1),
        "classes": _count(range(len(names)), classes, identities),
        "splits": _describe(names, classes, identities, shares),
    }
    return Split(tuple(names), report)


def straddling(splits: Sequence[str], keys: Sequence[str | None]) -> list[str]:
    """The keys (patients or hashes) that lie in more than one split, sorted; None is no key.

    >>> straddling(["train", "test", "test"], ["p1", "p1", "p2"])
    ['p1']
    """
    seen = defaultdict(set)
    for split, key in zip(splits, keys):
        if key:
            seen[key].add(split)
    return sorted(key for key, found in seen.items() if len(found) > 1)


def crossing(
    trained_on: Iterable[str],
    names: Sequence[str],
    hashes: Sequence[str],
    originals: Sequence[str | None],
) -> list[str]:
    """The names of the tested files whose content, or that of their original, was trained on.

    >>> crossing({"h1", "h3"}, ["a.png", "b.png", "c.png"], ["h1", "h2", "h4"], [None, None, "h3"])
    ['a.png', 'c.png']
    """
    trained_on = frozenset(trained_on)
    tested = zip(names, hashes, originals)
    return [name for name, digest, made_of in tested if trained_on & {digest, made_of}]


def _shares(fractions: Mapping[str, float], folds: int | None) -> dict[str, float]:
    if folds is not None:
        if folds < 2:
            raise ValueError(f"{folds} folds: at least 2 are needed (--folds)")
        return {f"fold{index}": 1 / folds for index in range(folds)}
    shares = {name: float(share) for name, share in fractions.items()}
    told = ", ".join(f"{name}={share:g}" for name, share in shares.items()) or "none"
    if len(shares) < 2 or not all(name.strip() and share > 0 for name, share in shares.items()):
        raise ValueError(
            f"fractions are {told}: give two or more, each above 0, such as "
            "train=0.7,val=0.15,test=0.15 (--fractions)"
        )
    total = sum(shares.values())
    if not math.isclose(total, 1, abs_tol=1e-3):
        raise ValueError(f"fractions {told} sum to {total:g}: they must sum to 1 (--fractions)")
    return shares


def _joined(
    patients: Sequence[str | None],
    hashes: Sequence[str],
    pairs: Iterable[tuple[int, int]],
    originals: Sequence[str | None],
) -> list[list[int]]:
    """Groups of file indices that must stay together (union-find)."""
    parent = list(range(len(hashes)))

    def root(index):
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, (patient, *contents) in enumerate(zip(patients, hashes, originals)):
        for digest in filter(None, contents):
            parent[root(index)] = root(first.setdefault(("hash", digest), index))
        if patient:
            parent[root(index)] = root(first.setdefault(("patient", patient), index))
    for a, b in pairs:
        parent[root(a)] = root(b)
    groups = defaultdict(list)
    for index in range(len(hashes)):
        groups[root(index)].append(index)
    return list(groups.values())


def _assign(
    groups: list[list[int]],
    classes: Sequence[str],
    hashes: Sequence[str],
    shares: dict[str, float],
    seed: int,
) -> Iterator[tuple[list[int], str]]:
    """Gives each group to the split that it brings closest to its share of every class.

    The distance is chi-square: the sum of (count - target)^2 / target over classes and splits.
    """
    totals = Counter(classes)
    keys = [min(hashes[index] for index in group) for group in groups]
    made_of = [Counter(classes[index] for index in group) for group in groups]

    def draw(*parts):
        return hashlib.sha256("\0".join([str(seed), *parts]).encode()).digest()

    def order(i):
        # Large groups first, for small ones can level what they leave. Sizes are compared by
        # powers of two, so that the seed moves large patients too.
        rarest = min(totals[label] for label in made_of[i])
        return -len(groups[i]).bit_length(), rarest, draw(keys[i])

    counts = {name: Counter() for name in shares}
    empty = dict.fromkeys(shares)
    ranked = sorted(range(len(groups)), key=order)
    for position, i in enumerate(ranked):

        def added_distance(name, i=i):
            distance = sum(
                number * (2 * counts[name][label] + number) / (shares[name] * totals[label])
                for label, number in made_of[i].items()
            )
            # Rounded, or the last bits of equal distances would decide instead of the seed.
            return round(distance, 9), draw(keys[i], name)

        # The last groups go where nothing is yet: no split stays empty.
        needed = len(empty) >= len(ranked) - position
        name = min(empty if needed else shares, key=added_distance)
        empty.pop(name, None)
        counts[name] += made_of[i]
        yield groups[i], name


def _count(indices: Iterable[int], classes, identities) -> dict[str, dict[str, int]]:
    files, patients = Counter(), defaultdict(set)
    for index in indices:
        files[classes[index]] += 1
        patients[classes[index]].add(identities[index])
    return {
        label: {"files": files[label], "patients": len(patients[label])} for label in sorted(files)
    }


def _describe(names, classes, identities, shares) -> dict[str, dict[str, Any]]:
    totals = Counter(classes)
    described = {}
    for name, share in shares.items():
        inside = [index for index, other in enumerate(names) if other == name]
        found = _count(inside, classes, identities)
        none = {"files": 0, "patients": 0}
        by_class = {label: found.get(label, none) for label in sorted(totals)}
        described[name] = {
            "fraction": share,
            "files": len(inside),
            "patients": len({identities[index] for index in inside}),
            "classes": by_class,
            # How far the share of a class in this split is from its share in the whole.
            "largest_share_difference": max(
                abs(by_class[label]["files"] / len(inside) - totals[label] / len(names))
                for label in totals
            ),
        }
    return described
