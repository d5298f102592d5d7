"""The run directory: what is written of a run beside its pictures, and what guards it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_cxrgan
from keras_cxrgan.data.prepare import ImageSet
from keras_cxrgan.data.records import content_hash, fingerprint
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.rules import FEWEST_FILMS_EVALUATED
from keras_cxrgan.training import callbacks, state


def stage_folder(run: Path, image_size: int) -> Path:
    """Return where a grown run keeps the stage of a size, a run of its own."""
    return run / "stages" / f"{image_size:04d}"


def newest_stage(run: Path) -> Path:
    """Return the last stage of a grown run that has saved a state; any other run is its own."""
    begun = [path.parent for path in (run / "stages").glob("*/backup") if state.saved_states(path)]
    return max(begun, default=run)


def read_json(path: Path) -> dict:
    """Return what a JSON file of a run says; `ValueError`, naming it, for a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds no object but a {type(found).__name__}")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): bring it back from a copy of the run, or choose another"
            " --out and train again"
        ) from None
    return found


def read_recipe(run: Path) -> Recipe:
    """Return the recipe of a run; `ValueError`, naming the file, for a damaged one."""
    path = run / "recipe.json"
    try:
        return Recipe().override(**read_json(path))
    except ValueError as error:
        named = str(error) if str(path) in str(error) else f"{path} is no recipe of a run: {error}"
        raise ValueError(named) from None


