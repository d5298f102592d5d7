"""Whether generated images are copies of the films they were trained on: distances, pairs, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras_cxrgan
from keras_cxrgan.evaluation import audit_report, memorisation, pictures, report
from keras_cxrgan.evaluation.extractors import build_extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.training import runtime
from keras_cxrgan.workflows.evaluating import default_cache
from keras_cxrgan.workflows.sides import (
    Side,
    choose_preparation,
    is_generator,
    load_side,
    pair_warnings,
)

PAIRS_SHOWN = 24
PAIRS_A_ROW = 12


def audit(
    real: str,
    fake: str,
    *,
    held_out: str | None = None,
    out: str | Path | None = None,
    features: str = "cxr",
    dims: int | None = None,
    mode: str = "pytorch-fid",
    weights: dict[str, str] | None = None,
    preparation: str | None = None,
    count: int | None = None,
    classes: Sequence[str] = (),
    image_size: int | None = None,
    fit: str | None = None,
    clahe: float | None = None,
    seed: int = 0,
    best: bool = False,
    on_bad_file: str = "error",
    cache: bool = True,
    devices: str = "auto",
    overwrite: bool = False,
    report_progress=None,
) -> dict:
    """Compare generated images with the films they were trained on, one by one.

    Args:
        real: the training films; `held_out` are films of other patients, never trained on.
        out: folder for audit.json, audit.md, distances.png and pairs.png; None writes none.

    The other arguments are those of `evaluate`. Raises `ValueError` with one clear line.
    """
    progress = report_progress or (lambda *_: None)
    inputs = report.provenance(
        [real, fake, held_out, features, dims, mode, weights, preparation, count, list(classes),
         image_size, fit, clahe, seed, best]
    )  # fmt: skip
    if out is not None:
        report.check_out(inputs, Path(out), overwrite, audit_report.FILE)
    strategy = runtime.start(devices, seed=seed)
    cache_dir = default_cache() if cache else None
    with strategy.scope():
        extractor = build_extractor(
            features,
            dims=dims,
            mode=mode,
            weights=(weights or {}).get(features),
            preparation=preparation,
            seed=seed,
        )
    prepared = choose_preparation([fake], image_size=image_size, fit=fit, clahe=clahe)

    def load(source, role, number=None, which=()):
        return load_side(
            source,
            prepared,
            role=role,
            count=number,
            classes=which,
            seed=seed,
            best=best,
            on_bad_file=on_bad_file,
            cache_dir=cache_dir and cache_dir / "images",
            progress=lambda done, total: progress("images", done, total),
        )

    train = load(real, "real", which=classes)
    made = load(fake, "fake", count or (len(train.images) if is_generator(fake) else None))
    held = load(held_out, "held-out", which=classes) if held_out else None

    def features_of(images):
        return extract(
            extractor,
            images,
            strategy=strategy,
            cache_dir=cache_dir and cache_dir / "features",
            progress=lambda done, total: progress(extractor.name, done, total),
        )

    progress("copies", 0, len(made.images))
    found = memorisation.audit(
        train.images,
        made.images,
        features_of(train.images),
        features_of(made.images),
        held.images if held else None,
        features_of(held.images) if held else None,
        closest=PAIRS_SHOWN,
    )
    progress("copies", len(made.images), len(made.images))
    for pair in [*found["flagged"], *found["closest"]]:
        pair["fake_name"], pair["train_name"] = made.names[pair["fake"]], train.names[pair["train"]]
    warned = [*train.warnings, *made.warnings, *(held.warnings if held else ())]
    warned += pair_warnings(train, made)
    result = {
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "inputs": inputs,
        "real": {"label": train.label, **train.about},
        "fake": {"label": made.label, **made.about},
        "held_out": held and {"label": held.label, **held.about},
        "preparation": dict(vars(prepared)),
        "features": extractor.identity(),
        "settings": {"seed": seed, "mode": mode},
        "audit": found,
        "warnings": list(dict.fromkeys(warned)),
    }
    result["findings"] = audit_report.findings(result)
    if out is not None:
        out = Path(out)
        page = audit_report.markdown(result)
        report.write(out, audit_report.FILE, result, "audit.md", page)
        pictures.quantiles(result, out / "distances.png")
        pictures.pairs(_sheet(found, train, made), out / "pairs.png")
    return result


def _sheet(found: dict, train: Side, made: Side) -> list:
    """Return rows of pairs to look at: those flagged, then the nearest."""
    rows = []
    for title, pairs in (
        ("flagged as copies: generated above training film", found["flagged"]),
        ("the nearest in pixels: generated above training film", found["closest"]),
    ):
        for first in range(0, min(len(pairs), PAIRS_SHOWN), PAIRS_A_ROW):
            rows.append(
                (
                    title if first == 0 else "",
                    [
                        (
                            made.images[pair["fake"]],
                            train.images[pair["train"]],
                            f"{pair['pixel_distance']:.2f}",
                        )
                        for pair in pairs[first : first + PAIRS_A_ROW]
                    ],
                )
            )
    return rows
