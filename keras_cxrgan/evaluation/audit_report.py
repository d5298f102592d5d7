"""An audit for copies as tables, as a Markdown page and as sentences. Distances, never a verdict."""

from __future__ import annotations

from keras_cxrgan.evaluation.report import Table, markdown_table

FILE = "audit.json"

MEANING = """\
Each generated image is laid on every training film (shifted, scaled, mirrored, its brightness and
contrast taken out) and compared with it in pixels and in features. How near real films of other
patients come says which distance is to be expected without copying; the threshold for copies lies
far below that. An image above it can still give a patient away: in a part of the film, in a rare
finding, or in ways that none of these distances measures. Treat generated images with the care
that the films they came from need.
"""


def tables(result: dict) -> list[Table]:
    """Return the tables: how near each set comes to the training films, and which pairs are near."""
    audit = result["audit"]
    made = [_quantiles(name, audit[name], result) for name in ("pixels", "features")]
    pairs = audit["flagged"] or audit["closest"]
    made.append(
        Table(
            f"{'flagged' if audit['flagged'] else 'the nearest'} pairs",
            ("generated", "training film", "pixels", "features", "laid on it by", "rule"),
            tuple(
                (
                    pair["fake_name"],
                    pair["train_name"],
                    f"{pair['pixel_distance']:.3f}",
                    f"{pair['feature_distance']:.4g}",
                    _pose(pair),
                    pair.get("rule", "none"),
                )
                for pair in pairs[:20]
            ),
            f"{len(pairs)} in all: see audit.json and pairs.png." if len(pairs) > 20 else "",
        )
    )
    return made


def _quantiles(name: str, space: dict, result: dict) -> Table:
    labels = {
        "fake": f"{result['fakes'][0]['label']} (generated)",
        "held-out": "held-out films",
        "train": "training films to each other",
    }
    columns = ("0", "0.01", "0.05", "0.25", "0.5", "0.75")
    rows = tuple(
        (labels[key], *(f"{space['quantiles'][key][column]:.4g}" for column in columns))
        for key in labels
        if key in space["quantiles"]
    )
    comparison = space["comparison"]
    note = (
        f"Threshold for a copy {space['threshold']:.4g}, from {space['calibration_count']}"
        f" {space['calibrated_on']} films; it flags {space['calibration_below']} of those (a real"
        f" film with probability below {space['false_flag_bound']:.3f}). P(generated nearer than"
        f" {space['calibrated_on']}) = {comparison['probability']:.2f}"
        f" ({comparison['low']:.2f} to {comparison['high']:.2f}; 0.5 is alike)."
    )
    if "authenticity" in space:
        values = ", ".join(f"{key} {value:.2f}" for key, value in space["authenticity"].items())
        note += f" Authenticity: {values}."
    which = "" if name == "pixels" else f" ({result['features']['name']})"
    return Table(
        f"distance in {name}{which} to the nearest training film",
        ("", "least", "1 %", "5 %", "25 %", "median", "75 %"),
        rows,
        note,
    )


def _pose(pair: dict) -> str:
    x, y = pair["shift"]
    return (
        f"{100 * x:+.1f} %, {100 * y:+.1f} %, x{pair['scale']:g}"
        f"{', mirrored' if pair['mirrored'] else ''}"
    )


def findings(result: dict) -> list[str]:
    """Return what the audit found, in words about distances.

    Of a generator it also says which share of copies so few images would not have shown: with
    probability 0.05 none of n is one where a share of 1 - 0.05^(1 / n) are.
    """
    audit = result["audit"]
    found = list(audit["warnings"])
    if not audit["flagged"]:
        none = (
            f"none of {audit['n_fake']:,} generated images lies as near to a training film as a"
            " copy would. That is about these distances only: it does not show that nothing of a"
            " patient can be learnt from them."
        )
        if result["fakes"][0]["kind"] == "generator":
            share = 100 * (1 - 0.05 ** (1 / audit["n_fake"]))
            none += (
                f" Of other images of this generator up to {share:.2g} % may lie so near (95 %"
                " confidence): audit more of them (-n), or the very images that you will share."
            )
        found.insert(0, none)
    return found


def markdown(result: dict) -> str:
    """Return the page of an audit."""
    audit = result["audit"]
    held = result["held_out"]
    lines = [
        "# Audit of generated chest X-rays for copies",
        "",
        f"- training films: {result['real']['label']}, {audit['n_train']:,}"
        f" (fingerprint `{result['real']['fingerprint'][:16]}`)",
        f"- generated: {result['fakes'][0]['label']}, {audit['n_fake']:,}"
        f" (fingerprint `{result['fakes'][0]['fingerprint'][:16]}`)",
        f"- held out: {held['label']}, {audit['n_held_out']:,}"
        f" (fingerprint `{held['fingerprint'][:16]}`)"
        if held
        else "- held out: none given",
        f"- {result['software']}, features {result['features']['name']}, seed"
        f" {result['settings']['seed']}; every setting is in `{FILE}`",
        "",
        "## Findings",
        "",
        *(f"- {text}" for text in result["findings"]),
        "",
    ]
    if result["warnings"]:
        lines += ["## Warnings", "", *(f"- {text}" for text in result["warnings"]), ""]
    for table in tables(result):
        lines += markdown_table(table)
    lines += ["## Reading it", "", MEANING, "![Distances](distances.png)", ""]
    lines += ["![Nearest pairs](pairs.png)", ""]
    return "\n".join(lines)
