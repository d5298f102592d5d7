"""Records -> one uint8 array of square images, decoded once, in parallel, in bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .images import check_window, decode, prepare_image
from .records import Record, content_hash, fingerprint

_CACHE_FORMAT = 1
_LINES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Prepared images beside what they came from; row i of `images` is `records[i]`.

    `images` is uint8 (N, S, S), in memory or a read-only memory map. `hashes` are of the files'
    contents, and `fingerprint` identifies the set of them whatever its order or place.
    `rejected` lists (name, reason) of the files left out, `notes` says how their source was
    read, and `leaks` which films of it should not have been used.
    """

    images: np.ndarray
    records: tuple[Record, ...]
    hashes: tuple[str, ...]
    fingerprint: str
    rejected: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each image."""
        return tuple(record.label for record in self.records)


class BadFiles(ValueError):
    """Some files cannot be used; `rejected` lists (name, reason) of all of them."""

    def __init__(self, rejected: Sequence[tuple[str, str]], total: int, advice: str):
        self.rejected = tuple(rejected)
        lines = [f"{len(rejected)} of {total} images cannot be used:"]
        lines += [f"{name}: {reason}" for name, reason in rejected[:_LINES_SHOWN]]
        if len(rejected) > _LINES_SHOWN:
            lines.append(f"... and {len(rejected) - _LINES_SHOWN} more")
        super().__init__("\n".join([*lines, advice]))


@dataclass(frozen=True)
class _Loaded:
    """What one file gave: the hash of its content, and an image or the reason for none."""

    digest: str
    image: np.ndarray | None = None
    reason: str = ""


def prepare_images(
    records: Sequence[Record],
    image_size: int,
    *,
    fit: str = "crop",
    clahe_clip_limit: float = 0.0,
    clahe_tiles: int = 8,
    clahe_size: int = 0,
    window: Sequence[float] | None = None,
    on_bad_file: str = "error",
    cache_dir: str | os.PathLike | None = None,
    memory_budget: int = 2 * 2**30,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Decodes and prepares every record, in the order of the records.

    `window` is that of 16-bit PNGs (see `decode`); for the other settings see `prepare_image`.

    All bad files are collected first: `on_bad_file="error"` then raises `BadFiles`, "skip"
    leaves them out and lists them. A set of more than `memory_budget` bytes goes to a file in
    `cache_dir`, named after contents and settings, and is mapped from there the next time;
    memory use then does not grow with the number of images. `progress(done, total)` is called
    from the caller's thread. Raises ValueError for settings or a cache that cannot work.

    >>> images = prepare_images(find_records("chest_xray"), 64).images  # doctest: +SKIP
    """
    records = tuple(records)
    if not records:
        raise ValueError("there are no images to prepare: give a folder that holds some")
    if on_bad_file not in ("error", "skip"):
        raise ValueError(f"on_bad_file is {on_bad_file!r}: choose error or skip (--on-bad-file)")
    image_size = int(image_size)
    settings: dict[str, Any] = {
        "image_size": image_size,
        "fit": fit,
        "clahe_clip_limit": float(clahe_clip_limit),
        "clahe_tiles": int(clahe_tiles),
        "clahe_size": int(clahe_size),
    }
    # Wrong settings must raise here, not count as one bad file after another.
    prepare_image(np.zeros((2, 2), np.uint8), **settings)
    if window is not None:
        # Not there by default, so that caches from before there were windows stay valid.
        settings["window"] = check_window(window)
    workers = workers or min(os.cpu_count() or 1, 32)
    progress = progress or (lambda done, total: None)
    needed = len(records) * image_size**2
    if needed <= memory_budget:
        images = np.empty((len(records), image_size, image_size), np.uint8)
        hashes, reasons = _decode_all(records, settings, workers, images.__setitem__, progress)
    elif cache_dir is None:
        raise ValueError(
            f"{len(records)} images of {image_size} x {image_size} need {needed / 2**30:.3g} GiB, "
            f"more than the budget of {memory_budget / 2**30:.3g} GiB: give cache_dir, a folder "
            "for a file cache, or a larger memory_budget"
        )
    else:
        images, hashes, reasons = _cached(
            records, settings, workers, Path(cache_dir), on_bad_file == "skip", progress
        )
    rejected = _checked(records, reasons, on_bad_file == "skip")
    kept = [index for index in range(len(records)) if index not in reasons]
    hashes = tuple(hashes[index] for index in kept)
    return ImageSet(
        images=images[: len(kept)],
        records=tuple(records[index] for index in kept),
        hashes=hashes,
        fingerprint=fingerprint(hashes),
        rejected=rejected,
    )


def _checked(
    records: Sequence[Record], reasons: dict[int, str], skip: bool
) -> tuple[tuple[str, str], ...]:
    rejected = tuple((records[index].name, reasons[index]) for index in sorted(reasons))
    if rejected and not skip:
        advice = "Remove or repair them, or pass --on-bad-file skip."
        raise BadFiles(rejected, len(records), advice)
    if len(rejected) == len(records):
        advice = "No image is left: give PNG, JPEG or DICOM files."
        raise BadFiles(rejected, len(records), advice)
    return rejected


