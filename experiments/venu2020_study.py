"""Venu 2020, the follow-up it announces: does evening out the classes with images help?

python -m experiments.venu2020_study --data films/ --scale small
"""

from __future__ import annotations

from experiments.venu2020 import EXPERIMENT as IMAGES
from keras_cxrgan.workflows import reproducing, restudying
from keras_cxrgan.workflows.reproducing import Experiment

EXPERIMENT = Experiment(
    name="venu2020_study",
    citation=IMAGES.citation,
    recipe="venu2020",
    data=IMAGES.data,
    published={},
    left_open=(
        "The paper announces a classifier of real and synthetic films and describes none: the small"
        " CNN of Davoodi & Lo Giudice at 128x128, patient-wise folds.",
        "Evening out is held against the two ways that need no GAN: films of the smaller classes"
        " shown more often, and weighted in the loss.",
    ),
    cannot_compare=("The paper publishes no score of a classifier.",),
    divides=True,
    scales={
        "smoke": {
            "recipe": {
                "width": 4, "generator_max_width": 8, "discriminator_max_width": 8,
                "batch_size": 4, "epochs": 2,
            },
            "phantom": {"normal": 16, "pneumonia": 24},
            "study": {"folds": 2, "seeds": 2, "steps": 10, "batch_size": 8},
        },
        "small": {
            # 3,125 updates; the paper's 500 epochs of its minority are about 5,200.
            "recipe": {"width": 16, "batch_size": 16, "training_images": 50_000},
            "phantom": {"normal": 120, "pneumonia": 400},
            "study": {"folds": 3, "seeds": 5, "steps": 150},
        },
        "paper": {
            "recipe": {},
            "phantom": {"normal": 1341, "pneumonia": 3875},
            "study": {"folds": 5, "seeds": 5, "steps": 3000},
        },
    },
)  # fmt: skip

cells = restudying.study_cells(
    {"real or with GANs": "venu2020"}, arms=("real", "oversampled", "weighted", "gan-even")
)
main = reproducing.command(EXPERIMENT, cells, restudying.present_studies)

if __name__ == "__main__":
    main()
