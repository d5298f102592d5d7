"""The weights that FID is defined with: found, checked, and read without PyTorch.

A PyTorch checkpoint is a pickle, and a pickle is a program. This reader runs none of it: the
only names that it lets a file refer to are those of which a dictionary of arrays consists.
"""

from __future__ import annotations

import hashlib
import http.client
import operator
import os
import pickle
import shutil
import struct
import sys
import urllib.request
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

FID_WEIGHTS = {
    "name": "pt_inception-2015-12-05-6726825d.pth",
    "url": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "sha256": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""The TensorFlow network of 2015-12-05 as pytorch-fid converted it, 96 MB."""


def locate_fid_weights(path: str | os.PathLike | None = None) -> Path:
    """The checked file of `FID_WEIGHTS`: `path`, or else the Keras cache, or a download into it.

    The Keras cache is the folder `models` in $KERAS_HOME or in ~/.keras. Raises ValueError for a
    missing file, for one that is not the published file, and when the download fails.

    Example: `load_state_dict(model, read_state_dict(locate_fid_weights()))`.
    """
    if path is not None:
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"--weights {path} is no file: needs {FID_WEIGHTS['url']}")
        _check(path, f"--weights {path}", f"get {FID_WEIGHTS['url']}")
        return path
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    cached = home / "models" / FID_WEIGHTS["name"]
    if cached.is_file():
        _check(cached, str(cached), "delete it and try again")
    else:
        _download(cached)
    return cached


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits; reads it block by block."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check(path: Path, named: str, remedy: str) -> None:
    found = sha256_of(path)
    if found != FID_WEIGHTS["sha256"]:
        raise ValueError(
            f"{named} is not the published {FID_WEIGHTS['name']}: its SHA-256 is {found}, "
            f"needs {FID_WEIGHTS['sha256']}: {remedy}"
        )


def _download(path: Path) -> None:
    """Saves FID_WEIGHTS at `path`, which appears only when it is whole and right."""
    elsewhere = "get it elsewhere and name it with --weights PATH"
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    print(f"Downloading {FID_WEIGHTS['url']} (96 MB)", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(FID_WEIGHTS["url"], timeout=60) as response,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(response, file)
        _check(temporary, f"what {FID_WEIGHTS['url']} sent", elsewhere)
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(
            f"{FID_WEIGHTS['name']} is not in {path.parent} and the download of "
            f"{FID_WEIGHTS['url']} failed ({error}): {elsewhere}"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": "f4", "HalfStorage": "f2", "DoubleStorage": "f8", "LongStorage": "i8"}


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int


class _Tensor(NamedTuple):
    """A view into a storage that may not have been read yet; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refusal(ValueError):
    """Carries a message that is complete, unlike those of a damaged pickle."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise _Refusal(f"refused: this file wants to run {module}.{name}, weights need only arrays")

    def persistent_load(self, identifier) -> _Storage:
        kind, dtype, key, _, count, *view = identifier
        if kind != "storage" or dtype not in _STORAGES.values() or any(view):
            raise pickle.UnpicklingError(f"unknown storage {identifier}")
        return _Storage(str(key), dtype, operator.index(count))

    def _tensor(self, storage, offset, shape, strides, *_) -> _Tensor:
        return _Tensor(
            _Storage(*storage),
            operator.index(offset),
            tuple(map(operator.index, shape)),
            tuple(map(operator.index, strides)),
        )

    def _parameter(self, tensor, *_) -> _Tensor:
        return _Tensor(*tensor)


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads name -> read-only array from a file of `torch.save(module.state_dict(), path)`.

    Knows the zip format and the one before PyTorch 1.6, and arrays of float16, float32, float64
    and int64. Raises ValueError for a damaged or foreign file, and for one that refers to
    anything else than arrays: such a file could run a program.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                state, storages = _read_zip(file)
            elif start[:1] == b"\x80":
                state, storages = _read_legacy(file)
            else:
                raise _Refusal("no PyTorch checkpoint: needs a file of torch.save")
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in state.items()
        ):
            raise _Refusal("no state dict: needs a dictionary of names and tensors")
        return {name: _array(tensor, storages) for name, tensor in state.items()}
    except (_Refusal, OSError) as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001  A damaged pickle can raise anything.
        raise ValueError(f"{path}: a truncated or damaged checkpoint ({error!r})") from None


def _read_zip(file: IO[bytes]) -> tuple[object, dict[_Storage, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if not names:
            raise _Refusal("no PyTorch checkpoint: a zip file without data.pkl")
        root = names[0].removesuffix("data.pkl")
        order = "<"
        if f"{root}byteorder" in archive.namelist():
            order = {b"little": "<", b"big": ">"}[archive.read(f"{root}byteorder")]
        with archive.open(names[0]) as pickled:
            state = _Unpickler(pickled, encoding="utf-8").load()
        storages = {}
        for storage in _storages(state):
            info = archive.getinfo(f"{root}data/{storage.key}")
            # Only stored entries: a compressed one can be a thousand times larger than the file.
            if info.compress_type != zipfile.ZIP_STORED:
                raise _Refusal("a compressed archive: needs a file of torch.save")
            storages[storage] = _elements(archive.read(info), storage, order)
    return state, storages


def _read_legacy(file: IO[bytes]) -> tuple[object, dict[_Storage, np.ndarray]]:
    def load():
        return _Unpickler(file, encoding="utf-8").load()

    if load() != _LEGACY_MAGIC:
        raise _Refusal("no PyTorch checkpoint: another pickle")
    load()  # the version of the format
    order = "<" if load()["little_endian"] else ">"
    state = load()
    wanted = {storage.key: storage for storage in _storages(state)}
    storages = {}
    for key in load():
        storage = wanted[key]
        (count,) = struct.unpack(f"{order}q", file.read(8))
        size = count * np.dtype(storage.dtype).itemsize
        # Before read() reserves memory for what a damaged count says.
        if not 0 <= size <= os.fstat(file.fileno()).st_size:
            raise EOFError(f"{size} bytes of {key} are missing")
        storages[storage] = _elements(file.read(size), storage, order)
    return state, storages


def _storages(state: object) -> set[_Storage]:
    tensors = state.values() if isinstance(state, Mapping) else ()
    return {tensor.storage for tensor in tensors if isinstance(tensor, _Tensor)}


def _elements(data: bytes, storage: _Storage, order: str) -> np.ndarray:
    elements = np.frombuffer(data, order + storage.dtype)
    if len(elements) != storage.count:
        raise EOFError(f"{len(elements)} of {storage.count} numbers of {storage.key}")
    return elements


def _array(tensor: _Tensor, storages: Mapping[_Storage, np.ndarray]) -> np.ndarray:
    elements = storages[tensor.storage]
    last = tensor.offset + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if min(0, tensor.offset, *tensor.shape, *tensor.strides) < 0 or last >= len(elements):
        raise IndexError(f"a tensor outside its {len(elements)} numbers")
    return np.lib.stride_tricks.as_strided(
        elements[tensor.offset :],
        tensor.shape,
        [stride * elements.itemsize for stride in tensor.strides],
        writeable=False,
    )
