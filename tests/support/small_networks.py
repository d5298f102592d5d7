"""Networks as after some training, which none of the tests that need them has time for."""

import numpy as np


def stir(model):
    """Give each weight a value of its own: moving statistics that are not 0 and 1, too."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(values) if weight.name == "moving_variance" else values)
    return model
