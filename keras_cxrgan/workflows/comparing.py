"""Both sides of an evaluation or an audit: images prepared alike, networks built, features found."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_cxrgan.data.splits import crossing
from keras_cxrgan.evaluation.extractors import EXTRACTORS, Extractor, build_extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.training import runtime
from keras_cxrgan.workflows.sides import (
    Preparation,
    Side,
    choose_preparation,
    is_generator,
    load_side,
    pair_warnings,
    recipe_of,
    trained_on_all,
)

INCEPTIONS = "fid2015, imagenet or random"  # which have layers and a resize to choose


@dataclass(frozen=True)
class Options:
    """What `evaluate` and `audit` share; the command line's options of the same names."""

    # The network
    dims: int | None = None  # layer of the Inceptions; None = 768
    mode: str = "pytorch-fid"  # their resize and range: pytorch-fid, legacy-tf or clean
    weights: Mapping[str, str] = field(default_factory=dict)  # extractor -> file of its weights
    preparation: str | None = None  # of a network of one's own: range=LOW:HIGH[,size=PIXELS]

    # The images; None = as the generator's recipe says, or as the generated files are
    image_size: int | None = None  # pixels
    fit: str | None = None  # how real films become square: crop, pad or stretch
    clahe: float | None = None  # CLAHE clip limit of the real films
    window: tuple[float, ...] | None = None  # levels (black, white) of their 16-bit PNGs
    classes: tuple[str, ...] = ()  # classes of the real films; () = all
    layout: str = "auto"  # how the real films lie on disk (data/layouts.py)
    count: int | None = None  # images to make with a run; None = as many as real films
    best: bool = False  # of a run, the checkpoint kept by --evaluate-every
    seed: int = 0  # of everything drawn
    allow_leak: bool = False  # judge a generator by held-out films that it was trained on

    # How it is computed; none of these changes a number
    on_bad_file: str = "error"  # or skip, which lists the files
    cache: bool = True  # keep features in `default_cache()`
    devices: str = "auto"
    memory_budget: int = 2 * 2**30  # bytes of images in memory; more go to a file

    def check(self, features: Sequence[str], fakes: Sequence[str]) -> Options:
        """Return the options; raise `ValueError` for one that would do nothing, or is wrong."""
        inceptions = [name for name in features if name in EXTRACTORS and name != "cxr"]
        own = [name for name in features if name not in EXTRACTORS]
        runs = [fake for fake in fakes if (Path(fake) / "recipe.json").is_file()]
        weightless = [name for name in self.weights if name not in features]
        for option, given, needed in (
            ("--dims", self.dims is not None and not inceptions, f"--features {INCEPTIONS}"),
            ("--mode", self.mode != "pytorch-fid" and not inceptions, f"--features {INCEPTIONS}"),
            ("--preparation", bool(self.preparation) and not own, "--features with a model's path"),
            ("--weights", bool(weightless), f"--features {' '.join(weightless)} too"),
            ("--best", self.best and not runs, "a run, of which it names a checkpoint"),
        ):
            if given:
                raise ValueError(f"{option} would change nothing here: it needs {needed}")
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or more, got {self.seed}")
        return self

    def deciding(self) -> dict:
        """Return the fields that change numbers, ready for JSON."""
        without = ("on_bad_file", "cache", "devices", "memory_budget")
        return {
            name: value for name, value in dataclasses.asdict(self).items() if name not in without
        }


