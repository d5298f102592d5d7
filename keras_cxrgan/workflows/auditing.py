"""Whether generated images are copies of the films they were trained on: distances, pairs, report."""

from __future__ import annotations

from pathlib import Path

import keras_cxrgan
from keras_cxrgan.data import sources
from keras_cxrgan.evaluation import audit_report, memorisation, pictures, report
from keras_cxrgan.workflows.comparing import Options, load_comparison, unseen
from keras_cxrgan.workflows.sides import Side, is_generator

PAIRS_SHOWN = 24
PAIRS_A_ROW = 12


def audit(
    real: str,
    fake: str,
    *,
    held_out: str | None = None,
    out: str | Path | None = None,
    features: str = "cxr",
    overwrite: bool = False,
    report_progress=None,
    **options,
) -> dict:
    """Compare generated images with the films they were trained on, one by one.

    Args:
        real: the training films; `held_out` are films of other patients, never trained on.
        out: folder for audit.json, audit.md, distances.png and pairs.png; None writes none.
        features: name of an extractor or path of a model.
        options: fields of `Options`: seed, image_size, count, weights, ...

    Raises `ValueError` with one clear line for everything a user can mend.
    """
    options = Options(**options).check([features], [fake])
    progress = report_progress or (lambda *_: None)
    inputs = report.provenance([real, fake, held_out, features, options.deciding()])
    if out is not None:
        sources.check_outside(out, real, held_out, None if is_generator(fake) else fake)
        report.check_out(inputs, Path(out), overwrite, audit_report.FILE)
    compared = load_comparison(real, [fake], held_out, [features], options, progress)
    train, (made,), held = compared.real, compared.fakes, compared.held_out
    if held and set(held.hashes) <= set(train.hashes):
        raise ValueError(
            f"--held-out {held_out} holds nothing but films of {real}: give real films of other"
            " patients, which the generator was never trained on, or leave --held-out out"
        )
    missing = unseen(made, train)
    (extractor,) = compared.extractors
    seen = [
        compared.features(extractor, side.images) if side else None for side in (train, made, held)
    ]
    progress("copies", 0, len(made.images))
    found = memorisation.audit(
        train.images,
        made.images,
        *seen[:2],
        held.images if held else None,
        seen[2],
        closest=PAIRS_SHOWN,
    )
    progress("copies", len(made.images), len(made.images))
    for pair in [*found["flagged"], *found["closest"]]:
        pair["fake_name"], pair["train_name"] = made.names[pair["fake"]], train.names[pair["train"]]
    result = {
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "inputs": inputs,
        **compared.describe(),
        "features": extractor.identity(),
        "settings": options.deciding(),
        "audit": found,
        "warnings": [*missing, *dict.fromkeys(compared.warnings())],
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
