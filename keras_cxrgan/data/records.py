"""Which images a folder, a zip or a file holds, and what identifies their content."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TFDS = "tfds:"
"""What the name of a tensorflow-datasets set begins with, where a zip's path could stand."""

MAX_FILE_BYTES = 256 * 2**20
"""Largest file or zip member that is read; the guard against zip bombs."""

MAX_MEMBERS = 1_000_000
"""Most files that a zip may hold; the largest public set has 380 thousand."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_IMAGE_EXTENSIONS = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm")
)
_ARCHIVE_EXTENSIONS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True, order=True)
class Record:
    """One image file: where it lies and what is known about it.

    `path` is a path on disk or, when `archive` names a zip file, the member's name in it;
    `source` is the hospital or collection that a table names, `original` the SHA-256 of the
    file that this one was made of, where it is a converted or augmented film.
    """

    path: str
    label: str | None = None
    patient: str | None = None
    split: str | None = None
    archive: str | None = None
    source: str | None = None
    original: str | None = None

    @property
    def name(self) -> str:
        """`path`, or `set.zip!NORMAL/a.png` for a member of a zip."""
        return self.path if self.archive is None else f"{self.archive}!{self.path}"

    def read(self) -> bytes:
        """The encoded bytes. Raises OSError or ValueError with the reason in one line."""
        data = _read(self, MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than the limit of {MAX_FILE_BYTES // 2**20} MiB per file")
        return data


def find_records(source: str | os.PathLike, classes: Sequence[str] = ()) -> list[Record]:
    """Lists the images of a folder (flat, per class or nested), a zip of one, or a single file.

    The label is the name of the directory that directly holds the file, None at the root.
    Images are told by content; a file that only has an image's extension is listed too, so
    that preparing it reports it. Hidden entries and `__MACOSX` are skipped. The order is that
    of the names. Raises ValueError (one line) when `source` holds no image or `classes` names
    a label that does not exist.

    >>> find_records("chest_xray.zip", classes=["NORMAL"])  # doctest: +SKIP
    """
    source = Path(source)
    if os.path.isdir(source):
        names = ["/".join(parts) for parts in _walk(source)]
        found = [Record(str(source / name), _label(name)) for name in sorted(names)]
    elif not os.path.exists(source):
        raise ValueError(f"{source} does not exist: give a folder, a zip or an image file")
    elif _looks_like_image(Record(str(source))):
        names, found = [source.name], [Record(str(source))]
    elif source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        names = _member_names(source)
        found = [Record(name, _label(name), archive=str(source)) for name in sorted(names)]
    else:
        raise ValueError(f"{source} is not a folder, a zip, a PNG, a JPEG or a DICOM file")
    records = [record for record in found if _looks_like_image(record)]
    if not records:
        raise ValueError(f"{source} holds no PNG, JPEG or DICOM image: {_describe(names)}")
    return select_classes(
        records, (classes,) if isinstance(classes, str) else tuple(classes), source
    )


def content_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(hashes: Iterable[str]) -> str:
    """SHA-256 that identifies a set of contents, whatever the order, names or folders.

    >>> fingerprint(["b", "a"]) == fingerprint(["a", "b"])
    True
    """
    return content_hash("\n".join(sorted(hashes)).encode())


def select_classes(records: list[Record], classes: tuple[str, ...], source: Path) -> list[Record]:
    """Returns the records of these labels, all for (); ValueError for a label that is not there."""
    if not classes:
        return records
    labels = sorted({record.label for record in records if record.label is not None})
    if not labels:
        raise ValueError(f"{source} has no class folders: leave out the classes (--class)")
    check_known(source, "class", classes, labels, "--class")
    return [record for record in records if record.label in classes]


def check_known(
    source: str | Path, kind: str, wanted: Iterable[str], known: Sequence[str], option: str
) -> None:
    """Raise ValueError for the first wanted name that is not known, with the nearest that is."""
    for name in wanted:
        if name not in known:
            lowered = {other.lower(): other for other in known}
            near = difflib.get_close_matches(name.lower(), lowered, n=1)
            hint = f" (did you mean {lowered[near[0]]!r}?)" if near else ""
            raise ValueError(
                f"{source} has no {kind} {name!r}{hint}: it has {', '.join(known)} ({option})"
            )


def class_folder(label: str | None) -> str:
    """Return the folder of a class, with a slash; labels may be any text, and None has none.

    >>> class_folder("Effusion|Mass")
    'Effusion_Mass/'
    """
    if label is None:
        return ""
    return (re.sub(r"[^\w .+&()-]", "_", label).strip(" .") or "_") + "/"


def check_folders(labels: Iterable[str | None]) -> None:
    """Raise ValueError where two classes would share a folder, on some systems at least."""
    labels = sorted(set(labels), key=str)
    if len({class_folder(label).lower() for label in labels}) < len(labels):
        names = ", ".join(map(str, labels))
        raise ValueError(f"the classes {names} would share a folder: choose some (--class)")


def _label(name: str) -> str | None:
    return PurePosixPath(name.replace("\\", "/")).parent.name or None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _looks_like_image(record: Record) -> bool:
    path = PurePosixPath(record.path.replace("\\", "/"))
    if path.suffix.lower() in _IMAGE_EXTENSIONS:
        return True
    try:
        start = _read(record, 132)
        # A DICOMDIR is the table of contents of a DICOM directory.
        is_dicom = start[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
        return is_dicom or start.startswith(_SIGNATURES)
    except (OSError, ValueError):
        return False


def _describe(names: Iterable[str]) -> str:
    extensions = Counter(PurePosixPath(name).suffix.lower() or "none" for name in names)
    if not extensions:
        return "it is empty"
    found = ", ".join(f"{extension} {count}" for extension, count in extensions.most_common(5))
    others = ", ..." if len(extensions) > 5 else ""
    packed = any(extension in extensions for extension in _ARCHIVE_EXTENSIONS)
    advice = "; archives inside are not opened, unpack them" if packed else ""
    return f"{sum(extensions.values())} files seen, by extension: {found}{others}{advice}"


def _walk(
    folder: Path, parts: tuple[str, ...] = (), above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """Path components of the files below `folder`; symbolic links are followed, loops are not."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            entries = list(entries)
    except OSError as error:
        raise ValueError(f"cannot read the folder {folder}: {error.strerror}") from None
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        inner = (*parts, entry.name)
        if entry.is_dir():
            yield from _walk(folder / entry.name, inner, above | {real})
        elif entry.is_file() or entry.is_symlink():
            # A broken link (a data set kept by git-annex) must show up as unreadable later.
            yield inner


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        found = os.stat(path)
        return _opened_zip(path, found.st_mtime_ns, found.st_size)
    except zipfile.BadZipFile as error:
        reason = str(error).rstrip(".") or "no directory of members"
    except OSError as error:
        reason = error.strerror or str(error)
    raise ValueError(f"{path} is not a readable zip ({reason}): download or pack it again")