def check_batch_size(recipe: Recipe, replicas: int) -> None:
    if recipe.accumulation > 1 and replicas > 1:
        # Keras decides whether to apply inside a tf.cond, which strategies do not allow.
        raise ValueError(
            f"accumulation={recipe.accumulation} works on one device, and there are {replicas}:"
            " pass --devices cpu or gpu:0, or --set accumulation=1"
        )
    if recipe.minibatch_stddev and recipe.batch_size < 2 * replicas:
        raise ValueError(
            f"minibatch_stddev compares the images of a device, and a batch of {recipe.batch_size}"
            f" on {replicas} devices has one each: pass --batch-size {2 * replicas} or more"
        )
    if recipe.batch_size % replicas:
        fitting = max(1, recipe.batch_size // replicas) * replicas
        raise ValueError(
            f"a batch of {recipe.batch_size} cannot be shared equally by {replicas} devices;"
            f" pass --batch-size {fitting}"
        )


def films_of(run: Path) -> frozenset[str] | None:
    """Return the SHA-256 of every film a run was trained on, and of their originals.

    None where nothing says so: exports do not list films, which would tell who was among them.
    """
    path = newest_stage(run) / "data.json"
    if not path.is_file():
        return None
    about = read_json(path)
    own = frozenset(digest for _, digest in about["images"]) | set(about.get("originals", ()))
    return own | set(about.get("inherited", ()))


def describe_start(run: Path, start_from: Path | None) -> dict:
    """Return, for `data.json`, what a run began with and the films its weights have seen by it.

    Of a run that goes on, what it says itself. One that was ended before its first state begins
    again, with what it is given now.

    Raises `ValueError` if a run is to go on from its own state and is given another.
    """
    told = ("started_from", "inherited", "inherited_leaks")
    if (run / "data.json").is_file() and state.saved_states(run / "backup"):
        about = read_json(run / "data.json")
        if start_from is not None and "started_from" not in about:
            raise ValueError(
                f"{run} began without --start-from and goes on from its own state: leave"
                " --start-from out, or choose another --out"
            )
        # One that is gone is no matter: the same command goes on.
        if start_from is not None and (newest_stage(Path(start_from)) / "recipe.json").is_file():
            started = _started_from(newest_stage(Path(start_from)))
            if started["inherited"] != about["inherited"]:
                raise ValueError(
                    f"{run} began from a run of other films than {start_from}, and goes on from"
                    " its own state: leave --start-from out, or choose another --out"
                )
        return {key: about[key] for key in told if key in about}
    if start_from is None:
        return {}
    start_from = newest_stage(Path(start_from))
    if not (start_from / "recipe.json").is_file():
        raise ValueError(f"{start_from} is no run to start from: it holds no recipe.json")
    return _started_from(start_from)


def told_before(run: Path, description: dict) -> dict:
    """Return, for `data.json`, what a run that goes on has said of its films and still holds.

    The same films may come from another source now, which does not know that they are of a test
    split, or which files they were made from.
    """
    if not ((run / "data.json").is_file() and state.saved_states(run / "backup")):
        return {}
    about = read_json(run / "data.json")
    inherited = about.get("inherited_leaks", ())
    earlier = [leak for leak in about.get("leaks", ()) if leak not in inherited]
    return {
        "leaks": list(dict.fromkeys([*earlier, *description["leaks"]])),
        "originals": sorted({*about.get("originals", ()), *description["originals"]}),
    }


BEGAN = "began with a run "  # before each leak of a run that another began with


def all_leaks(description: dict) -> list[str]:
    """Return what has leaked into a run's weights: its own films, and those it began with.

    >>> all_leaks({"leaks": ["trained on a"], "inherited_leaks": [BEGAN + "trained on a"]})
    ['trained on a']
    """
    own = list(description["leaks"])
    inherited = description.get("inherited_leaks", ())
    return own + [leak for leak in inherited if leak.removeprefix(BEGAN) not in own]


def _started_from(earlier: Path) -> dict:
    about = read_json(earlier / "data.json") if (earlier / "data.json").is_file() else {}
    leaks = [BEGAN + leak.removeprefix(BEGAN) for leak in about.get("leaks", ())]
    return {
        "started_from": {
            "recipe": read_recipe(earlier).name,
            "images_seen": max(
                (int(p.stem) for p in state.saved_states(earlier / "backup")), default=0
            ),
        },
        "inherited": sorted(films_of(earlier) or ()),
        # What that run saw, this one's weights have seen.
        "inherited_leaks": list(dict.fromkeys(leaks)),
    }


LENGTH = ("epochs", "training_images")  # of a training, which may be trained on


def check_same_recipe(run: Path, recipe: Recipe, extend: bool) -> None:
    if not (run / "recipe.json").exists():
        _check_new(run)
        return
    theirs = read_recipe(run)
    # Fields that only watch are no difference: a run may go on with more evaluations or none.
    changed = recipe.difference(theirs)
    if extend:
        for name in LENGTH:
            changed.pop(name, None)
    if changed:
        lines = "\n".join(
            f"  {name}: {old} in the run, {new} now" for name, (new, old) in changed.items()
        )
        longer = "; --extend trains it for longer" if {*LENGTH} & {*changed} else ""
        raise ValueError(
            f"{run} belongs to a run with another recipe:\n{lines}\n"
            f"Choose another --out, or give the run's own settings to go on{longer}."
        )


def _check_new(run: Path) -> None:
    """Refuse a folder in which a new run would replace something, or lose a state."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"--out {run} is a file; name a folder")
    if state.saved_states(run / "backup"):
        raise ValueError(
            f"{run} holds a saved state and no recipe.json, which says how it was trained: bring"
            " the file back from a copy of the run, or choose another --out"
        )
    # What a run that was ended while it read its films leaves.
    found = [p.name for p in run.iterdir() if p.name != "cache"] if run.exists() else []
    foreign = sorted(name for name in found if not name.startswith("."))
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ValueError(
            f"--out {run} holds {foreign[0]}{more} and no run: name a new folder, or an empty one"
        )


def check_same_data(run: Path, description: dict) -> None:
    path = run / "data.json"
    if not path.exists():
        if state.saved_states(run / "backup"):
            raise ValueError(
                f"{run} holds a saved state and no data.json, which says what it was trained on:"
                " bring the file back from a copy of the run, or choose another --out"
            )
        return
    theirs = read_json(path)
    if theirs["fingerprint"] != description["fingerprint"]:
        raise ValueError(
            f"{run} was trained on other films: {_source(theirs)}, and now {_source(description)}"
            f" ({_changes(theirs, description)}). Give the same to go on, or choose another --out."
        )
    if theirs.get("labelled") != description.get("labelled"):
        then, now = (
            ", ".join(f"{name} {films}" for name, films in about.get("labels", {}).items())
            for about in (theirs, description)
        )
        raise ValueError(
            f"{run} was trained on the same films in other classes ({then}; now {now}). Give each"
            " film the class it had to go on, or choose another --out."
        )


def _source(about: dict) -> str:
    parts = [f"{about['count']:,} of {about['source']}"]
    if about.get("classes"):
        parts.append(f"class {', '.join(about['classes'])}")
    if about.get("split"):
        parts.append(f"split {about['split']}")
    return ", ".join(parts)


def _changes(theirs: dict, ours: dict) -> str:
    """Return which films only one of two descriptions has, by content."""
    then, now = (
        {digest: name.removeprefix(f"{about['source']}/") for name, digest in about["images"]}
        for about in (theirs, ours)
    )
    told = []
    for what, mine, other in (("new", now, then), ("no longer there", then, now)):
        names = sorted(name for digest, name in mine.items() if digest not in other)
        if names:
            more = ", ..." if len(names) > 3 else ""
            told.append(f"{len(names):,} {what}: {', '.join(names[:3])}{more}")
    return "; ".join(told) or "the same films, some more than once"


def check_enough(count: int, recipe: Recipe) -> None:
    if count < 2:
        raise ValueError(f"{count} image: 2 different ones are the least a GAN can be trained on")
    if count < recipe.batch_size:
        raise ValueError(
            f"{count} images are fewer than one batch of {recipe.batch_size}: add images, or pass"
            f" --batch-size {count} or less"
        )
    if recipe.evaluate_interval and count < FEWEST_FILMS_EVALUATED:
        raise ValueError(
            f"{count} images are too few to evaluate against, {FEWEST_FILMS_EVALUATED} are needed:"
            " add images, or leave --evaluate-every out"
        )


def check_workers_agree(strategy, recipe: Recipe, description: dict, resumed_from: int) -> None:
    """Refuse workers that would go on from different states: their copies never meet again."""
    ours = {
        "recipe": recipe.to_json(),
        "images (--data)": description["fingerprint"] + description.get("labelled", ""),
        "saved state (--out)": str(resumed_from),
    }
    numbers = [[int(content_hash(text.encode())[:15], 16) for text in ours.values()]]
    theirs = strategy.gather(strategy.run(lambda: tf.constant(numbers, tf.int64)), axis=0).numpy()
    different = [name for name, column in zip(ours, theirs.T) if len(set(column)) > 1]
    if different:
        raise ValueError(
            f"the workers differ in {' and '.join(different)}; run the same command with the same"
            f" images on each, and an --out on a disk that all share (here {resumed_from:,} images seen)"
        )


def describe_data(
    image_set: ImageSet, data, classes, *, split=None, layout="auto", class_counts=None
) -> dict:
    """Return what the run is fed, ready for JSON: every film by name and SHA-256.

    Args:
        class_counts: of a conditional run, films of each class in the order of their numbers.
    """
    labelled = {}
    if class_counts:
        # Classes of equal size may still have exchanged films, which the counts do not show.
        pairs = (f"{digest} {label}" for digest, label in zip(image_set.hashes, image_set.labels))
        labelled = {"labels": dict(class_counts), "labelled": fingerprint(pairs)}
    return {
        "source": "phantom" if data is None else str(data),
        "classes": list(classes),
        "split": split,
        "layout": layout,
        "leaks": list(image_set.leaks),
        "notes": list(image_set.notes),
        "count": len(image_set.images),
        "fingerprint": image_set.fingerprint,
        **labelled,
        "originals": sorted({r.original for r in image_set.records if r.original}),
        "rejected": [list(item) for item in image_set.rejected],
        "images": [
            [record.name, digest] for record, digest in zip(image_set.records, image_set.hashes)
        ],
    }


def environment(strategy) -> dict:
    return {
        "keras_cxrgan": keras_cxrgan.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def explain_stop(error: Exception, run: Path) -> str:
    saved = state.saved_states(run / "backup")
    kept = (
        f"The newest complete backup holds {int(saved[0].stem):,} images seen; the same command"
        " goes on from there."
        if saved
        else "There was no backup yet."
    )
    if isinstance(error, callbacks.NonFinite):
        return f"{error}. {kept}"
    if isinstance(error, tf.errors.ResourceExhaustedError) and "OOM" in str(error):
        return (
            "the device's memory is too small for this recipe; pass a smaller --batch-size, or"
            f" smaller networks (--set width, generator_max_width, latent_dim). {kept}"
        )
    if "Collective ops is aborted" in str(error) and "/job:worker" in str(error):
        return f"another worker of the cluster stopped; its own message says why. {kept}"
    # TensorFlow says where it happened before it says what.
    where = ("Graph execution error", "Detected at node", "<stack traces", 'File "')
    lines = [line.strip() for line in str(getattr(error, "strerror", None) or error).splitlines()]
    reason = next(
        (line for line in lines if line and not line.startswith(where)), type(error).__name__
    )
    return f"training in {run} stopped: {reason.rstrip('.')}. {kept}"


@contextlib.contextmanager
def lock(run: Path):
    """Hold the run directory, so that two processes never train in it at once."""
    fresh = not run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / ".lock", "w")
    except OSError as error:
        raise ValueError(f"cannot write to --out {run}: {error.strerror}") from error
    with file:
        try:
            import fcntl

            # The kernel drops the lock with the process, so a killed run leaves none behind.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no such locks on this system
        except BlockingIOError:
            raise ValueError(
                f"another process is training in {run}; wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            if fresh and os.listdir(run) == [".lock"]:
                shutil.rmtree(run)  # a mistyped command leaves nothing behind


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def removed_on_error(paths: Callable[[], Iterable[Path]]):
    """Remove these files on an error or Ctrl-C: unlisted, no later call would know whose they are."""
    try:
        yield
    except BaseException:
        for path in paths():
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing(path: Path):
    """Give a temporary name beside `path`; it takes its place at the end, or is removed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