def _load(record: Record, settings: dict[str, Any]) -> _Loaded:
    try:
        data = record.read()
    except OSError as error:
        return _Loaded("", reason=error.strerror or str(error))
    except ValueError as error:
        return _Loaded("", reason=str(error))
    digest = content_hash(data)
    try:
        grey = decode(data, settings.get("window"))
        of_image = {name: value for name, value in settings.items() if name != "window"}
        return _Loaded(digest, prepare_image(grey, **of_image))
    except ValueError as error:
        return _Loaded(digest, reason=str(error))


def _hash(record: Record) -> str:
    try:
        return content_hash(record.read())
    except (OSError, ValueError):
        return ""


def _decode_all(
    records: Sequence[Record],
    settings: dict[str, Any],
    workers: int,
    store: Callable[[int, np.ndarray], None],
    progress: Callable[[int, int], None],
) -> tuple[list[str], dict[int, str]]:
    """Hands the good images to `store(row, image)`; returns all hashes and the bad's reasons."""
    hashes: list[str] = []
    reasons: dict[int, str] = {}
    for loaded in in_order(lambda record: _load(record, settings), records, workers):
        if loaded.image is None:
            reasons[len(hashes)] = loaded.reason
        else:
            store(len(hashes) - len(reasons), loaded.image)
        hashes.append(loaded.digest)
        progress(len(hashes), len(records))
    return hashes, reasons


def in_order(function: Callable, items: Iterable, workers: int) -> Iterator:
    """Results in the order of the items, from threads that run only a little ahead."""
    # OpenCV, zlib and hashlib release the interpreter lock while they work.
    with ThreadPoolExecutor(workers) as pool:
        window: deque = deque()
        for item in items:
            window.append(pool.submit(function, item))
            if len(window) >= 4 * workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()


def _cached(
    records: Sequence[Record],
    settings: dict[str, Any],
    workers: int,
    folder: Path,
    skip: bool,
    progress: Callable[[int, int], None],
) -> tuple[np.ndarray, list[str], dict[int, str]]:
    """Maps the cache file of these contents and settings, which is made first if need be."""
    total = len(records)
    hashes = []
    # Reading all files to name the cache is shown as the first half of the work.
    for digest in in_order(_hash, records, workers):
        hashes.append(digest)
        progress(len(hashes) // 2, total)
    path = folder / f"{_cache_key(settings, hashes)}.npy"
    shape = (total, settings["image_size"], settings["image_size"])
    opened = _open_cache(path, shape)
    if opened is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as temporary:
                reasons = _write_images(
                    temporary, records, hashes, settings, workers,
                    lambda done, _: progress((total + done) // 2, total),
                )  # fmt: skip
                _checked(records, reasons, skip)
            about = {"settings": settings, "rejected": list(reasons.items())}
            with _replacing(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"cannot write the image cache of {math.prod(shape) / 2**30:.3g} GiB in {folder} "
                f"({error.strerror or error}): make room there or choose another folder"
            ) from None
        opened = _open_cache(path, shape)
        if opened is None:
            raise ValueError(f"the image cache {path} vanished: run the command again")
    progress(total, total)
    images, reasons = opened
    return images, hashes, reasons


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place at the end, or is removed."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _cache_key(settings: dict[str, Any], hashes: list[str]) -> str:
    about = json.dumps([_CACHE_FORMAT, settings], sort_keys=True)
    return hashlib.sha256("\n".join([about, *hashes]).encode()).hexdigest()


def _write_images(
    path: Path,
    records: Sequence[Record],
    hashes: list[str],
    settings: dict[str, Any],
    workers: int,
    progress: Callable[[int, int], None],
) -> dict[int, str]:
    """Writes the prepared images as one .npy file with a row for each record."""
    size = settings["image_size"]
    shape = (len(records), size, size)
    # Not a writable memory map: on a full disk that kills the process instead of raising.
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        found, reasons = _decode_all(
            records, settings, workers, lambda _, image: file.write(image), progress
        )
        # Rows of rejected files stay empty at the end, so that the header remains true.
        file.truncate(start + math.prod(shape))
    if found != hashes:
        changed = next(record for record, a, b in zip(records, found, hashes) if a != b)
        raise ValueError(f"{changed.name} changed while it was read: run the command again")
    return reasons


def _open_cache(
    path: Path, shape: tuple[int, int, int]
) -> tuple[np.ndarray, dict[int, str]] | None:
    """The mapped images and the reasons of the rejected; None unless both files are whole."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        reasons = {int(index): str(reason) for index, reason in about["rejected"]}
        images = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    if any("pip install" in reason for reason in reasons.values()):
        return None  # it may have been installed since
    return (images, reasons) if (images.shape, images.dtype) == (shape, np.uint8) else None