@functools.lru_cache(maxsize=4)
def _opened_zip(path: str, mtime_ns: int, size: int) -> zipfile.ZipFile:
    # Reading the directory of a large zip takes longer than reading an image out of it.
    # ZipFile locks around its shared file, so threads may read members at once.
    archive = zipfile.ZipFile(path)
    if len(archive.infolist()) > MAX_MEMBERS:
        archive.close()
        raise ValueError(
            f"{path} holds {len(archive.infolist()):,} files, more than the limit of "
            f"{MAX_MEMBERS:,} in a zip: unpack it and give the folder"
        )
    return archive


def _member_names(source: Path) -> list[str]:
    """Files in the zip, without the hidden ones and those that point outside of it."""
    names = []
    for info in _open_zip(str(source)).infolist():
        parts = info.filename.replace("\\", "/").split("/")
        outside = not parts[0] or ".." in parts or ":" in parts[0]
        if info.is_dir() or outside or any(map(_is_hidden, parts)):
            continue
        if info.flag_bits & 1:
            raise ValueError(f"{source} is encrypted: unpack it and give the folder")
        names.append(info.filename)
    return list(dict.fromkeys(names))


def _read(record: Record, size: int) -> bytes:
    """The first `size` bytes; no more is inflated of a zip's member."""
    if record.archive is None:
        with open(record.path, "rb") as file:
            return file.read(size)
    if record.archive.startswith(TFDS):
        from .tfrecords import read_encoded

        return read_encoded(record.archive, record.path, size)
    archive = _open_zip(record.archive)
    try:
        info = archive.getinfo(record.path)
        _check_member(info, size)
        with archive.open(info) as member:
            # Without the size that is declared a lie would be inflated up to the limit first.
            return member.read(min(size, info.file_size + 1))
    except (KeyError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError covers encryption and NotImplementedError (an unknown compression).
        raise ValueError(f"damaged or unreadable in the zip ({error})") from None


def _check_member(info: zipfile.ZipInfo, size: int) -> None:
    """Refuses members that no inflating is needed to refuse."""
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError("a symbolic link in the zip: pack the file itself (zip without -y)")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile inflates bzip2 and LZMA without a bound.
        method = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))
        raise ValueError(f"compressed with {method} in the zip: pack it again with deflate")
    if size > MAX_FILE_BYTES and info.file_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{info.file_size / 2**20:,.0f} MiB in the zip: larger than the limit of "
            f"{MAX_FILE_BYTES // 2**20} MiB per file"
        )
