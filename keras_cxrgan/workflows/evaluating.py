"""How good generated images are: both sides loaded, features, scores, pictures, report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import keras_cxrgan
from keras_cxrgan.data import sources
from keras_cxrgan.evaluation import (
    degradations,
    frechet,
    kernel_distance,
    pictures,
    report,
    scores,
)
from keras_cxrgan.evaluation.appearance import (
    grey_histogram,
    histogram_distance,
    spectral_comparison,
)
from keras_cxrgan.evaluation.diversity import inception_score, pairwise_ms_ssim
from keras_cxrgan.evaluation.extractors import Extractor, build_extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.evaluation.neighbours import nearest
from keras_cxrgan.workflows.choosing import sets_scored
from keras_cxrgan.workflows.comparing import Comparison, Options, load_comparison
from keras_cxrgan.workflows.sides import Side, is_generator

LADDER_AT_MOST = 500
SHOWN = 12
MS_SSIM_FROM = 64  # pixels


def evaluate(
    real: str,
    fakes: Sequence[str],
    *,
    held_out: str | None = None,
    out: str | Path | None = None,
    features: Sequence[str] = ("cxr",),
    neighbours: int = 5,
    draws: int | None = None,
    references: bool = True,
    kid_subsets: bool = False,
    frechet_infinity: bool = False,
    with_inception_score: bool = False,
    overwrite: bool = False,
    report_progress=None,
    **options,
) -> dict:
    """Score one or several sets of generated images against real films; return the whole report.

    Args:
        real: folder or zip of films, or "phantom"; `held_out` likewise, never trained on.
        fakes: folders, zips, runs or exports.
        out: folder for metrics.json, report.md and figures; None writes none.
        features: names of extractors or paths of models; all scores are given for each.
        neighbours: k of precision, recall, density and coverage.
        draws: sets of images that a run or an export makes and whose scores are averaged, beside
            those of the first: one set of a few dozen images says little. None is as many as
            `sets_scored` says with cxr, and one with slower networks.
        references: also score degraded real films, so that a reader sees where a score lies.
        kid_subsets, frechet_infinity, with_inception_score: more numbers, for comparison with
            papers that print them; the first two want thousands of images.
        options: fields of `Options`: seed, image_size, count, weights, ...

    Raises `ValueError` with one clear line for everything a user can mend.

    Example:
        >>> result = evaluate("films/", ["runs/default-films"], out="report/")
        >>> result["extractors"][0]["scores"][0]["recall"]
    """
    options = Options(**options).check(
        [*features, *(["fid2015"] if with_inception_score else [])], fakes
    )
    progress = report_progress or (lambda *_: None)
    if neighbours < 1:
        raise ValueError(f"--neighbours must be 1 or more, got {neighbours}")
    if draws is not None and draws < 1:
        raise ValueError(f"--draws must be 1 or more, got {draws}")
    if draws is not None and draws > 1 and not any(map(is_generator, fakes)):
        raise ValueError("--draws would change nothing here: it needs a run or an export")
    inputs = report.provenance(
        [real, list(fakes), held_out, list(features), neighbours, options.deciding()]
        + [references, kid_subsets, frechet_infinity, with_inception_score]
        + [draws][draws == 1 :]
    )
    if out is not None:
        sources.check_outside(out, real, held_out, *(f for f in fakes if not is_generator(f)))
        report.check_out(inputs, Path(out), overwrite)

    def check(real_side, fake_side, held_side=None):
        scores.check_counts(len(real_side.images), len(fake_side.images), neighbours)
        if held_side and len(held_side.images) < neighbours + 2:
            raise ValueError(
                f"--held-out {held_out} has {len(held_side.images)} images, and with --neighbours"
                f" {neighbours} at least {neighbours + 2} are needed: hold out more"
            )
        fewer = min(real_side, fake_side, key=lambda side: len(side.images))
        if kid_subsets and len(fewer.images) < kernel_distance.SUBSET:
            raise ValueError(
                f"--kid-subsets takes {kernel_distance.SUBSET:,} images at a time, and {fewer.label}"
                f" has {len(fewer.images):,}: leave it out; kid itself has no such limit"
            )

    compared = load_comparison(real, fakes, held_out, features, options, progress, check)
    more = []
    if frechet_infinity:
        for extractor, fake in itertools.product(compared.extractors, compared.fakes):
            frechet.check_infinity(len(compared.real.images), len(fake.images), extractor.dims)
    if kid_subsets:
        more.append(("kid", "subsets", kernel_distance.kid_subsets))
    if frechet_infinity:
        more.append(("frechet", "infinity", frechet.frechet_infinity))
    seen = [_look(compared, extractor, draws) for extractor in compared.extractors]
    blocks = [
        _block(compared, extractor, features, neighbours, references, more, options.seed, progress)
        for extractor, features in zip(compared.extractors, seen)
    ]
    appearance = [_appearance(compared.real, fake, options.seed) for fake in compared.fakes]
    if with_inception_score:
        logits = compared.build("fid2015", dims="logits_unbiased")
        for entry, fake in zip(appearance, compared.fakes):
            mean, sd = inception_score(compared.features(logits, fake.images))
            entry["inception_score"] = {"mean": mean, "sd": sd, "splits": 10}
    result = {
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "inputs": inputs,
        **compared.describe(),
        "settings": {"neighbours": neighbours, "draws": draws, **options.deciding()},
        "extractors": blocks,
        "appearance": appearance,
        "findings": [
            f"{entry['fake']} ({block['features']['name']}): {text}"
            for block in blocks
            for entry in block["scores"]
            for text in scores.findings(entry)
        ],
        "warnings": _warnings(compared, blocks),
    }
    if out is not None:
        out = Path(out)
        report.write(out, report.FILE, result, "report.md", report.markdown(result))
        _draw(out, result, compared, seen[0], references, options.seed)
    return result


@dataclass(frozen=True, eq=False)
class _Seen:
    """The features of both sides, as one extractor sees them."""

    real: np.ndarray
    fakes: list[np.ndarray]
    pools: list[np.ndarray | None]  # of many more images of each generator
    held_out: np.ndarray | None


def _look(compared: Comparison, extractor: Extractor, draws: int | None) -> _Seen:
    def look(images):
        return None if images is None else compared.features(extractor, images)

    def pool(number, images):
        # An Inception takes minutes for so many.
        sets = draws or (sets_scored(*images.shape[:2]) if extractor.name == "cxr" else 1)
        return compared.draw(number, sets * len(images)) if sets > 1 else None

    return _Seen(
        look(compared.real.images),
        [look(fake.images) for fake in compared.fakes],
        [look(pool(number, fake.images)) for number, fake in enumerate(compared.fakes)],
        look(compared.held_out.images if compared.held_out else None),
    )


def _block(compared, extractor, seen, neighbours, references, more, seed, progress) -> dict:
    """Return everything that one extractor says."""
    entries = []
    for number, (side, fake) in enumerate(zip(compared.fakes, seen.fakes)):
        progress("scores", number, len(seen.fakes))
        entry = scores.score(
            seen.real,
            fake,
            held_out=seen.held_out,
            pool=seen.pools[number],
            neighbours=neighbours,
            seed=seed,
        )
        for group, name, measure in more:
            entry[group][name] = measure(seen.real, fake, seed=seed)
        fingerprints = [compared.real.about["fingerprint"], side.about["fingerprint"]]
        decides = [
            extractor.identity(), vars(compared.preparation), fingerprints, neighbours, seed,
            *([entry["draws"]["sets"]] if entry["draws"] else []),
        ]  # fmt: skip
        entries.append({"fake": side.label, "provenance": report.provenance(decides), **entry})
    progress("scores", len(seen.fakes), len(seen.fakes))
    return {
        "features": extractor.identity(),
        "scores": entries,
        "comparisons": _comparisons(compared, seen, seed),
        "ladder": _ladder(compared, extractor, seen, neighbours, seed) if references else None,
    }


def _comparisons(compared: Comparison, seen: _Seen, seed: int) -> list[dict]:
    pairs = itertools.combinations(zip(compared.fakes, seen.fakes), 2)
    return [
        {
            "first": first.label,
            "second": second.label,
            **scores.compare(seen.real, one, other, permutations=1000, seed=seed),
        }
        for (first, one), (second, other) in pairs
    ]


def _ladder(
    compared: Comparison, extractor: Extractor, seen: _Seen, neighbours: int, seed: int
) -> dict:
    """Score fakes, held-out, real and degraded real films against one half of the reals."""
    random = np.random.default_rng(seed)
    sizes = [len(fake) for fake in seen.fakes]
    sizes += [len(seen.held_out)] if seen.held_out is not None else []
    count = min(len(seen.real) // 2, *sizes, LADDER_AT_MOST)
    order = random.permutation(len(seen.real))
    half, other = order[:count], np.sort(order[count : 2 * count])
    images = compared.real.images[other]
    candidates = {pictures.REAL_RUNGS[0]: seen.real[other]}
    if seen.held_out is not None:
        candidates[pictures.REAL_RUNGS[1]] = seen.held_out[
            random.permutation(len(seen.held_out))[:count]
        ]
    for name, severity in degradations.REFERENCE:
        spoilt = degradations.DEGRADATIONS[name](images, severity, seed=seed)
        candidates[f"{name.replace('_', ' ')} {severity:g}"] = compared.features(extractor, spoilt)
    for side, fake in zip(compared.fakes, seen.fakes):
        candidates[side.label] = fake[random.permutation(len(fake))[:count]]
    rows = scores.ladder(seen.real[half], candidates, neighbours=neighbours)
    return {
        "n": count,
        "fakes": [side.label for side in compared.fakes],
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


def _draw(out, result, compared: Comparison, seen: _Seen, references: bool, seed: int) -> None:
    pictures.spectra(result, out / "spectra.png")
    pictures.histograms(
        grey_histogram(compared.real.images),
        {fake.label: grey_histogram(fake.images) for fake in compared.fakes},
        out / "histograms.png",
    )
    rows = [
        row
        for fake, features in zip(compared.fakes, seen.fakes)
        for row in _nearest_real(compared.real, fake, seen.real, features, seed)
    ]
    pictures.pairs(rows, out / "nearest.png")
    if references:
        pictures.ladder(result, out / "ladder.png")


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


def _warnings(compared: Comparison, blocks: list[dict]) -> list[str]:
    warned = compared.warnings()
    warned += [
        text for block in blocks for entry in block["scores"] for text in scores.warnings(entry)
    ]
    size = compared.real.images.shape[1]
    for extractor in compared.extractors:
        if size > extractor.input_size:
            aliased = extractor.preparation in ("pytorch-fid", "legacy-tf")
            warned.append(
                f"{extractor.name} sees images of {size} pixels shrunk to {extractor.input_size}"
                f"{', without antialiasing (--mode clean has it)' if aliased else ''}: finer faults"
                " are invisible to it; the spectrum shows them"
            )
        if not extractor.verified:
            warned.append(f"unverified weights: {extractor.name} ({extractor.about})")
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
