"""Davoodi & Lo Giudice, tables 4a and 4b: do images of four GANs help a classifier of four classes?

    python -m experiments.davoodi2021_study --data manifest.csv --scale small

A set that comes divided into train and test is taken so, a manifest (cxrgan split) as it says,
others in folds by patient.
"""

from __future__ import annotations

from keras_cxrgan.study.protocols import PROTOCOLS
from keras_cxrgan.workflows import reproducing, restudying
from keras_cxrgan.workflows.reproducing import Experiment

PROTOCOL = PROTOCOLS["davoodi2021"]

EXPERIMENT = Experiment(
    name="davoodi2021_study",
    citation=f"{PROTOCOL.citation}.",
    recipe="davoodi2021",
    data="270 films to train on and 36 to test, of four classes, 64x64",
    published={},
    left_open=PROTOCOL.left_open,
    cannot_compare=(
        "The published scores are of 36 other films.",
        "In the paper the GANs and the classifier of table 4a saw 1,000 fixed classic copies of each"
        " class; here classic augmentation is drawn anew for each batch, and GANs see the films, as"
        " many images in all as 200 epochs of the copies are (a quarter of that at scale small).",
    ),
    divides=True,
    scales={
        "smoke": {
            "recipe": {
                "width": 8, "generator_max_width": 16, "discriminator_max_width": 16,
                "batch_size": 4, "epochs": 2,
            },
            "phantom": {"covid": 16, "normal": 16},
            "study": {"folds": 2, "seeds": 2, "steps": 20, "batch_size": 16},
        },
        "small": {
            "recipe": {"width": 32, "training_images": 50_000},
            "phantom": {"covid": 69, "normal": 79, "pneumonia_bac": 79, "pneumonia_vir": 79},
            "study": {"folds": 3, "seeds": 5, "steps": 300, "batch_size": 64},
        },
        "paper": {
            # 200 epochs of 50 films would be 80 updates.
            "recipe": {"training_images": 200_000},
            "phantom": {"covid": 69, "normal": 79, "pneumonia_bac": 79, "pneumonia_vir": 79},
            "study": {"folds": 5, "seeds": 5},
        },
    },
)  # fmt: skip

cells = restudying.study_cells(
    {"real or with GANs": "davoodi2021"}, protocol="davoodi2021", **PROTOCOL.settings
)
main = reproducing.command(EXPERIMENT, cells, restudying.present_studies)

if __name__ == "__main__":
    main()
