"""The saved state of a run: everything that decides its next step, in one file.

A file is either whole or not there: it is written under a temporary name, flushed to disk and
renamed. The last two are kept, so that a damaged newest file costs one interval and not the run.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np

from keras_cxrgan.training.gan import GAN

KEPT = 2


def state_variables(gan: GAN) -> dict:
    """Return every variable of the networks, optimizers, average and counters, by a stable name.

    The noise and the data order are functions of the seed and these counters, so there is no
    other random state; a dropout layer's own counter is among its network's variables.
    """
    owners = {
        "generator": gan.generator,
        "discriminator": gan.discriminator,
        "generator_optimizer": gan.generator_optimizer,
        "discriminator_optimizer": gan.discriminator_optimizer,
    }
    if gan.ema_generator is not None:
        owners["ema_generator"] = gan.ema_generator
    named = {
        f"{owner}/{index:03d}": variable
        for owner, holder in owners.items()
        for index, variable in enumerate(holder.variables)
    }
    counters = {"step": gan.step, "images_seen": gan.images_seen}
    if gan.augmentation_target:
        counters["augmentation_probability"] = gan.augmentation_probability
        if gan.augmentation_memory > 1:
            counters["overfitting"] = gan.overfitting
    return {**named, **counters}


def save_state(gan: GAN, folder: Path) -> Path:
    """Write the state as `folder/<images seen>.npz` and remove all but the last `KEPT`.

    One process writes here, so what another began and was killed at is removed too. Raises
    `OSError` (a full disk, no permission); earlier files then stay as they are.
    """
    path = folder / f"{int(gan.images_seen.numpy()):012d}.npz"
    _write_arrays(path, {name: value.numpy() for name, value in state_variables(gan).items()})
    for old in (*saved_states(folder)[KEPT:], *folder.glob(".*.npz.*.tmp")):
        old.unlink(missing_ok=True)
    return path


def _write_arrays(path: Path, arrays: dict) -> None:
    # In memory first: a ZipFile that fails to write complains once more when it is deleted.
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    # Released before the buffer is: Python 3.13 complains of a buffer that goes while it is seen,
    # as both do together where an error carries them away.
    with buffer.getbuffer() as view:
        _write(path, view)


def _write(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def saved_states(folder: Path) -> list[Path]:
    """Return the state files in a folder, the newest first."""
    names = re.compile(r"\d+\.npz")
    files = [path for path in folder.glob("*.npz") if names.fullmatch(path.name)]
    return sorted(files, key=lambda path: int(path.stem), reverse=True)


def load_state(gan: GAN, folder: Path) -> tuple[int, list[str]]:
    """Load the newest whole state; return (images seen, notes on files that were damaged).

    Returns 0 when there is none. Raises `ValueError` when a state belongs to other networks, and
    when none of those that are there can be read: beginning anew would remove what they may hold.
    """
    arrays, damaged = read_newest(folder)
    if arrays is None and damaged:
        raise ValueError(
            f"no state in {folder} can be read ({damaged[0]}): bring one back from a copy of it, or"
            " remove that folder to begin anew"
        )
    if arrays is None:
        return 0, []
    assign_state(gan, arrays, folder)
    return int(arrays["images_seen"]), damaged


def read_newest(folder: Path) -> tuple[dict | None, list[str]]:
    """Return (arrays by name of the newest whole state or None, notes on damaged files)."""
    damaged = []
    for path in saved_states(folder):
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                return {name: arrays[name] for name in arrays.files}, damaged
        except OSError as error:
            damaged.append(f"{path.name} cannot be read ({error}) and was passed over")
        except (ValueError, EOFError, zipfile.BadZipFile):
            damaged.append(f"{path.name} is damaged and was passed over")
    return None, damaged


def generator_weights(folder: Path) -> tuple[list[np.ndarray], int]:
    """Return (weights in `get_weights` order, images seen); averaged weights where they exist.

    Raises `ValueError` when the folder holds no whole state.
    """
    arrays, damaged = read_newest(folder)
    if arrays is None:
        found = f" ({damaged[0]})" if damaged else ""
        raise ValueError(f"{folder} holds no complete backup yet{found}; let the run go on first")
    averaged = any(name.startswith("ema_generator/") for name in arrays)
    owner = "ema_generator" if averaged else "generator"
    return weights_of(owner, arrays), int(arrays["images_seen"])


def weights_of(owner: str, arrays: dict) -> list[np.ndarray]:
    """Return one network's weights, in the order of its `variables`, of a state's arrays."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{owner}/")]


def save_best(gan: GAN, folder: Path, record: dict) -> None:
    """Write the generator that `gan.generate` uses as `best.npz`, and the record as `best.json`.

    Args:
        record: how it was chosen, for JSON. It is in both files: a process that is killed between
            the two leaves no weights under the words of others.
    """
    weights = (gan.ema_generator or gan.generator).get_weights()
    arrays = {f"generator/{index:03d}": weight for index, weight in enumerate(weights)}
    _write_arrays(folder / "best.npz", {**arrays, "record": np.array(json.dumps(record))})
    write_best(folder, record)


def write_best(folder: Path, record: dict) -> None:
    """Write `best.json` alone: the same checkpoint, chosen among more by now."""
    _write(folder / "best.json", (json.dumps(record, indent=2) + "\n").encode())


def read_best(folder: Path) -> dict | None:
    """Return the record of the best checkpoint, or None when there is none that can be read."""
    try:
        return best_weights(folder)[1]
    except ValueError:
        return None


def best_weights(folder: Path) -> tuple[list[np.ndarray], dict]:
    """Return (generator's weights in `get_weights` order, record) of the best checkpoint.

    Raises `ValueError` when there is none, or when it is damaged.
    """
    path = folder / "best.npz"
    if not path.exists():
        raise ValueError(
            f"{folder.parent} keeps no best checkpoint; train with --evaluate-every IMAGES, or"
            " leave --best out"
        )
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            names = sorted(name for name in arrays.files if name != "record")
            weights, record = [arrays[name] for name in names], json.loads(str(arrays["record"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, or leave --best out") from None
    try:
        newer = json.loads((folder / "best.json").read_text())
    except (OSError, ValueError):
        return weights, record
    fixed = ("metric", "value", "images_seen")
    return weights, newer if all(newer.get(key) == record[key] for key in fixed) else record


def assign_state(gan: GAN, arrays: dict, source="the state") -> None:
    """Give every variable its saved value; all are checked before the first is changed."""
    variables = state_variables(gan)
    odd = sorted(set(variables) ^ set(arrays)) or [
        name for name, value in variables.items() if tuple(value.shape) != arrays[name].shape
    ]
    if odd:
        raise ValueError(
            f"{source} was saved by other networks or optimizers (first difference: {odd[0]});"
            " choose another --out"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
