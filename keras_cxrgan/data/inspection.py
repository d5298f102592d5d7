"""What a set of films holds before anything is trained on it: one parallel pass, then counts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .codecs import PNG, clean_png
from .headers import Header, read_header
from .images import decode
from .prepare import in_order
from .records import Record, content_hash
from .shortcuts import find_shortcuts
from .suspects import Suspicion, suspicions

BORDER = 0.04
NEAR_BLACK = 8
NEAR_BITS = 6
NEAR_CORRELATION = 0.98
NO_CLASS = "(no class)"
SIZES_SHOWN = 10

_COLOUR_MODES = ("RGB", "palette", "RGB + alpha", "CMYK")  # of PNG and JPEG
_COLOURED = 32  # difference of the channels from which a pixel counts as coloured
_BLOCK = 1024

GIVEN, DICOM_ID = "given with the files", "DICOM PatientID"
_FRONTAL = ("PA", "AP")


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What one file is. `reason` says why it is unreadable; the fields after it are then empty.

    `border` is the share of near-black pixels in the outer 4 %, `mean_grey` is in 0-255,
    `pixels` the hash of the decoded grey image, `perceptual` 64 bits of its lowest cosine
    frequencies (pHash, Zauner 2010), `thumbnail` uint8 (32, 32). `modality`, `view` and
    `manufacturer` are those of a DICOM file. `patient_from` is `GIVEN` or `DICOM_ID`; in the
    second case `patient` is a pseudonym (`dicom.pseudonym`), never the id itself. `tagged` is
    that pseudonym also where `patient` was given.
    """

    name: str
    label: str | None
    patient: str | None
    split: str | None
    patient_from: str | None = None
    modality: str | None = None
    view: str | None = None
    manufacturer: str | None = None
    sha256: str = ""
    reason: str = ""
    codec: str = "other"
    height: int = 0
    width: int = 0
    bits: int = 0
    mode: str = "other"
    mean_grey: float = 0.0
    border: float = 0.0
    pixels: str = ""
    perceptual: int = 0
    thumbnail: np.ndarray | None = None
    tagged: str | None = None
    suspicions: tuple[Suspicion, ...] = ()

    def as_dict(self) -> dict:
        """JSON-ready, without the thumbnail and the second patient; `perceptual` in hex."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["thumbnail"], values["tagged"]
        values["perceptual"] = f"{self.perceptual:016x}"
        values["suspicions"] = [dataclasses.asdict(found) for found in self.suspicions]
        return values


@dataclass(frozen=True, eq=False)
class Inspection:
    """The facts of every file, in the order of the records, and what follows from them.

    All but `files` is JSON-ready; `as_dict` makes everything so.
    """

    files: tuple[FileFacts, ...]
    counts: dict
    classes: dict[str, dict]
    patients: dict
    splits: dict[str, int]
    unreadable: list[dict]
    duplicates: list[dict]
    suspects: list[dict]
    shortcuts: dict

    def as_dict(self) -> dict:
        """Everything as JSON knows it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "files": [facts.as_dict() for facts in self.files]}


