"""A whole evaluation as tables, as a Markdown page and as JSON: every number with its context."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

FILE = "metrics.json"
PRDC = ("precision", "density", "recall", "coverage")

INCEPTION_SCORE_NOTE = (
    "The Inception Score counts ImageNet classes (dogs, cars), so it means little for chest"
    " X-rays; it is here to compare with papers that print it."
)
MEANING = """\
Precision and density say how many generated images lie among real ones (fidelity); recall and
coverage say how much of the real variety they reach (diversity). A distance alone says neither: a
generator that repeats a few good films can score a good one. The floor is what one half of the
real films scores against the other half at the same count: no generator should be expected below
it, though of fewer images than dimensions one with too little variety can be. Errors and p-values count images as independent: several films of one patient make them too
small. Scores of other extractors, modes, counts or preparations are not comparable with these.
These measures compare sets of images; they say nothing about diagnosis.
"""


@dataclass(frozen=True)
class Table:
    """A titled table; the first column is left-aligned, the others right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def provenance(decides: object) -> str:
    """Return a SHA-256 of everything that decides a score; two scores compare if these agree.

    >>> provenance({"mode": "clean"}) == provenance({"mode": "legacy-tf"})
    False
    """
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def tables(result: dict) -> list[Table]:
    """Return the tables of an evaluation, the most telling first."""
    made = []
    for block in result["extractors"]:
        made.append(_balance(block))
        made.append(_distances(block))
        if block["scores"][0]["held_out"]:
            made.append(_held_out(block))
        if block["ladder"]:
            made.append(_ladder(block))
        if block["comparisons"]:
            made.append(_comparisons(block))
    made.append(_appearance(result["appearance"]))
    return made


def _balance(block: dict) -> Table:
    features = block["features"]
    rows = []
    for entry in block["scores"]:
        floor, vendi = entry["floor"], entry["vendi"]
        rows.append(
            (
                f"{entry['fake']} ({entry['n_real']:,} real, {entry['n_fake']:,} fake)",
                *_prdc(entry),
                f"{vendi['fake']:.3g} of {vendi['real']:.3g}",
            )
        )
        if drawn := entry["draws"]:
            rows.append((_of_draws(drawn), *_spread(drawn, PRDC), ""))
        rows.append((f"  the same at {floor['n']:,} each", *_prdc(floor["fake"]), ""))
        rows.append((f"  real halves at {floor['n']:,} each", *_prdc(floor["real"]), ""))
    return Table(
        f"{features['name']}: {features['about']}; {features['dims']} dims, {features['preparation']}",
        ("", *PRDC, "Vendi"),
        tuple(rows),
        "Fidelity: precision, density. Diversity: recall, coverage, Vendi score (fake of real).",
    )


def _of_draws(drawn: dict) -> str:
    return f"  {drawn['sets']} sets of {drawn['n']:,} fakes, mean ± sd"


def _spread(drawn: dict, names: tuple[str, ...]) -> tuple[str, ...]:
    scale = {"kid": 1000}
    return tuple(
        plus_minus(*(scale.get(name, 1) * drawn[name][each] for each in ("mean", "sd")))
        for name in names
    )


def _prdc(values: dict) -> tuple[str, ...]:
    return tuple(f"{values[name]:.2f}" for name in PRDC)


def _distances(block: dict) -> Table:
    rows = []
    for entry in block["scores"]:
        frechet, kid, floor = entry["frechet"], entry["kid"], entry["floor"]
        rows.append(
            (
                f"{entry['fake']} ({entry['n_real']:,} real, {entry['n_fake']:,} fake)",
                plus_minus(frechet["value"], frechet["standard_error"]),
                plus_minus(1000 * kid["kid"], 1000 * kid["standard_error"]),
                p_value(kid["p_value"]),
            )
        )
        if drawn := entry["draws"]:
            rows.append((_of_draws(drawn), *_spread(drawn, ("frechet", "kid")), ""))
        if "infinity" in frechet:
            value = frechet["infinity"]["frechet_infinity"]
            rows.append(("  extrapolated to endlessly many images", f"{value:.4g}", "", ""))
        if "subsets" in kid:
            subsets = kid["subsets"]
            rows.append(
                (
                    f"  {subsets['subsets']} x {subsets['subset_size']} subsets, mean ± sd",
                    "",
                    plus_minus(1000 * subsets["kid_mean"], 1000 * subsets["kid_sd"]),
                    "",
                )
            )
        for text, key in (("the same", "fake"), ("real halves (the floor)", "floor")):
            rows.append(
                (
                    f"  {text} at {floor['n']:,} each, mean ± sd",
                    plus_minus(floor["frechet"][f"{key}_mean"], floor["frechet"][f"{key}_sd"]),
                    plus_minus(
                        1000 * floor["kid"][f"{key}_mean"], 1000 * floor["kid"][f"{key}_sd"]
                    ),
                    "",
                )
            )
    return Table(
        f"{block['features']['name']}: distances",
        ("", block["features"]["score"], "KID x 1000", "p"),
        tuple(rows),
        "± is one standard error; p: could equal laws give a KID as large (permutation test)?",
    )


