"""The saved state of a run: everything that decides its next step, in one file.

A file is either whole or not there: it is written under a temporary name, flushed to disk and
renamed. The last two are kept, so that a damaged newest file costs one interval and not the run.
"""

from __future__ import annotations

import io
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
    return {**named, "step": gan.step, "images_seen": gan.images_seen}


def save_state(gan: GAN, folder: Path) -> Path:
    """Write the state as `folder/<images seen>.npz` and remove all but the last `KEPT`.

    Raises `OSError` (a full disk, no permission); earlier files then stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{int(gan.images_seen.numpy()):012d}.npz"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        # In memory first: a ZipFile that fails to write complains once more when it is deleted.
        buffer = io.BytesIO()
        np.savez(buffer, **{name: value.numpy() for name, value in state_variables(gan).items()})
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in saved_states(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def saved_states(folder: Path) -> list[Path]:
    """Return the state files in a folder, the newest first."""
    names = re.compile(r"\d+\.npz")
    files = [path for path in folder.glob("*.npz") if names.fullmatch(path.name)]
    return sorted(files, key=lambda path: int(path.stem), reverse=True)


def load_state(gan: GAN, folder: Path) -> tuple[int, list[str]]:
    """Load the newest whole state; return (images seen, notes on files that were damaged).

    Returns 0 when there is none. Raises `ValueError` when a state belongs to other networks.
    """
    arrays, damaged = read_newest(folder)
    if arrays is None:
        return 0, damaged
    assign_state(gan, arrays, folder)
    return int(arrays["images_seen"]), damaged


def read_newest(folder: Path) -> tuple[dict | None, list[str]]:
    """Return (arrays by name of the newest whole state or None, notes on damaged files)."""
    damaged = []
    for path in saved_states(folder):
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                return {name: arrays[name] for name in arrays.files}, damaged
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            damaged.append(f"{path.name} is damaged ({error}) and was passed over")
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
    owner = "ema_generator/" if averaged else "generator/"
    names = sorted(name for name in arrays if name.startswith(owner))
    return [arrays[name] for name in names], int(arrays["images_seen"])


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