def default_cache() -> Path:
    """Return the folder of kept features: $CXRGAN_CACHE, or the user's cache directory."""
    if "CXRGAN_CACHE" in os.environ:
        return Path(os.environ["CXRGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cxrgan"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Real, generated and held-out images, prepared alike, and the networks that look at them."""

    real: Side
    fakes: list[Side]
    held_out: Side | None
    preparation: Preparation
    extractors: list[Extractor]
    build: Callable[..., Extractor]  # name -> an extractor on the same devices
    features: Callable[[Extractor, np.ndarray], np.ndarray]  # of uint8 images (N, S, S), cached
    draw: Callable[[int, int], np.ndarray | None]  # (number of a fake, count) -> more of its images

    def describe(self) -> dict:
        """Return what was compared, ready for JSON."""
        return {
            "real": {"label": self.real.label, **self.real.about},
            "fakes": [{"label": fake.label, **fake.about} for fake in self.fakes],
            "held_out": self.held_out and {"label": self.held_out.label, **self.held_out.about},
            "preparation": dict(vars(self.preparation)),
        }

    def warnings(self) -> list[str]:
        """Return what is suspicious about the images, before any score."""
        warned = [*self.real.warnings, *(self.held_out.warnings if self.held_out else ())]
        for fake in self.fakes:
            warned += [*fake.warnings, *pair_warnings(self.real, fake)]
            for side in _judging(self.real, self.held_out):
                if fake.trained_on is None:
                    warned.append(
                        f"{fake.label} does not list the films it was trained on, so nobody knows"
                        f" whether it saw those of {side.label}: give the run and not its export"
                    )
                if leaked := _leaked(fake, side):
                    warned.append(
                        f"LEAK ALLOWED: {fake.label} was trained on {len(leaked)} of the held-out"
                        f" films of {side.label}; no number against them is a test"
                    )
            leaks = (fake.about.get("data") or {}).get("leaks", ())
            warned += [f"LEAK ALLOWED: {fake.label} was {leak}" for leak in leaks]
        if self.held_out:
            if shared := len(set(self.real.hashes) & set(self.held_out.hashes)):
                warned.append(
                    f"{shared} held-out films are also in {self.real.label}: they are not held out"
                )
        return warned


def load_comparison(
    real: str,
    fakes: Sequence[str],
    held_out: str | None,
    features: Sequence[str],
    options: Options,
    progress,
    check: Callable[..., None] = lambda *sides: None,
) -> Comparison:
    """Load the sides and build the networks.

    Args:
        check: function (real, fake) and (real, fake, held-out) that may refuse before they run.
    """
    if not features:
        raise ValueError("--features names no extractor: leave it out for cxr, or name one")
    if options.count is not None and options.count < 2:
        raise ValueError(f"--count must be 2 or more, got {options.count}")
    strategy = runtime.start(options.devices, seed=options.seed)
    cache_dir = default_cache() if options.cache else None
    preparation = choose_preparation(
        fakes, image_size=options.image_size, fit=options.fit, clahe=options.clahe,
        window=options.window,
    )  # fmt: skip

    trained = [recipe_of(fake)["seed"] for fake in fakes if is_generator(fake)]
    phantom_seed = trained[0] if trained else 0

    def build(name, **changes):
        arguments = {
            "dims": options.dims,
            "mode": options.mode,
            "weights": options.weights.get(name),
            "preparation": options.preparation,
            "seed": options.seed,
        }
        with strategy.scope():
            return build_extractor(name, **(arguments | changes))

    def load(source, role, count=None, classes=()):
        return load_side(
            source,
            preparation,
            role=role,
            count=count,
            classes=classes,
            layout=options.layout,
            allow_leak=options.allow_leak,
            seed=options.seed,
            phantom_seed=phantom_seed,
            best=options.best and (Path(source) / "recipe.json").is_file(),
            on_bad_file=options.on_bad_file,
            cache_dir=cache_dir and cache_dir / "images",
            memory_budget=options.memory_budget,
            progress=lambda done, total: progress("images", done, total),
        )

    def find_features(extractor, images):
        return extract(
            extractor,
            images,
            strategy=strategy,
            cache_dir=cache_dir and cache_dir / "features",
            progress=lambda done, total: progress(extractor.name, done, total),
        )

    # Networks first: missing weights should not cost the time of reading films.
    extractors = [build(name) for name in dict.fromkeys(features)]
    real_side = load(real, "real", classes=options.classes)
    made = []
    for fake in fakes:
        count = options.count or (len(real_side.images) if is_generator(fake) else None)
        made.append(load(fake, "fake", count, options.classes))
        check(real_side, made[-1])

    def draw(number, count):
        if not is_generator(fakes[number]):
            return None
        return load(fakes[number], "fake", count, options.classes).images

    held = load(held_out, "held-out", classes=options.classes) if held_out else None
    for side in made if held else ():
        check(real_side, side, held)
    for fake in made if not options.allow_leak else ():
        for side in _judging(real_side, held):
            if fake.trained_on is None and trained_on_all(fake, side):
                raise ValueError(
                    f"{fake.label} was trained on {side.label}, which is to judge it: hold out"
                    " others, or pass --allow-leak, which every result will say"
                )
            if leaked := _leaked(fake, side):
                raise ValueError(
                    f"{fake.label} was trained on {len(leaked)} of the held-out films of"
                    f" {side.label} ({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}):"
                    " hold out others, or pass --allow-leak, which every result will say"
                )
    return Comparison(
        real_side,
        _tell_apart(made),
        held,
        preparation,
        extractors,
        build,
        find_features,
        draw,
    )


def unseen(made: Side, train: Side) -> list[str]:
    """Return what `train` lacks of the films that a generator was trained on, in sentences.

    Raises `ValueError` if it lacks all: copies of them would not be found, which would reassure.
    """
    if made.trained_on:
        given = {*train.hashes, *filter(None, train.originals)}
        missing = len(made.trained_on - given)
        if missing == len(made.trained_on):
            raise ValueError(
                f"{made.label} was trained on none of the films of {train.label}, so that its copies"
                " would not be found: give the films that it was trained on"
            )
        if missing:
            return [
                f"{made.label} was trained on {missing:,} films that {train.label} does not hold:"
                " copies of these are not found here"
            ]
    elif made.about["kind"] == "generator" and not trained_on_all(made, train):
        return [
            f"the films that {made.label} was trained on are not just those of {train.label}, as far"
            " as it says: copies of others are not found here"
        ]
    return []


def _judging(real: Side, held_out: Side | None) -> list[Side]:
    """The sides that no generator may have been trained on."""
    return [side for side in (real, held_out) if side and (side is held_out or side.judging)]


def _leaked(fake: Side, held_out: Side) -> list[str]:
    originals = held_out.originals or (None,) * len(held_out.names)
    return crossing(fake.trained_on or (), held_out.names, held_out.hashes, originals)


def _tell_apart(sides: list[Side]) -> list[Side]:
    """Return the sides under their whole paths where last names alone would be equal."""
    counts = Counter(side.label for side in sides)
    return [
        dataclasses.replace(side, label=side.about["source"]) if counts[side.label] > 1 else side
        for side in sides
    ]
