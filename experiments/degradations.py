"""Which features rank known faults of chest films? The table behind the shipped encoder.

Only films of patients that the encoder never saw. Half of the patients are the reference; the
films of the other half are spoiled more and more, and the Frechet distance between the two is
taken at every step, for several random halves.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from experiments.encoder import CLASSES, SIZES, held_out, load_films

SEVERITIES = (0.125, 0.25, 0.5, 1.0)
HALVES = 8
PIXELS = 32
INCEPTION = "random Inception"
SEEN = {  # by the training of the shipped encoder
    "rotation": "as a nuisance (5 degrees)",
    "contrast": "as a nuisance (slight)",
    "brightness": "as a nuisance (slight)",
    "low_resolution": "as a difference (64 and 256 px)",
    "wrong_class: PNEUMONIA": "films, not labels",
}


def patient_halves(patients: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a random half of the patients, and of the others."""
    names = np.unique(patients)
    chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    first = np.isin(patients, chosen)
    return np.flatnonzero(first), np.flatnonzero(~first)


def as_images(rows: np.ndarray) -> np.ndarray:
    """Row numbers dressed as images, so that faults of a set can be played on its features."""
    return np.ascontiguousarray(rows, np.uint32).view(np.uint8).reshape(len(rows), 1, 4)


def as_rows(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images).reshape(len(images), 4).view(np.uint32)[:, 0]


