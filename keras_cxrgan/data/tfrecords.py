"""Films of tensorflow-datasets: each example of a prepared set is a record, read when asked for.

A TFRecord file is a row of uint64 length, uint32 CRC, data, uint32 CRC; its index of offsets makes
it a random-access archive, as the directory of a zip does.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import io
import logging
import mmap
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .patients import patient_of
from .records import TFDS, Record, select_classes
from .tables import Reading

_log = logging.getLogger(__name__)

# An encoded film is larger than its labels, and is skipped while those are read.
_LARGEST_LABEL = 16 * 1024
_PATIENTS = ("patient", "patient_id", "patientid", "subject_id")
_FILES = ("file", "file_name", "filename", "path", "name")
_VIEWS = ("view", "image_view", "view_position")
# The classes of the label of `chexpert` are states; the findings are told by the position.
_CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Index:
    """Where the examples of a set lie: by split, (shard file, start, length) of each."""

    image: str
    places: dict[str, list[tuple[str, int, int]]]


def read_tfds(name: str, split: str | None = None, classes: Sequence[str] = ()) -> Reading:
    """Lists the films of a tensorflow-datasets set, which is prepared first where it is not yet.

    `name` is `NAME`, `NAME/config`, `NAME:version` or the folder of a prepared set, whatever
    comes after `tfds:`; sets lie below the folder of the environment variable TFDS_DATA_DIR, by
    default ~/tensorflow_datasets. `split` names one or several (`"train,test"`). The records give
    the encoded bytes as stored. Raises ValueError (one line) for an unknown name, a set without
    films, a preparation that fails, and damaged files.

    >>> read_tfds("pneumonia_mnist", "test").records[0].name  # doctest: +SKIP
    'tfds:pneumonia_mnist:1.0.0!test/000000'
    """
    name = name.removeprefix(TFDS)
    builder = _builder(name)
    _prepare(builder, name)
    archive = TFDS + _full_name(builder, name)
    index = _index(archive, _data_dir())
    wanted = list(index.places)
    if split is not None:
        wanted = [part.strip() for part in split.split(",")]
        for part in wanted:
            if part not in index.places:
                known = ", ".join(index.places)
                raise ValueError(f"{archive} has no split {part!r}: it has {known}")
    read_label, read_patient, read_view = _label(builder), _patient(builder), _view(builder)
    records, left_out = [], Counter(_told(builder, "left_out", {}))
    for part in wanted:
        for number, features in enumerate(_labels_of(index.places[part])):
            if read_view(features).lower() in ("lateral", "ll"):
                left_out["lateral view"] += 1
                continue
            label, patient = read_label(features), read_patient(features)
            original = _text(features, "sha256") or None
            records.append(
                Record(f"{part}/{number:06d}", label, patient, part, archive, original=original)
            )
    if not records:
        raise ValueError(f"{archive} has no films in {', '.join(wanted) or 'any split'} (--data)")
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    kept = select_classes(records, classes, archive)
    if len(kept) < len(records):
        left_out["other class (--class)"] = len(records) - len(kept)
    unlabelled = sum(record.label is None for record in kept)
    counts = ", ".join(f"{part} {len(index.places[part])}" for part in wanted)
    notes = [
        f"layout tfds: {archive} in {builder.data_dir}; splits: {counts}",
        f"patients known for {sum(map(bool, (r.patient for r in kept)))} of {len(kept)} images",
    ]
    if unlabelled:
        notes.append(f"{unlabelled} of {len(kept)} images have no single label")
    return Reading("tfds", tuple(kept), dict(left_out), (*notes, *_told(builder, "notes", ())))


def read_encoded(archive: str, path: str, size: int) -> bytes:
    """The first `size` bytes of the encoded film `train/000123` of the set `tfds:NAME:version`.

    Raises OSError or ValueError with the reason in one line.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    index = _index(archive, _data_dir())
    split, _, number = path.rpartition("/")
    places = index.places.get(split, ())
    if not (number.isdecimal() and int(number) < len(places)):
        raise ValueError(f"{archive} has no film {path}")
    shard, start, length = places[int(number)]
    # A file of one's own, opened for each film: threads would share the position of one file.
    with open(shard, "rb") as file:
        file.seek(start)
        data = file.read(length)
    try:
        value = tf.train.Example.FromString(data).features.feature[index.image].bytes_list.value
        return value[0][:size]
    except (DecodeError, IndexError):
        raise _damaged(shard) from None


def holds(archive: str, path: str) -> bool:
    """Whether a prepared set has the film; False where the set is not prepared or not known."""
    try:
        index = _index(archive, _data_dir())
    except ValueError:
        return False
    split, _, number = path.rpartition("/")
    return number.isdecimal() and int(number) < len(index.places.get(split, ()))


def _data_dir() -> str | None:
    return os.environ.get("TFDS_DATA_DIR")


