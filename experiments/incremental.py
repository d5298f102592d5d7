"""Incremental DCGAN: one network grown from 64x64 to 2048x2048, its time, and what growth adds."""

from __future__ import annotations

import numpy as np

from keras_cxrgan.evaluation.report import Table
from keras_cxrgan.sharing.experiment_tables import show
from keras_cxrgan.workflows import reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Page

IMAGES = "images"  # folder of a cell with its large PNG files
LOOKED_AT = 16  # images of each kind whose spectrum is taken
SHOWN = 256  # pixels of a grid's side in a figure
AT_ONCE, FADED = "as published", "fade-in, faster generator"
PRESERVED = "function-preserving growth"
STEADIED = "fade-in, steadied"
KINDS = ("grown", "enlarged")
CURVES = {"real": "real films", "grown": "last stage", "enlarged": "first stage, enlarged"}
DOUBLINGS = (64, 128, 256, 512, 1024, 2048)
# At the paper's 0.0001 for both the discriminator of 40 films soon knows every image and the
# generator hardly leaves its first weights; at these rates the 64x64 stage makes chests.
FASTER = {"generator_learning_rate": 0.002, "discriminator_learning_rate": 0.0002}

# What the rows above lack: their discriminators win at the first or second growth.
STEADY = {
    "upsampling": "resize",
    "generator_kernel_size": 3,
    "convention": "keras",
    "discriminator_normalization": "none",
    "penalty": "r1",
    "penalty_weight": 1.0,
    "penalty_interval": 8,
    "ema_half_life": 500,
    "generator_learning_rate": 0.001,
    "discriminator_learning_rate": 0.0002,
}

EXPERIMENT = Experiment(
    name="incremental",
    citation=(
        "Incremental Deep Convolution Generative Adversarial Network (IDCGAN) for high-resolution"
        " chest X-ray images, 64x64 to 2048x2048."
    ),
    recipe="incremental",
    data="214 private films, 138 normal and 76 abnormal, at up to 2048x2048",
    classes=("NORMAL",),
    published={},
    left_open=(
        "The start: 64 in the abstract, 256 in section 3; the tables' sizes 64, 128, 512, 1024, 2048"
        " are taken at --scale paper, every doubling otherwise.",
        "How the network grows: an appended block of 8 maps (the paper's size of feature maps) for"
        " each doubling and a new head, all other weights kept; no fade.",
        "Replacing a few images by larger ones: the share of native images rises from 0 to 1 over"
        " the first 690 images of a stage (five passes over 138 films), the others are averaged"
        " down to the size before and enlarged again.",
        "Epochs: 15 or 20 for normal films (the abnormal ones: 20 in table 3, 10 in table 4); read"
        " as epochs of each stage.",
        "The second row is no reading of the paper: new blocks fade in and the generator learns at"
        " 0.002, the discriminator at 0.0002.",
        "Nor is the third: at these rates, but 0.0002 for the generator after the first stage, and"
        " without a fade, what is appended starts so that a stage's first images are those of the"
        " stage before with each pixel repeated (after Net2Net, Chen et al. 2016).",
        "Nor is the fourth, which fades in too: resizing instead of transposed convolutions, R1, no"
        " normalization in the discriminator, Glorot's initial weights, an averaged generator.",
        "Optimizer: Adam with beta_1 0.5 and binary cross-entropy as in the DCGAN tutorial.",
    ),
    cannot_compare=(
        "The paper's films are private: others stand in for them, and smaller ones are enlarged for"
        " the stages above their size, which can learn no detail from them.",
        "The paper's 4:48 and 6:13 hours for 15 and 20 epochs of 138 films and 2:21 for 10 of 76 are"
        " 8.3, 8.1 and 11.1 s for each image in each epoch, over all sizes together and on a 6-core"
        " desktop CPU; ours stand by stage.",
        "The paper gives losses and pictures and no score.",
    ),
    scales={
        "smoke": {
            "recipe": {"image_size": 256, "stages": (64, 128, 256), "native_ramp": 80},
            "stage_images": (2400, 800, 400),
            "faded": {"fade_in": 160, **FASTER},
            "phantom": {"normal": 40},
            "generate": 0,
            "images": 4,
        },
        "small": {
            "recipe": {"native_ramp": 200, "stages": DOUBLINGS},
            "stage_images": (60_000, 20_000, 8_000, 3_200, 1_200, 600),
            "faded": {"fade_in": 300, **FASTER},
            "phantom": {"normal": 40},
            "generate": 0,
            "images": 16,
        },
        "paper": {
            "recipe": {"stages": (64, 128, 512, 1024, 2048)},
            "stage_images": (),  # 20 epochs of each
            "faded": {"fade_in": 1380, **FASTER},
            "phantom": {"normal": 138},
            "generate": 0,
            "images": 628,
        },
    },
)