def extractors(candidates: list[Path], inception: bool) -> dict:
    """Return name -> function of uint8 films (N, H, W) giving features (N, D)."""
    import cv2

    from keras_cxrgan.evaluation import encoder
    from keras_cxrgan.evaluation.inception import (
        build_inception,
        load_state_dict,
        random_state_dict,
    )
    from keras_cxrgan.evaluation.resize import prepare_for_inception

    def network(model, prepare):
        def extract(films):
            parts = np.array_split(films, max(1, len(films) // 64))
            return np.concatenate(
                [model.predict(prepare(part), batch_size=32, verbose=0) for part in parts]
            )

        return extract

    def pixels(films):
        small = [cv2.resize(np.float32(film), (PIXELS, PIXELS), interpolation=3) for film in films]
        return np.stack(small).reshape(len(films), -1)

    found = {"cxr": network(encoder.load_encoder()[0], encoder.prepare_for_encoder)}
    for folder in candidates:
        model = encoder.read_encoder(folder / encoder.WEIGHTS.name)
        found[folder.name] = network(model, encoder.prepare_for_encoder)
    found["pixels"] = pixels
    if inception:
        model = build_inception((768,))
        load_state_dict(model, random_state_dict(0))
        found[INCEPTION] = network(model, prepare_for_inception)
    return found


def extract_all(extract, films, covid, cache: Path, report) -> dict[str, np.ndarray]:
    """Features of the clean films, of every fault "name severity" of them, and of COVID."""
    from keras_cxrgan.evaluation.degradations import DEGRADATIONS

    if cache.exists():
        with np.load(cache) as stored:
            return dict(stored)
    faults = [(name, s) for name in DEGRADATIONS if name != "mode_dropping" for s in SEVERITIES]
    features = {"clean": extract(films), "COVID": extract(covid)}
    for done, (name, severity) in enumerate(faults, 1):
        features[f"{name} {severity}"] = extract(DEGRADATIONS[name](films, severity, seed=0))
        report(cache.stem, done * len(films), len(faults) * len(films))
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, **features)
    return features


def distances(features, labels, patients) -> dict[str, np.ndarray]:
    """Return fault -> (HALVES, 1 + severities) Frechet distances, the first of clean films."""
    from keras_cxrgan.evaluation.degradations import DEGRADATIONS, mode_dropping, wrong_class
    from keras_cxrgan.evaluation.frechet import frechet

    clean, covid = features["clean"], features["COVID"]
    pool = np.concatenate([clean, covid])
    covid_rows = len(clean) + np.arange(len(covid))
    curves = {name: [] for name in DEGRADATIONS}
    curves |= {f"wrong_class: {name}": [] for name in ("PNEUMONIA", "COVID")}
    for seed in range(HALVES):
        first, second = patient_halves(patients, seed)
        floor = frechet(clean[first], clean[second])
        for name in DEGRADATIONS:
            row = [floor]
            for severity in SEVERITIES:
                if name == "mode_dropping":
                    fake = clean[as_rows(mode_dropping(as_images(second), severity, seed))]
                else:
                    fake = features[f"{name} {severity}"][second]
                row.append(frechet(clean[first], fake))
            curves[name].append(row)
        normal = first[labels[first] == 0]
        for name, others in (("PNEUMONIA", second[labels[second] == 1]), ("COVID", covid_rows)):
            rows = second[labels[second] == 0][: len(others)]
            mixed = [
                as_rows(wrong_class(as_images(rows), severity, seed, others=as_images(others)))
                for severity in SEVERITIES
            ]
            row = [frechet(pool[normal], pool[chosen]) for chosen in (rows, *mixed)]
            curves[f"wrong_class: {name}"].append(row)
    return {name: np.array(rows) for name, rows in curves.items()}


def summarize(curve: np.ndarray) -> dict:
    """Rank correlation with severity, rise over the floor and z-score, from (halves, steps)."""
    ranks = curve.argsort(axis=1).argsort(axis=1)
    order = np.arange(curve.shape[1])
    correlations = [np.corrcoef(row, order)[0, 1] for row in ranks]
    floor = curve[:, :1]
    return {
        "rank_correlation": float(np.mean(correlations)),
        "rise": (curve[:, 1:] / floor - 1).mean(axis=0).tolist(),
        "z": ((curve[:, 1:].mean(axis=0) - floor.mean()) / floor.std(ddof=1)).tolist(),
        "distance": curve.mean(axis=0).tolist(),
    }


def overall(faults: dict) -> dict:
    """What an extractor is chosen by: the mean rank correlation, then the sensitivities."""
    summaries = list(faults.values())
    return {
        "mean_rank_correlation": float(np.mean([s["rank_correlation"] for s in summaries])),
        "lowest_rank_correlation": float(np.min([s["rank_correlation"] for s in summaries])),
        "median_rise_at_mildest": float(np.median([s["rise"][0] for s in summaries])),
        "noticed_at_mildest": float(np.mean([s["z"][0] > 3 for s in summaries])),
        "noticed_at_second": float(np.mean([s["z"][1] > 3 for s in summaries])),
    }


def markdown(result: dict) -> str:
    """The tables, and how each number came about."""
    about = result["about"]
    steps = ", ".join(map(str, SEVERITIES))
    lines = [
        "# How features rank known faults of chest films",
        "",
        f"""Written by `python -m experiments.degradations` from {about["films"]} films of \
{about["patients"]} patients (NIH ChestX-ray14, {" and ".join(CLASSES)}) that no encoder here was \
trained on, and {about["covid"]} COVID films of another source. For {HALVES} random halves of the \
patients: the Frechet distance between the clean films of one half and the spoiled films of the \
other, at severities {steps} of `keras_cxrgan.evaluation.degradations`; a wrong class replaces \
that share of the NORMAL films.

Each cell: the rank correlation (Spearman) of the distance with severity, 0 included, averaged \
over the halves; the rise of the distance over its floor (clean films against clean films) at the \
mildest severity; and that rise in standard deviations of the floor over the halves. *Noticed*: \
the share of faults above 3 of these.

`cxr` is the shipped encoder. The other encoders are the same network with another objective, \
`random` with weights never trained; all end in principal components of training films, half \
whitened. `pixels` are {PIXELS} x {PIXELS} area averages. `{INCEPTION}` is FID's network to 768 \
dimensions with random weights; it is slow and was run at the smaller size only. These two are \
taken as they come, not scaled or whitened as the encoders are. Architecture, \
dimensions and objective were chosen by these very tables, from one training run each, so the \
lead of `cxr` is a little flattered; its weights saw none of these films.""",
        "",
        "## Encoders: a linear classifier of NORMAL and PNEUMONIA on held-out patients",
        "",
        "| encoder | objective | steps | accuracy (95 % interval over patients) | AUC |",
        "|---|---|---|---|---|",
    ]
    for name, card in about["encoders"].items():
        probe = card["linear_probe"]
        low, high = probe["interval_95"]
        lines.append(
            f"| {name} | {card['objective']} | {card['steps']} "
            f"| {probe['accuracy']:.3f} ({low:.3f} to {high:.3f}) | {probe['auc']:.3f} |"
        )
    for size, table in result["sizes"].items():
        names = list(table)
        lines += ["", f"## Films of {size} x {size} pixels", ""]
        lines += [f"| overall | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for key, title, form in (
            ("mean_rank_correlation", "mean rank correlation", "{:.3f}"),
            ("lowest_rank_correlation", "lowest rank correlation", "{:.2f}"),
            ("median_rise_at_mildest", f"median rise at {SEVERITIES[0]}", "{:+.1%}"),
            ("noticed_at_mildest", f"noticed at {SEVERITIES[0]}", "{:.0%}"),
            ("noticed_at_second", f"noticed at {SEVERITIES[1]}", "{:.0%}"),
        ):
            cells = [form.format(table[name]["overall"][key]) for name in names]
            lines.append(f"| {title} | {' | '.join(cells)} |")
        lines += ["", f"| fault | seen by cxr in training | {' | '.join(names)} |"]
        lines.append("|---" * (len(names) + 2) + "|")
        for fault in table[names[0]]["faults"]:
            cells = [_cell(table[name]["faults"][fault]) for name in names]
            lines.append(f"| {fault} | {SEEN.get(fault, 'no')} | {' | '.join(cells)} |")
        lines += ["", f"Where others rank better than `cxr`: {_beaten(table)}."]
    return "\n".join(lines) + "\n"


def _beaten(table: dict) -> str:
    """Faults at which other features have a higher rank correlation than the shipped encoder."""
    found = []
    for fault, own in table["cxr"]["faults"].items():
        better = [
            f"{name} {other['faults'][fault]['rank_correlation']:.2f}"
            for name, other in table.items()
            if other["faults"][fault]["rank_correlation"] > own["rank_correlation"] + 0.005
        ]
        if better:
            found.append(f"{fault} ({own['rank_correlation']:.2f}; {', '.join(better)})")
    return "; ".join(found) or "nowhere"


def _cell(summary: dict) -> str:
    return f"{summary['rank_correlation']:.2f}, {summary['rise'][0]:+.0%}, {summary['z'][0]:+.1f}"


def draw(result: dict, path: Path) -> None:
    """Distance over floor against severity, a panel for each fault, at the smaller size."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    size, table = next(iter(result["sizes"].items()))
    faults = list(table["cxr"]["faults"])
    shown = [name for name in ("cxr", "random", "pixels", INCEPTION) if name in table]
    figure, axes = plt.subplots(3, 5, figsize=(13, 7), layout="constrained")
    for axis, fault in zip(axes.flat, faults):
        for name, style in zip(shown, ("C3-o", "C0--s", "C7:^", "C2-.v")):
            rise = 1 + np.array([0, *table[name]["faults"][fault]["rise"]])
            axis.plot((0, *SEVERITIES), np.maximum(rise, 0.5), style, ms=4, label=name)
        axis.set(title=fault, xticks=(0, *SEVERITIES))
        axis.set_xticklabels(["0", "⅛", "¼", "½", "1"])
        axis.set_yscale("log", base=2)
        axis.set_ylim(0.8, max(2.2, axis.get_ylim()[1]))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.title.set_fontsize(10)
    for axis in axes.flat[len(faults) :]:
        axis.axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.supxlabel("severity")
    figure.supylabel("Frechet distance / its floor")
    figure.suptitle(f"Held-out films of {size} px: a good line rises early and steadily")
    figure.savefig(path, dpi=80)
    plt.close(figure)


@click.command()
@click.option("--data", required=True, help="Folder with NORMAL, PNEUMONIA and COVID.")
@click.option(
    "--candidate",
    "candidates",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Folder of another trained encoder to compare, such as runs/encoder/rotation; repeatable.",
)
@click.option(
    "--inception/--no-inception", default=True, help="FID's network with random weights: slow."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("runs/degradations"),
    show_default=True,
    help="Features are kept there; delete it after training anew.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("experiments/results"),
    show_default=True,
)
def main(data, candidates, inception, cache, out):
    """Rank known faults by the shipped encoder and by other features: table, JSON, picture."""
    from keras_cxrgan.terminal import Progress, quiet_tensorflow

    with quiet_tensorflow():
        found = extractors(list(candidates), inception)
        from keras_cxrgan.evaluation import encoder
    cards = {"cxr": encoder.card()}
    for folder in candidates:
        cards[folder.name] = json.loads((folder / encoder.CARD.name).read_text(encoding="utf-8"))
    result = {"about": {}, "sizes": {}}
    for size in SIZES:
        films, labels, patients = load_films(data, size)
        covid, _, _ = load_films(data, size, ("COVID",))
        test = held_out(patients)
        films, labels, patients = films[test], labels[test], patients[test]
        result["about"] = {
            "films": len(films),
            "patients": len(set(patients)),
            "covid": len(covid),
            "halves": HALVES,
            "severities": SEVERITIES,
            "encoders": {
                name: {key: card[key] for key in ("sha256", "objective", "steps", "linear_probe")}
                for name, card in cards.items()
            },
        }
        result["sizes"][str(size)] = table = {}
        for name, extract in found.items():
            if name == INCEPTION and size != SIZES[0]:
                continue
            with Progress() as progress:
                stored = cache / f"{name.replace(' ', '_')}_{size}.npz"
                features = extract_all(extract, films, covid, stored, progress)
            curves = distances(features, labels, patients)
            faults = {fault: summarize(curve) for fault, curve in curves.items()}
            table[name] = {"overall": overall(faults), "faults": faults}
            click.echo(f"{size} px  {name:<18} {json.dumps(table[name]['overall'])}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "degradations.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "degradations.md").write_text(markdown(result), encoding="utf-8")
    draw(result, out / "degradations.png")
    click.echo(out / "degradations.md")


if __name__ == "__main__":
    main()
