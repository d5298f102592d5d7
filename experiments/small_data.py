"""The recipe `small_data`: what each ingredient does, and those that were tried and left out.

    python -m experiments.small_data --data films/ --class NORMAL --images 45000 --seeds 0,1,2

It is `cxrgan ablate --recipe small_data` with the changes below, and takes its options.
"""

from __future__ import annotations

import sys

from keras_cxrgan.cli.ablating import ablate_command

CHANGES = (
    "no augmentation: augmentations=",
    "exposure too: augmentations=brightness,contrast,translation,cutout",
    "scale too: augmentations=scale,translation,cutout",
    "half of the time: augmentation_probability=0.5",
    "adaptive (ADA): augmentation_probability=0 augmentation_target=0.6 augmentation_ramp=30000",
    "equal answers instead: consistency_weight=10",
    "no minibatch stddev: minibatch_stddev=false",
    "no ways around: residual=false",
    "transposed: upsampling=transpose generator_kernel_size=4",
    "spectral norm: discriminator_spectral=true discriminator_normalization=none",
    "R1: penalty=r1 penalty_weight=0.1 penalty_interval=8",
    "no EMA: ema_half_life=0",
    "hinge: loss=hinge",
    "batches of 16: batch_size=16",
    "D twice as fast: discriminator_learning_rate=0.0004",
    "rates 0.0005: generator_learning_rate=0.0005 discriminator_learning_rate=0.0005",
)


def main(arguments=None):
    """Run the ablation with these changes and the options of `cxrgan ablate`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    changes = [part for change in CHANGES for part in ("--change", change)]
    ablate_command.main(["--recipe", "small_data", *changes, *given], "experiments.small_data")


if __name__ == "__main__":
    main()