def preserved(setting) -> dict:
    """Return the fields of a growth that begins each stage with the former images."""
    # At 0.002 the generator forgets them within the first 100 updates.
    later = len(setting.recipe().stages) - 1
    rates = (FASTER["generator_learning_rate"], *[0.0002] * later)
    return {**FASTER, "growth_start": "former_image", "stage_generator_learning_rates": rates}


def cells(setting):
    """Yield for each seed the growth as published, and three ways to mend it."""
    films, classes = setting.films(), setting.trained_on()
    count = reproducing.count_films(films, classes)
    epochs = tuple(max(1, round(seen / count)) for seen in setting["stage_images"])
    own = {"stage_epochs": epochs} if epochs else {}
    for seed in setting.seeds:
        for row, name, fields in (
            (AT_ONCE, "grown", {}),
            (FADED, "faded", setting["faded"]),
            (PRESERVED, "preserved", preserved(setting)),
            (STEADIED, "steadied", setting["faded"] | STEADY),
        ):
            yield Cell(
                f"{name}-seed-{seed}",
                setting.recipe(seed=seed, **own, **fields),
                films,
                row,
                classes,
                generate=setting["generate"],
                work=grow_and_look,
            )


def grow_and_look(cell, folder, setting):
    """Grow, score each stage, write the largest images, and compare their spectra."""
    from keras_cxrgan import runs, workflows

    grown = workflows.train(
        cell.recipe, folder, data=cell.data, classes=cell.classes, report=setting.report
    )
    if grown.state == "stopped":
        raise reproducing.Stopped(f"stopped in {folder}; the same command goes on from there")
    workflows.generate(
        folder, folder / IMAGES, setting["images"], seed=cell.recipe.seed, overwrite=True,
        report=setting.report,
    )  # fmt: skip
    stages = []
    for row in grown.stages:
        export = runs.stage_folder(folder, row["image_size"]) / "export"
        scores = reproducing.score(str(export), cell.data, cell, setting)
        stages.append({**row, **{key: scores[key] for key in ("frechet", "frechet_error", "kid")}})
    return {
        **scores,  # of the last stage
        "run": folder.name,
        "films": grown.images,
        "seconds": grown.seconds,
        "notes": list(grown.notes),
        "stages": stages,
        "look": look(folder, cell),
    }


