"""Ng and Hargreaves 2023, table 4: images of the DCGAN and of the WGAN-GP for a COVID classifier.

python -m experiments.ng2023_study --data manifest.csv --scale small
"""

from __future__ import annotations

from experiments.ng2023_size import CITATION
from keras_cxrgan.study.protocols import PROTOCOLS
from keras_cxrgan.workflows import reproducing, restudying
from keras_cxrgan.workflows.reproducing import Experiment

PROTOCOL = PROTOCOLS["ng2023"]

EXPERIMENT = Experiment(
    name="ng2023_study",
    citation=CITATION,
    recipe="ng2023_dcgan",
    data="COVID-19 Radiography Database, numbers not stated; 1,000 generated images of COVID",
    published={},
    left_open=PROTOCOL.left_open,
    cannot_compare=(
        "The published scores are of other films, of which neither number nor division is known.",
        "At scale small the classifier is the small CNN of Davoodi & Lo Giudice: InceptionV3 takes"
        " hours on two cores.",
    ),
    divides=True,
    scales={
        "smoke": {
            "recipe": {
                "width": 8, "generator_max_width": 16, "discriminator_max_width": 16,
                "batch_size": 4, "epochs": 2,
            },
            "phantom": {"covid": 16, "normal": 24},
            "study": {
                "folds": 2, "seeds": 2, "steps": 20, "batch_size": 16, "classifier": "cnn",
            },
        },
        "small": {
            "recipe": {"width": 16, "batch_size": 32, "epochs": 350},
            "phantom": {"covid": 120, "normal": 250, "pneumonia": 250},
            "study": {"folds": 3, "seeds": 5, "steps": 250, "classifier": "cnn"},
        },
        "paper": {
            "recipe": {},
            "phantom": {"covid": 1000, "normal": 2000},
            "study": {"folds": 5, "seeds": 5},
        },
    },
)  # fmt: skip

cells = restudying.study_cells(
    {"DCGAN": "ng2023_dcgan", "WGAN-GP": "ng2023_wgan_gp"}, protocol="ng2023", **PROTOCOL.settings
)
main = reproducing.command(EXPERIMENT, cells, restudying.present_studies)

if __name__ == "__main__":
    main()