def inspect_records(
    records: Iterable[Record],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Reads every file once, on all cores, and says what the set holds and what is wrong with it.

    Counts, patients, duplicates (same file, same pixels, nearly the same picture), suspects (no
    frontal chest film), and whether the class can be told without looking at the film (see
    `find_shortcuts`). Unreadable files are listed, never raised. A split that no record gives
    is read from a folder named train, val or test. Patients that no record gives are those of
    the DICOM files' PatientID, under a pseudonym, since everything here may be written to disk;
    `patients["found"]` counts the files by how their patient was found. `progress(done, total)`
    is called from the caller's thread. Memory: about 2 KB for each file beside the images being
    decoded.

    >>> inspect_records(find_records("chest_xray")).counts["files"]  # doctest: +SKIP
    5856
    """
    records = tuple(records)
    if not records:
        raise ValueError("there are no images to inspect: give a folder that holds some")
    progress = progress or (lambda done, total: None)
    files = []
    for facts in in_order(read_facts, records, workers or min(os.cpu_count() or 1, 32)):
        files.append(facts)
        progress(len(files), len(records))
    readable = [facts for facts in files if not facts.reason]
    by_class = defaultdict(list)
    for facts in files:
        by_class[facts.label or NO_CLASS].append(facts)
    return Inspection(
        files=tuple(files),
        counts=_counts(files),
        classes={label: _counts(of_class) for label, of_class in sorted(by_class.items())},
        patients=_patients(files),
        splits=dict(Counter(facts.split for facts in files if facts.split)),
        unreadable=[
            {"file": facts.name, "label": facts.label, "reason": facts.reason}
            for facts in files
            if facts.reason
        ],
        duplicates=_duplicates(readable),
        suspects=[
            {"file": facts.name, "label": facts.label, **dataclasses.asdict(found)}
            for facts in readable
            for found in facts.suspicions
        ],
        shortcuts=_shortcuts([facts for facts in readable if facts.label]),
    )


def read_facts(record: Record) -> FileFacts:
    """What one file is; a file that cannot be read or decoded has a `reason`."""
    facts = FileFacts(
        record.name, record.label, record.patient, record.split, GIVEN if record.patient else None
    )
    try:
        data = record.read()
    except OSError as error:
        return dataclasses.replace(facts, reason=error.strerror or str(error))
    except ValueError as error:
        return dataclasses.replace(facts, reason=str(error))
    facts = dataclasses.replace(_with_tags(facts, data), sha256=content_hash(data))
    try:
        grey = decode(data)
    except ValueError as error:
        return dataclasses.replace(facts, reason=str(error))
    header = read_header(data) or Header("other", *grey.shape, 0, "other")
    thumbnail = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    coloured = _coloured(data) if header.mode in _COLOUR_MODES else 0.0
    return dataclasses.replace(
        facts,
        codec=header.codec,
        height=header.height,
        width=header.width,
        bits=header.bits,
        mode=header.mode,
        mean_grey=float(cv2.mean(grey)[0]),
        border=_border(grey),
        pixels=hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest(),
        perceptual=_perceptual_hash(thumbnail),
        thumbnail=thumbnail,
        suspicions=(*_not_frontal(facts.view), *suspicions(grey, coloured)),
    )


def _with_tags(facts: FileFacts, data: bytes) -> FileFacts:
    """The facts with what a DICOM file says of itself, refused ones too."""
    if data[128:132] != b"DICM":
        return facts
    from .dicom import pseudonym, read_tags

    try:
        tags = read_tags(data)
    except ValueError:
        return facts  # decoding gives the reason
    names = {"modality": "modality", "view": "view_position", "manufacturer": "manufacturer"}
    facts = dataclasses.replace(facts, **{name: tags[tag] for name, tag in names.items()})
    if tags["patient_id"]:
        facts = dataclasses.replace(facts, tagged=pseudonym(tags["patient_id"]))
        if facts.patient is None:
            facts = dataclasses.replace(facts, patient=facts.tagged, patient_from=DICOM_ID)
    return facts


def _not_frontal(view: str | None) -> list[Suspicion]:
    """LL, RL, LATERAL, and decubitus and oblique views; "AP SUPINE" is frontal."""
    words = (view or "").upper().replace("_", " ").split()
    if not words or words[0] in _FRONTAL:
        return []
    return [Suspicion("view", "a lateral view (DICOM tag)", f"ViewPosition {view}", 1.0)]


def _coloured(data: bytes) -> float:
    """The share of pixels with clearly different channels; decodable PNG and JPEG only."""
    if data.startswith(PNG):
        data, _ = clean_png(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    if image is None:
        return 0.0
    blue, green, red = cv2.split(image)
    lowest, highest = (pick(pick(blue, green), red) for pick in (cv2.min, cv2.max))
    return float((cv2.subtract(highest, lowest) >= _COLOURED).mean())


def _border(grey: np.ndarray) -> float:
    margin = max(1, round(BORDER * min(grey.shape)))
    top, bottom, inner = grey[:margin], grey[-margin:], grey[margin:-margin]
    strips = (top, bottom, inner[:, :margin], inner[:, -margin:])
    black = sum(np.count_nonzero(strip <= NEAR_BLACK) for strip in strips)
    return float(black / max(1, sum(strip.size for strip in strips)))


def _perceptual_hash(thumbnail: np.ndarray) -> int:
    low = cv2.dct(thumbnail.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def _counts(files: Sequence[FileFacts]) -> dict:
    readable = [facts for facts in files if not facts.reason]

    def most_common(values: Iterable) -> dict:
        return {str(value): count for value, count in Counter(values).most_common()}

    sizes = most_common(f"{facts.width}x{facts.height}" for facts in readable)
    greys, borders = (
        np.array([getattr(facts, name) for facts in readable]) for name in ("mean_grey", "border")
    )
    return {
        "files": len(files),
        "readable": len(readable),
        "formats": most_common(facts.codec for facts in readable),
        "bits": most_common(facts.bits for facts in readable),
        "modes": most_common(facts.mode for facts in readable),
        "modalities": most_common(facts.modality for facts in files if facts.modality),
        "views": most_common(facts.view for facts in files if facts.view),
        "manufacturers": most_common(facts.manufacturer for facts in files if facts.manufacturer),
        "distinct_sizes": len(sizes),
        "sizes": dict(list(sizes.items())[:SIZES_SHOWN]),
        "mean_grey": float(greys.mean()) if readable else None,
        "border": float(borders.mean()) if readable else None,
    }


def _patients(files: Sequence[FileFacts]) -> dict:
    classes, splits, films = defaultdict(set), defaultdict(set), Counter()
    for facts in files:
        if facts.patient is not None:
            films[facts.patient] += 1
            classes[facts.patient] |= {facts.label} - {None}
            splits[facts.patient] |= {facts.split} - {None}
    return {
        "found": dict(Counter(facts.patient_from for facts in files if facts.patient_from)),
        "files": sum(films.values()),
        "patients": len(films),
        "most_files": max(films.values(), default=0),
        "in_several_classes": sorted(name for name in films if len(classes[name]) > 1),
        "in_several_splits": sorted(name for name in films if len(splits[name]) > 1),
    }


def _duplicates(files: Sequence[FileFacts]) -> list[dict]:
    """Groups of one picture: same file, same pixels under other bytes, or nearly the same."""
    by_pixels = _grouped(files, [facts.pixels for facts in files])
    found = [
        _group("same file", same)
        for same in _grouped(files, [facts.sha256 for facts in files])
        if len(same) > 1
    ]
    found += [
        _group("same pixels", same)
        for same in by_pixels
        if len({facts.sha256 for facts in same}) > 1
    ]
    for numbers in near_pairs_grouped([same[0] for same in by_pixels]):
        found.append(_group("near", [facts for k in numbers for facts in by_pixels[k]]))
    return found


def near_pairs_grouped(files: Sequence[FileFacts]) -> list[list[int]]:
    """Indices of nearly equal pictures, in groups of two and more.

    Perceptual hashes of at most `NEAR_BITS` different bits propose a pair; thumbnails that
    correlate by `NEAR_CORRELATION` and more confirm it, because chest films are alike: among
    1,124 films of the public sets the hash alone proposes 48 pairs, of which 2 are copies.
    """
    hashes = np.array([facts.perceptual for facts in files], np.uint64)
    root = list(range(len(files)))
    for start in range(0, len(files), _BLOCK):
        different = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None, start:])
        for i, j in zip(*np.nonzero(different <= NEAR_BITS)):
            i, j = int(i) + start, int(j) + start
            if i < j and _correlation(files[i].thumbnail, files[j].thumbnail) >= NEAR_CORRELATION:
                root[_find(root, j)] = _find(root, i)
    return [group for group in _grouped(range(len(files)), [_find(root, k) for k in root])
            if len(group) > 1]  # fmt: skip


def _find(root: list[int], k: int) -> int:
    while root[k] != k:
        root[k] = root[root[k]]
        k = root[k]
    return k


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (image.ravel() - image.mean() for image in (one, other))
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale > 0 else 0.0  # empty images are no copies


def _grouped(items: Iterable, keys: Iterable[Hashable]) -> list[list]:
    groups = defaultdict(list)
    for item, key in zip(items, keys):
        groups[key].append(item)
    return list(groups.values())


def _group(kind: str, files: Sequence[FileFacts]) -> dict:
    labels, splits, patients = (
        sorted({getattr(facts, name) for facts in files} - {None})
        for name in ("label", "split", "patient")
    )
    return {
        "kind": kind,
        "files": [facts.name for facts in files],
        "classes": labels,
        "splits": splits,
        "patients": patients,
        "across_classes": len(labels) > 1,
        "across_splits": len(splits) > 1,
    }


def _shortcuts(files: Sequence[FileFacts]) -> dict:
    def one_hot(values: list[str]) -> np.ndarray:
        return np.array(values)[:, None] == np.unique(values)

    def numbers(name: str) -> np.ndarray:
        return np.array([getattr(facts, name) for facts in files], float)

    if not files:
        return find_shortcuts([], [], {})
    height, width = numbers("height"), numbers("width")
    columns = {
        "file format": one_hot([facts.codec for facts in files]),
        "size": np.stack([height, width, width / height], axis=1),
        "bit depth": numbers("bits"),
        "channels": one_hot([facts.mode for facts in files]),
        "border": numbers("border"),
        "mean grey level": numbers("mean_grey"),
    }
    # Copies of one file would teach the classifier its own test.
    groups = [("patient", facts.patient) if facts.patient else facts.pixels for facts in files]
    return find_shortcuts([facts.label for facts in files], groups, columns)