def _held_out(block: dict) -> Table:
    rows = []
    for entry in block["scores"]:
        values, kid = entry["held_out"], entry["held_out"]["kid"]
        label = entry["fake"]
        for name, key in (
            (f"{label} to the real films", "fake_to_real"),
            (f"{label} to held-out films", "fake_to_held_out"),
            ("real films to held-out films", "real_to_held_out"),
        ):
            found = values["prdc"].get(key)
            rows.append(
                (
                    f"{name}, {values['n']:,} each",
                    short(values[key]),
                    short(1000 * kid[key]),
                    *(_prdc(found) if found else [""] * len(PRDC)),
                )
            )
            if key == "fake_to_held_out" and (drawn := values["draws"]):
                rows.append((_of_draws(drawn), *_spread(drawn, ("frechet", "kid", *PRDC))))
    return Table(
        f"{block['features']['name']}: films the generator never saw",
        ("", block["features"]["score"], "KID x 1000", *PRDC),
        tuple(rows),
        "Generated images nearer to the training films than to held-out ones of the same kind have"
        " learnt these films, and not only what such films look like.",
    )


def _ladder(block: dict) -> Table:
    ladder = block["ladder"]
    rows = tuple(
        (
            ("> " if row["name"] in ladder["fakes"] else "  ") + row["name"],
            short(row["frechet"]),
            short(1000 * row["kid"]),
            *_prdc(row),
        )
        for row in ladder["rows"]
    )
    return Table(
        f"{block['features']['name']}: where a score lies (one half of the real films against ...)",
        (
            f"{ladder['n']:,} each",
            block["features"]["score"],
            "KID x 1000",
            *PRDC,
        ),
        rows,
        "Degradations of real films, severity 0 to 1; > marks what is evaluated.",
    )


def _comparisons(block: dict) -> Table:
    rows = []
    for pair in block["comparisons"]:
        for name, scale in (("frechet", 1), ("kid", 1000)):
            values = pair[name]
            rows.append(
                (
                    f"{pair['first']} minus {pair['second']}",
                    block["features"]["score"] if name == "frechet" else "KID x 1000",
                    short(scale * values["difference"]),
                    f"{short(scale * values['low'])} to {short(scale * values['high'])}",
                    p_value(values["p_value"]),
                )
            )
    return Table(
        f"{block['features']['name']}: differences (below 0: the first is nearer to the reals)",
        ("", "measure", "difference", "95 % interval", "p"),
        tuple(rows),
    )


def _appearance(entries: list[dict]) -> Table:
    rows = []
    for entry in entries:
        similarity, spectrum = entry["ms_ssim"], entry["spectrum"]
        rows.append(
            (
                entry["fake"],
                f"{10 * spectrum['rms_log10_difference']:.2f} dB",
                f"{spectrum['checkerboard_db']:+.2f} dB",
                f"{entry['histogram']:.1f} levels",
                f"{similarity['fake']['ms_ssim']:.3f} of {similarity['real']['ms_ssim']:.3f}"
                if similarity
                else "below 64 px",
            )
        )
        if entry["inception_score"]:
            value = entry["inception_score"]
            rows.append((f"  Inception Score {value['mean']:.2f} ± {value['sd']:.2f}", *[""] * 4))
    scored = any(entry["inception_score"] for entry in entries)
    return Table(
        "pixels",
        ("", "spectrum", "checkerboard", "grey levels", "MS-SSIM of pairs"),
        tuple(rows),
        "Differences from the real films. MS-SSIM: likeness of random pairs, fake of real; above"
        " the reals' is less variety." + (" " + INCEPTION_SCORE_NOTE if scored else ""),
    )