def _builder(name: str):
    """The TFDS builder of a name or of a prepared set's folder."""
    import tensorflow_datasets as tfds

    from . import builders  # noqa: F401  (importing them makes TFDS know them)

    if os.path.isdir(name):
        try:
            return tfds.builder_from_directory(name)
        except Exception as error:
            raise ValueError(
                f"{name} is no prepared tensorflow-datasets set ({_line(error)}): give the folder "
                "that holds dataset_info.json (--data tfds:FOLDER)"
            ) from None
    if not re.fullmatch(r"\w+(/[\w.-]+)?(:[\d.*]+)?", name):
        raise ValueError(
            f"tfds:{name} is neither a name nor an existing folder: give tfds:NAME, "
            "tfds:NAME/config, tfds:NAME:1.0.0 or tfds:FOLDER (--data)"
        )
    plain = re.split("[/:]", name, maxsplit=1)[0]
    try:
        return tfds.builder(name, data_dir=_data_dir())
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:
        raise ValueError(f"tfds:{name} cannot be used: {_line(error)} (--data)") from None
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(plain.lower(), known, n=3)
    near = near or difflib.get_close_matches(f"cxr_{plain.lower()}", known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see tfds.list_builders()"
    raise ValueError(
        f"tensorflow-datasets has no set {plain!r}: {hint} Of this package are "
        f"{', '.join(builders.NAMES)} (--data tfds:NAME)"
    )


def _prepare(builder, name: str) -> None:
    """Prepares a set that is not there yet, with one line on the terminal for all of it."""
    import tensorflow_datasets as tfds

    if builder.data_path.exists():
        return
    tfds.disable_progress_bar()
    _log.warning("preparing tfds:%s in %s, which is done once", name, builder.data_dir)
    try:
        # TFDS announces the download with print.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    # Builders are anybody's code and raise anything.
    except Exception as error:
        reason, advice = _line(error), "see its page in the TFDS catalogue"
        causes = list(_causes(error))
        kinds = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
        numbers = {getattr(cause, "errno", None) for cause in causes}
        if errno.ENOSPC in numbers or "Not enough disk space" in reason:
            advice = "make room there, or name another folder with TFDS_DATA_DIR"
        elif kinds & {"ConnectionError", "Timeout", "URLError", "DownloadError", "gaierror"}:
            advice = "its download needs a network: prepare it where there is one"
        elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            advice = "its files are to be put there by hand"
        raise ValueError(
            f"tfds:{name} cannot be prepared in {builder.data_dir}: {reason} ({advice})"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 900 else f"{text[:900]} ..."


def _full_name(builder, name: str) -> str:
    if os.path.isdir(name):
        return os.path.abspath(name)
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return f"{builder.name}{config}:{builder.version}"


def _told(builder, key: str, default):
    """What the builders of this package wrote beside their set."""
    return (builder.info.metadata or {}).get(key, default)


@functools.lru_cache(maxsize=4)
def _index(archive: str, data_dir: str | None) -> _Index:
    """`data_dir` only tells sets of one name in two folders apart."""
    builder = _builder(archive.removeprefix(TFDS))
    if not builder.data_path.exists():
        raise ValueError(
            f"{archive} is not prepared in {builder.data_dir}: name the right folder with "
            f"TFDS_DATA_DIR, or prepare it (cxrgan inspect {archive})"
        )
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{archive} is stored as {builder.info.file_format.value}, and only tfrecord is read: "
            "prepare it again with file_format='tfrecord'"
        )
    places = {}
    for split, info in builder.info.splits.items():
        places[split] = []
        for path, count in zip(info.filepaths, info.shard_lengths):
            shard = os.fspath(path)
            found = [(shard, start, length) for start, length in _scan(shard)]
            if len(found) != count:
                raise _damaged(shard, f"it has {len(found)} of {count} examples")
            places[split] += found
    return _Index(_image(builder), places)


def _scan(shard: str) -> Iterator[tuple[int, int]]:
    """Start and length of each example of a file."""
    with _mapped(shard) as data:
        place = 0
        while place < len(data):
            if place + 12 > len(data):
                raise _damaged(shard, "it is truncated")
            (length,) = struct.unpack_from("<Q", data, place)
            if place + length + 16 > len(data):
                raise _damaged(shard, "it is truncated")
            yield place + 12, length
            place += length + 16


@contextlib.contextmanager
def _mapped(shard: str) -> Iterator:
    """A file as bytes, of which only the pages that are looked at are read."""
    try:
        with open(shard, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise _damaged(shard, error.strerror or str(error)) from None


def _damaged(shard: str, reason: str = "an example cannot be parsed") -> ValueError:
    return ValueError(
        f"{shard} is damaged or incomplete ({reason}): delete its folder and prepare the set again"
    )


def _labels_of(places: list[tuple[str, int, int]]) -> Iterator:
    """The features of each example, of tf.train.Features, without the film."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    opened = None
    with contextlib.ExitStack() as stack:
        for shard, start, length in places:
            if shard != opened:
                stack.close()
                data, opened = stack.enter_context(_mapped(shard)), shard
            try:
                yield tf.train.Features.FromString(_small_entries(data, start, length)).feature
            except (DecodeError, IndexError):
                raise _damaged(shard) from None


def _small_entries(data, start: int, length: int) -> bytes:
    """The entries of the map in a serialized tf.train.Example, but for the large ones.

    An Example is the field 1, a Features message; that is the field 1 repeated, its map's entries.
    """
    end = start + length
    place = _after_tag(data, start, end)[0] if length else end
    kept = []
    while place < end:
        body, size = _after_tag(data, place, end)
        if size <= _LARGEST_LABEL:
            kept.append(data[place : body + size])
        place = body + size
    return b"".join(kept)


def _after_tag(data, place: int, end: int) -> tuple[int, int]:
    """Where the content of a length-delimited field 1 starts, and its size (a varint)."""
    size = shift = 0
    tag, byte = data[place], 0x80
    while byte & 0x80:
        place += 1
        byte = data[place]
        size |= (byte & 0x7F) << shift
        shift += 7
    if tag != 0x0A or place + 1 + size > end:
        raise IndexError("no such field")
    return place + 1, size


def _image(builder) -> str:
    """The name of the feature that is the film."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    found = {
        name: feature
        for name, feature in (features.items() if hasattr(features, "items") else ())
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
    }
    name = "image" if "image" in found else next(iter(found), None)
    if name is None or (name != "image" and len(found) > 1):
        listed = ", ".join(features) if hasattr(features, "items") else repr(features)
        count = "several image features" if found else "no image feature"
        raise ValueError(
            f"tfds:{builder.name} has {count}, and one is needed, or one named image; its "
            f"features: {listed} (--data)"
        )
    if found[name].np_dtype == np.float32:
        raise ValueError(
            f"tfds:{builder.name} has films of float32, whose range is not known: uint8 or uint16 "
            "is needed (--data)"
        )
    return name


def _label(builder) -> Callable:
    """The function that gives the label's name from an example's features, None without one."""
    import tensorflow_datasets as tfds

    features, keys = builder.info.features, builder.info.supervised_keys
    name = "label"
    if name not in features and keys and isinstance(keys[1], str):
        name = keys[1]
    feature = features[name] if name in features else None
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda example: _class_name(feature, _first(example, name))
    if isinstance(feature, tfds.features.Text):
        return lambda example: _text(example, name) or None
    inner = getattr(feature, "feature", None)
    if isinstance(feature, tfds.features.Sequence) and isinstance(inner, tfds.features.ClassLabel):
        findings = _CHEXPERT if builder.name == "chexpert" else None
        return lambda example: _only(inner, example[name].int64_list.value, findings)
    return lambda example: None


def _only(feature, values: Sequence[int], findings: tuple[str, ...] | None) -> str | None:
    """The one label of a sequence that has exactly one, or the one finding that is positive."""
    names = [_class_name(feature, value) for value in values]
    if findings is not None:
        names = [finding for finding, state in zip(findings, names) if state == "positive"]
    return names[0] if len(names) == 1 else None


def _class_name(feature, number: int | None) -> str | None:
    known = number is not None and 0 <= number < feature.num_classes
    return feature.int2str(number) if known else None


def _patient(builder) -> Callable:
    """The function that gives the patient: by a feature, or as the file's name tells."""
    features = builder.info.features
    own = next((name for name in _PATIENTS if name in features), None)
    if own is not None:
        return lambda example: _text(example, own) or None
    file = next((name for name in _FILES if name in features), None)

    def by_name(example) -> str | None:
        path = _text(example, file) if file else ""
        folder = re.search(r"(?:^|/)(patient\d+)/", path)
        return folder.group(1) if folder else patient_of(path, "folder")

    return by_name


def _view(builder) -> Callable:
    import tensorflow_datasets as tfds

    features = builder.info.features
    name = next((name for name in _VIEWS if name in features), None)
    if name is None:
        return lambda example: ""
    if isinstance(features[name], tfds.features.ClassLabel):
        return lambda example: _class_name(features[name], _first(example, name)) or ""
    return lambda example: _text(example, name)


def _first(example, name: str) -> int | None:
    values = example[name].int64_list.value
    return values[0] if values else None


def _text(example, name: str) -> str:
    """A text or a number as text; nothing for anything else."""
    feature = example[name]
    if feature.bytes_list.value:
        return feature.bytes_list.value[0].decode("utf-8", "replace")
    number = _first(example, name)
    return "" if number is None else str(number)
