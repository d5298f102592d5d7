"""How good generated images are: both sides loaded, features, scores, pictures, report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import keras_cxrgan
from keras_cxrgan.evaluation import degradations, frechet, kernel_distance, pictures, report, scores
from keras_cxrgan.evaluation.appearance import (
    grey_histogram,
    histogram_distance,
    spectral_comparison,
)
from keras_cxrgan.evaluation.diversity import inception_score, pairwise_ms_ssim
from keras_cxrgan.evaluation.extractors import build_extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.evaluation.neighbours import nearest
from keras_cxrgan.training import runtime
from keras_cxrgan.workflows.sides import (
    Side,
    choose_preparation,
    is_generator,
    load_side,
    pair_warnings,
)

LADDER_AT_MOST = 500
SHOWN = 12
MS_SSIM_FROM = 64  # pixels


def default_cache() -> Path:
    """Return the folder of kept features: $CXRGAN_CACHE, or the user's cache directory."""
    if "CXRGAN_CACHE" in os.environ:
        return Path(os.environ["CXRGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cxrgan"


def evaluate(
    real: str,
    fakes: Sequence[str],
    *,
    held_out: str | None = None,
    out: str | Path | None = None,
    features: Sequence[str] = ("cxr",),
    dims: int | None = None,
    mode: str = "pytorch-fid",
    weights: dict[str, str] | None = None,
    preparation: str | None = None,
    count: int | None = None,
    classes: Sequence[str] = (),
    image_size: int | None = None,
    fit: str | None = None,
    clahe: float | None = None,
    neighbours: int = 5,
    seed: int = 0,
    best: bool = False,
    references: bool = True,
    kid_subsets: bool = False,
    frechet_infinity: bool = False,
    with_inception_score: bool = False,
    on_bad_file: str = "error",
    cache: bool = True,
    devices: str = "auto",
    overwrite: bool = False,
    memory_budget: int = 2 * 2**30,
    report_progress=None,
) -> dict:
    """Score one or several sets of generated images against real films; return the whole report.

    Args:
        real: folder or zip of films, or "phantom"; `held_out` likewise, never trained on.
        fakes: folders, zips, runs or exports.
        out: folder for metrics.json, report.md and figures; None writes none.
        features: names of extractors or paths of models; all scores are given for each.
        weights: file of weights by extractor name.
        count: images made with a run or export; None for as many as real films.
        kid_subsets, frechet_infinity, with_inception_score: more numbers, for comparison with
            papers that print them; the first two want thousands of images.
        references: also score degraded real films, so that a reader sees where a score lies.

    Raises `ValueError` with one clear line for everything a user can mend.
    """
    progress = report_progress or (lambda *_: None)
    if neighbours < 1:
        raise ValueError(f"--neighbours must be 1 or more, got {neighbours}")
    if count is not None and count < 2:
        raise ValueError(f"--count must be 2 or more, got {count}")
    inputs = report.provenance(
        [real, list(fakes), held_out, list(features), dims, mode, weights, preparation, count,
         list(classes), image_size, fit, clahe, neighbours, seed, best]
    )  # fmt: skip
    if out is not None:
        report.check_out(inputs, Path(out), overwrite)
    strategy = runtime.start(devices, seed=seed)
    cache_dir = default_cache() if cache else None
    prepared = choose_preparation(fakes, image_size=image_size, fit=fit, clahe=clahe)

    def load(source, role, number, which):
        return load_side(
            source,
            prepared,
            role=role,
            count=number,
            classes=which,
            seed=seed,
            best=best and is_generator(source) and (Path(source) / "recipe.json").is_file(),
            on_bad_file=on_bad_file,
            cache_dir=cache_dir and cache_dir / "images",
            memory_budget=memory_budget,
            progress=lambda done, total: progress("images", done, total),
        )

    # The extractors first: their missing weights should not cost the time of reading films.
    with strategy.scope():
        extractors = [
            build_extractor(
                name,
                dims=dims,
                mode=mode,
                weights=(weights or {}).get(name),
                preparation=preparation,
                seed=seed,
            )
            for name in dict.fromkeys(features)
        ]
    real_side = load(real, "real", None, classes)
    fake_sides = [
        load(fake, "fake", count or (len(real_side.images) if is_generator(fake) else None), ())
        for fake in fakes
    ]
    fake_sides = _tell_apart(fake_sides)
    held_side = load(held_out, "held-out", None, classes) if held_out else None
    for side in fake_sides:
        scores.check_counts(len(real_side.images), len(side.images), neighbours)

    def features_of(extractor, images):
        return extract(
            extractor,
            images,
            strategy=strategy,
            cache_dir=cache_dir and cache_dir / "features",
            progress=lambda done, total: progress(extractor.name, done, total),
        )

    blocks, neighbour_rows = [], []
    for extractor in extractors:
        seen = _Seen(
            real_side,
            fake_sides,
            features_of(extractor, real_side.images),
            [features_of(extractor, side.images) for side in fake_sides],
            features_of(extractor, held_side.images) if held_side else None,
        )
        block = {
            "features": extractor.identity(),
            "scores": _scores(extractor, seen, prepared, neighbours, seed, progress),
            "comparisons": _comparisons(seen, seed),
            "ladder": None,
        }
        for entry, fake in zip(block["scores"], seen.fakes):
            if kid_subsets:
                entry["kid"]["subsets"] = kernel_distance.kid_subsets(seen.real, fake, seed=seed)
            if frechet_infinity:
                entry["frechet"]["infinity"] = frechet.frechet_infinity(seen.real, fake, seed=seed)
        if references:
            block["ladder"] = _ladder(
                seen, functools.partial(features_of, extractor), neighbours, seed
            )
        blocks.append(block)
        if extractor is extractors[0]:
            neighbour_rows = [
                row
                for side, theirs in zip(fake_sides, seen.fakes)
                for row in _nearest_real(real_side, side, seen.real, theirs, seed)
            ]
    appearance = [_appearance(real_side, side, seed) for side in fake_sides]
    if with_inception_score:
        with strategy.scope():
            logits = build_extractor(
                "fid2015", dims="logits_unbiased", mode=mode, weights=(weights or {}).get("fid2015")
            )
        for entry, side in zip(appearance, fake_sides):
            mean, sd = inception_score(features_of(logits, side.images))
            entry["inception_score"] = {"mean": mean, "sd": sd, "splits": 10}
    result = {
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "inputs": inputs,
        "real": {"label": real_side.label, **real_side.about},
        "fakes": [{"label": side.label, **side.about} for side in fake_sides],
        "held_out": held_side and {"label": held_side.label, **held_side.about},
        "preparation": dict(vars(prepared)),
        "settings": {"neighbours": neighbours, "seed": seed, "mode": mode, "dims": dims},
        "extractors": blocks,
        "appearance": appearance,
        "findings": [
            f"{entry['fake']} ({block['features']['name']}): {text}"
            for block in blocks
            for entry in block["scores"]
            for text in scores.findings(entry)
        ],
        "warnings": _warnings(real_side, fake_sides, held_side, extractors, blocks),
    }
    if out is not None:
        out = Path(out)
        report.write(out, report.FILE, result, "report.md", report.markdown(result))
        pictures.spectra(result, out / "spectra.png")
        pictures.histograms(
            grey_histogram(real_side.images),
            {side.label: grey_histogram(side.images) for side in fake_sides},
            out / "histograms.png",
        )
        pictures.pairs(neighbour_rows, out / "nearest.png")
        if references:
            pictures.ladder(result, out / "ladder.png")
    return result


def _tell_apart(sides: list[Side]) -> list[Side]:
    """Return the sides under their whole paths where last names alone would be equal."""
    counts = Counter(side.label for side in sides)
    return [
        dataclasses.replace(side, label=side.about["source"]) if counts[side.label] > 1 else side
        for side in sides
    ]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Both sides as one extractor sees them."""

    real_side: Side
    fake_sides: list[Side]
    real: np.ndarray
    fakes: list[np.ndarray]
    held_out: np.ndarray | None


def _scores(extractor, seen, prepared, neighbours, seed, progress) -> list[dict]:
    entries = []
    for number, (side, fake) in enumerate(zip(seen.fake_sides, seen.fakes)):
        progress("scores", number, len(seen.fakes))
        entry = scores.score(
            seen.real, fake, held_out=seen.held_out, neighbours=neighbours, seed=seed
        )
        fingerprints = [seen.real_side.about["fingerprint"], side.about["fingerprint"]]
        decides = [extractor.identity(), vars(prepared), fingerprints, neighbours, seed]
        entries.append({"fake": side.label, "provenance": report.provenance(decides), **entry})
    progress("scores", len(seen.fakes), len(seen.fakes))
    return entries


def _comparisons(seen: _Seen, seed: int) -> list[dict]:
    pairs = itertools.combinations(zip(seen.fake_sides, seen.fakes), 2)
    return [
        {
            "first": first.label,
            "second": second.label,
            **scores.compare(seen.real, one, other, permutations=1000, seed=seed),
        }
        for (first, one), (second, other) in pairs
    ]


def _ladder(seen: _Seen, features_of, neighbours: int, seed: int) -> dict:
    """Score fakes, held-out, real and degraded real films against one half of the reals."""
    random = np.random.default_rng(seed)
    sizes = [len(fake) for fake in seen.fakes]
    sizes += [len(seen.held_out)] if seen.held_out is not None else []
    count = min(len(seen.real) // 2, *sizes, LADDER_AT_MOST)
    order = random.permutation(len(seen.real))
    half, other = order[:count], np.sort(order[count : 2 * count])
    images = seen.real_side.images[other]
    candidates = {pictures.REAL_RUNGS[0]: seen.real[other]}
    if seen.held_out is not None:
        candidates[pictures.REAL_RUNGS[1]] = seen.held_out[
            random.permutation(len(seen.held_out))[:count]
        ]
    for name, severity in degradations.REFERENCE:
        spoilt = degradations.DEGRADATIONS[name](images, severity, seed=seed)
        candidates[f"{name.replace('_', ' ')} {severity:g}"] = features_of(spoilt)
    for side, fake in zip(seen.fake_sides, seen.fakes):
        candidates[side.label] = fake[random.permutation(len(fake))[:count]]
    rows = scores.ladder(seen.real[half], candidates, neighbours=neighbours)
    return {
        "n": count,
        "fakes": [side.label for side in seen.fake_sides],
        "rows": sorted(rows, key=lambda row: row["frechet"]),
    }


def _appearance(real: Side, fake: Side, seed: int) -> dict:
    size = real.images.shape[1]
    similarity = None
    if size >= MS_SSIM_FROM:
        similarity = {
            name: pairwise_ms_ssim(side.images, seed=seed)
            for name, side in (("real", real), ("fake", fake))
        }
    return {
        "fake": fake.label,
        "ms_ssim": similarity,
        "spectrum": spectral_comparison(real.images, fake.images),
        "histogram": histogram_distance(real.images, fake.images),
        "inception_score": None,
    }


def _nearest_real(real: Side, fake: Side, real_features, fake_features, seed: int) -> list:
    """Return rows of generated images and their nearest real films: some drawn, the closest."""
    indices, distances = nearest(fake_features, real_features, k=1)
    indices, distances = indices[:, 0], distances[:, 0]
    drawn = np.random.default_rng(seed).permutation(len(distances))[:SHOWN]
    closest = np.argsort(distances, kind="stable")[:SHOWN]
    return [
        (
            f"{fake.label}: {what}, above the real film nearest in features",
            [(fake.images[i], real.images[indices[i]], f"{distances[i]:.3g}") for i in chosen],
        )
        for what, chosen in (("drawn at random", drawn), ("the closest of all", closest))
    ]


def _warnings(real, fakes, held_out, extractors, blocks) -> list[str]:
    warned = [*real.warnings, *(held_out.warnings if held_out else ())]
    for fake in fakes:
        warned += [*fake.warnings, *pair_warnings(real, fake)]
    if held_out:
        shared = len(set(real.hashes) & set(held_out.hashes))
        if shared:
            warned.append(
                f"{shared} held-out films are also in {real.label}: they are not held out"
            )
        for fake in fakes:
            if seen := sum(digest in fake.trained_on for digest in held_out.hashes):
                warned.append(f"{fake.label} was trained on {seen} of the held-out films")
    warned += [
        text for block in blocks for entry in block["scores"] for text in scores.warnings(entry)
    ]
    size = real.images.shape[1]
    for extractor in extractors:
        if size > extractor.input_size:
            aliased = extractor.preparation in ("pytorch-fid", "legacy-tf")
            warned.append(
                f"{extractor.name} sees images of {size} pixels shrunk to {extractor.input_size}"
                f"{', without antialiasing (--mode clean has it)' if aliased else ''}: finer faults"
                " are invisible to it; the spectrum shows them"
            )
    warned += [
        f"unverified weights: {extractor.name} ({extractor.about})"
        for extractor in extractors
        if not extractor.verified
    ]
    return list(dict.fromkeys(warned))


def scorer(
    real_images: np.ndarray, *, features: str = "cxr", seed: int = 0
) -> Callable[[np.ndarray], dict[str, float]]:
    """Return a function of generated images, uint8 (N, H, W), that gives `scores.METRICS`.

    The real side is computed here, once. Raises `ValueError` for too few images.
    """
    extractor = build_extractor(features, seed=seed)
    scores.check_counts(len(real_images), len(real_images), 5)
    real = extract(extractor, real_images)
    return lambda images: scores.quick_scores(real, extract(extractor, images))