def plus_minus(value: float, error: float) -> str:
    """Return a value with its error, both to the digits that the error leaves.

    >>> plus_minus(12.3456, 0.0789)
    '12.35 ± 0.08'
    """
    if not error > 0:
        return short(value)
    if abs(value) >= 1e6:
        return f"{value:.3g} ± {error:.2g}"
    digits = max(0, min(6, -int(f"{error:e}".split("e")[1])))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def short(value: float) -> str:
    """Return a number to three digits, without an exponent while it is readable so.

    >>> short(1428.4), short(0.01234), short(149505844.0)
    ('1,428', '0.0123', '1.5e+08')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def p_value(p: float) -> str:
    """Return a p-value as three digits, and no more zeros than a table needs.

    >>> p_value(0.0184), p_value(1e-20)
    ('0.018', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def markdown(result: dict) -> str:
    """Return the page: inputs, findings, tables, warnings, what the words mean."""
    real = result["real"]
    lines = ["# Evaluation of generated chest X-rays", ""]
    prepared = result["preparation"]
    clahe = prepared["clahe_clip_limit"]
    lines += [
        f"- real: {real['label']}, {real['count']:,} images (fingerprint `{real['fingerprint'][:16]}`)"
    ]
    for fake in result["fakes"]:
        made = f", {fake['images_seen']:,} images seen" if "images_seen" in fake else ""
        lines.append(
            f"- generated: {fake['label']}, {fake['count']:,} images{made}"
            f" (fingerprint `{fake['fingerprint'][:16]}`)"
        )
        if fake.get("selection"):
            lines.append(f"  - {fake['selection']['note']}")
    if result["held_out"]:
        held = result["held_out"]
        lines.append(
            f"- held out: {held['label']}, {held['count']:,} images"
            f" (fingerprint `{held['fingerprint'][:16]}`)"
        )
    lines += [
        f"- prepared: {prepared['image_size']} px, {prepared['fit']},"
        f" {f'CLAHE {clahe:g}' if clahe else 'no CLAHE'} ({prepared['origin']})",
        f"- {result['software']}, seed {result['settings']['seed']},"
        f" {result['settings']['neighbours']} neighbours; every setting is in `{FILE}`",
        "",
    ]
    for title, texts in (("Findings", result["findings"]), ("Warnings", result["warnings"])):
        if texts:
            lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    for table in tables(result):
        lines += markdown_table(table)
    lines += ["## Reading it", "", MEANING]
    pictures = [("spectra", "Power spectra"), ("histograms", "Grey levels")]
    pictures += [("nearest", "Generated images above their nearest real films")]
    if any(block["ladder"] for block in result["extractors"]):
        pictures.insert(0, ("ladder", "Where the scores lie"))
    for name, title in pictures:
        lines += [f"![{title}]({name}.png)", ""]
    return "\n".join(lines)


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a titled table in Markdown."""
    return [
        f"## {table.title}",
        "",
        "| " + " | ".join(table.header) + " |",
        "|---|" + "---:|" * (len(table.header) - 1),
        *("| " + " | ".join(cell.strip() for cell in row) + " |" for row in table.rows),
        "",
        *([table.note, ""] if table.note else []),
    ]


def check_out(inputs: str, out: Path, overwrite: bool, file: str = FILE) -> None:
    """Refuse to write over the files of another evaluation, or into a folder of something else."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if overwrite or not out.exists() or not any(out.iterdir()):
        return
    try:
        same = json.loads((out / file).read_text())["inputs"] == inputs
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ValueError(
            f"{out} already holds other files; choose another --out, or pass --overwrite"
        )


def write(out: Path, file: str, result: dict, page: str, markdown: str) -> None:
    """Write a result as JSON and its page into a folder, each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    as_json = json.dumps(result, indent=1, default=_plain) + "\n"
    for name, text in ((file, as_json), (page, markdown)):
        temporary = out / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, out / name)


def _plain(value: object):
    """Return dataclasses and NumPy numbers as JSON knows them."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return value.tolist()
