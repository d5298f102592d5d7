"""What the builders share: the features of a film, finding the set, and films one after another."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_cxrgan.data.images import decode, encode_png
from keras_cxrgan.data.layouts import read_layout
from keras_cxrgan.data.prepare import in_order
from keras_cxrgan.data.records import Record, content_hash
from keras_cxrgan.data.tables import Reading

_log = logging.getLogger(__name__)
_WORKERS = min(os.cpu_count() or 1, 8)


def features(**labels: tfds.features.FeatureConnector) -> tfds.features.FeaturesDict:
    """Grey film of its own size, patient ("" where not known), name, and the file's SHA-256."""
    image = tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png")
    return tfds.features.FeaturesDict(
        {
            "image": image,
            **labels,
            "patient": tfds.features.Text(),
            "file": tfds.features.Text(),
            "sha256": tfds.features.Text(),
        }
    )


def find_set(builder, manual_dir: Path, names: tuple[str, ...], inside: tuple[str, ...]) -> Path:
    """The archive or folder of a set in `manual_dir`, or that folder where it is the set itself.

    `names` are tried in order; `inside` are entries that only the set's own folder has. Raises
    ValueError that says what to put where.
    """
    manual_dir = Path(manual_dir)
    for name in (builder.name, *names):
        if (manual_dir / name).exists():
            return manual_dir / name
    if any((manual_dir / name).exists() for name in inside):
        return manual_dir
    raise ValueError(
        f"{manual_dir} holds none of {', '.join(names)}: "
        + " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    )


def read_set(builder, source: Path, layout: str) -> Reading:
    """`read_layout`, whose notes and counts go beside the set, into the builder's metadata."""
    reading = read_layout(source, layout)
    builder.info.metadata.update(left_out=dict(reading.left_out), notes=list(reading.notes))
    return reading


def by_split(reading: Reading) -> dict[str, list[tuple[str, Record]]]:
    """Name in the set and record of each film, by the set's own splits, or all as `train`.

    What the set's splits do not name is `unlisted`.
    """
    without = "unlisted" if any(record.split for record in reading.records) else "train"
    # The names are the same for the archive and for the folder unpacked from it.
    root = os.path.commonpath([os.path.dirname(record.path) for record in reading.records])
    splits: dict[str, list[tuple[str, Record]]] = {}
    for record in reading.records:
        name = os.path.relpath(record.path, root or ".").replace("\\", "/")
        splits.setdefault(record.split or without, []).append((name, record))
    return splits


def examples(
    builder, named: list[tuple[str, Record]], labels: Callable[[Record], Mapping]
) -> Iterator[tuple[str, dict]]:
    """Key and features of each film, read ahead a little by threads; only a few are in memory.

    A film that cannot be read is left out, named in the log with the reason, and counted in the
    metadata. Raises ValueError when none can be read.
    """
    left_out = builder.info.metadata["left_out"]
    loads = in_order(_load, [record for _, record in named], _WORKERS)
    unreadable = 0
    for (name, record), loaded in zip(named, loads):
        if isinstance(loaded, str):
            unreadable += 1
            left_out["unreadable"] = left_out.get("unreadable", 0) + 1
            _log.warning("%s: %s is left out: %s", builder.name, record.name, loaded)
            continue
        png, sha256 = loaded
        known = {"patient": record.patient or "", "file": name, "sha256": sha256}
        yield name, {"image": png, **labels(record), **known}
    if unreadable == len(named):
        raise ValueError(f"{builder.name}: none of {unreadable} films can be read ({loaded})")


def _load(record: Record) -> tuple[bytes, str] | str:
    """The film as a grey PNG and the hash of its file, or the reason for none."""
    try:
        data = record.read()
        return encode_png(decode(data)), content_hash(data)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
