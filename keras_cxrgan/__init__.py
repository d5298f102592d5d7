"""keras_cxrgan: generative adversarial networks for chest X-rays.

The rooms, in the order of the work: `data` (films to arrays), `models` (networks), `training`
(the GAN and its run), `workflows` (the whole jobs), `cli` (the `cxrgan` command).
"""

__version__ = "0.1.0"
