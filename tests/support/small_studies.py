"""Studies small enough to run whole in seconds."""

import numpy as np

from keras_cxrgan.workflows.designing import plan_study

TINY = {
    "image_size": 32, "width": 4, "generator_max_width": 8, "discriminator_max_width": 8,
    "latent_dim": 8, "batch_size": 4, "epochs": 1,
}  # fmt: skip
PATIENT = r"(\w+/\d+)-"


def plan(manifest, out, network, **options):
    options = {
        "seeds": (0, 1), "steps": 30, "batch_size": 8, "recipe": "default", "fields": TINY,
    } | options  # fmt: skip
    return plan_study(manifest, out, classifier=network, learning_rates=[0.01], **options)


def noise(study, cell, counts, report):
    random = np.random.default_rng(cell.seed)
    return [random.integers(0, 256, (count, 32, 32), dtype=np.uint8) for count in counts]