def look(folder, cell) -> dict:
    """Compare the last stage's images with real films and with the first stage's, enlarged.

    Bands are octaves, named by the size that first can show them; power is in dB relative to the
    real films. `shared` is the part of the detail finer than half the last size that is the same
    in every image: 1 / n for n unrelated images, 1 for a fixed pattern.
    """
    import cv2

    from keras_cxrgan import runs, workflows
    from keras_cxrgan.evaluation.appearance import power_spectrum
    from keras_cxrgan.stages import by_stage

    recipe = by_stage(cell.recipe)[-1]
    size, first = recipe.image_size, cell.recipe.stages[0]
    real = workflows.load_images(cell.data, recipe, classes=cell.classes, memory_budget=2**34)
    kinds = {"real": np.asarray(real.images[:LOOKED_AT])}
    for name, stage in (("grown", size), ("enlarged", first)):
        generator, card = workflows.load_generator(runs.stage_folder(folder, stage) / "export")
        blocks = workflows.producing.sampled(generator, card, LOOKED_AT, seed=cell.recipe.seed)
        images = np.concatenate([block[..., 0] for _, block in blocks])
        kinds[name] = np.stack(
            [cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in images]
        )
    spectra = {name: power_spectrum(images) for name, images in kinds.items()}
    frequencies = spectra["real"][0]
    bands, sizes = {}, [first * 2**step for step in range(1 + int(np.log2(size // first)))]
    for stage in sizes:
        upper = 0.5 * stage / size
        band = (frequencies <= upper) & (frequencies > (upper / 2 if stage > first else 0))
        power = {name: 10 * float(np.mean(curve[band])) for name, (_, curve) in spectra.items()}
        bands[str(stage)] = {name: power[name] - power["real"] for name in ("grown", "enlarged")}
    return {
        "bands": bands,
        "shared": {name: shared_detail(images) for name, images in kinds.items()},
        "images": {name: len(images) for name, images in kinds.items()},
        "spectra": {
            name: [frequencies[::8].tolist(), curve[::8].tolist()]
            for name, (_, curve) in spectra.items()
        },
    }


def shared_detail(images: np.ndarray) -> float:
    """Return the part of the finest octave's power that all images (N, S, S) have in common."""
    total, mean = 0.0, 0.0
    for image in images.astype(np.float32):
        small = image.reshape(len(image) // 2, 2, -1, 2).mean((1, 3))
        detail = image - small.repeat(2, 0).repeat(2, 1)
        total += float(np.square(detail).sum()) / len(images)
        mean = mean + detail / len(images)
    return float(np.square(mean).sum() / total) if total else 0.0


def present(setting, results):
    """Return time and scores of each stage, the look at the detail, and their figures."""
    from keras_cxrgan.sharing import experiment_figures as figures
    from keras_cxrgan.sharing.experiment_tables import by_row

    tables, findings, panels, spectra, notes = [], [], [], [], []
    for row, found in by_row(results).items():
        good = [result for result in found if "error" not in result]
        if not good:
            findings.append(f"{row}: failed, {found[0]['error']}")
            continue
        tables += [_stage_table(row, good), _band_table(row, good)]
        findings.append(_finding(row, good))
        notes += [note for note in good[0]["notes"] if note not in notes]
        panels += [
            (f"{row}: {stage['image_size']}x{stage['image_size']}", _grid(setting, good[0], stage))
            for stage in good[0]["stages"]
        ]
        size = good[0]["stages"][-1]["image_size"]
        curves = {CURVES[name]: tuple(c) for name, c in good[0]["look"]["spectra"].items()}
        spectra.append((f"{row}, at {size}x{size}", "log10 power", curves))
    if not tables:
        return Page((), (), tuple(findings))
    columns = len(good[0]["stages"]) if good else 3
    figures.grids(panels, setting.out / "stages.png", columns=columns, side=1.9)
    figures.lines(spectra, setting.out / "spectra.png", x="cycles per pixel")
    return Page(
        tuple(tables),
        (("stages.png", "The same latents at each stage"), ("spectra.png", "Radial power spectra")),
        (*notes, *findings),
    )


def _stage_table(row, results) -> Table:
    rows = [
        (
            str(stage["image_size"]),
            str(stage["batch_size"]),
            str(stage["epochs"]),
            f"{stage['generator_parameters']:,}",
            f"{stage['discriminator_parameters']:,}",
            f"{stage['memory'] / 2**30:.1f} / {(stage['measured_memory'] or 0) / 2**30:.1f}",
            f"{stage['seconds_per_image']:.3f}",
            show([r["stages"][index]["measured_seconds_per_image"] for r in results]),
            show([r["stages"][index]["frechet"] for r in results]),
        )
        for index, stage in enumerate(results[0]["stages"])
    ]
    rows.append(("published, all sizes", "8", "10 to 20", *"----", "8.1 to 11.1", "-"))
    return Table(
        f"Stages, {row}",
        (
            "stage", "batch", "epochs", "G parameters", "D parameters",
            "GiB estimated / peak so far", "s/image estimated", "s/image", results[0]["score"],
        ),
        tuple(rows),
        "Seconds for each image in each epoch, with tracing and sample grids.",
    )  # fmt: skip


def _band_table(row, results) -> Table:
    stages = results[0]["stages"]
    bands = [
        (name, *(show([r["look"]["bands"][name][kind] for r in results]) for kind in KINDS))
        for name in results[0]["look"]["bands"]
    ]
    size, first = stages[-1]["image_size"], stages[0]["image_size"]
    return Table(
        f"Power of each octave against real films, dB, at {size}x{size}, {row}",
        ("octave first shown at", f"stage {size}", f"stage {first}, enlarged (bicubic)"),
        tuple(bands),
        "0 dB is the power of the real films, prepared in the same way.",
    )


def _finding(row, results) -> str:
    stages, seen = results[0]["stages"], results[0]["look"]
    size, first = stages[-1]["image_size"], stages[0]["image_size"]
    finest, shared, n = seen["bands"][str(size)], seen["shared"], seen["images"]["grown"]
    verdict = (
        "a fixed pattern: pixels, and no detail of a film"
        if shared["grown"] > 0.5
        else "mostly each image's own; whether it is anatomy, power alone does not say"
    )
    return (
        f"{row}: in the finest octave stage {size} has {finest['grown'] - finest['enlarged']:+.1f} dB"
        f" against the enlarged stage {first} and {finest['grown']:+.1f} dB against real films. Of"
        f" its detail finer than {size // 2} pixels show, {shared['grown']:.0%} is the same in all of"
        f" {n} images (real films {shared['real']:.0%}, unrelated images {1 / n:.0%}): {verdict}."
    )


def _grid(setting, result, row) -> np.ndarray:
    """Return four images of a stage's last grid, averaged down to what a figure can show."""
    from keras_cxrgan.data.images import decode
    from keras_cxrgan.sharing.experiment_figures import tiles

    size = row["image_size"]
    folder = setting.out / result["run"] / "stages" / f"{size:04d}" / "samples"
    images = tiles(decode(max(folder.glob("*.png")).read_bytes()), size)[:4]
    factor = max(1, 2 * size // SHOWN)
    small = images.reshape(4, size // factor, factor, -1, factor).mean((2, 4)).astype(np.uint8)
    return np.block([[small[0], small[1]], [small[2], small[3]]])


main = reproducing.command(EXPERIMENT, cells, present)

if __name__ == "__main__":
    main()
