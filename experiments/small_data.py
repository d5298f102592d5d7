"""The recipe `small_data`: what each ingredient does, and what was tried and left out.

    python -m experiments.small_data --data films/ --class NORMAL --images 45000 --seeds 0,1,2
    python -m experiments.small_data --tried --data films/ --class NORMAL --images 45000

It is `cxrgan ablate --recipe small_data` with the changes below, and takes its options. `--tried`
is the same around the recipe's first state, from which it was chosen. A change that `--set` makes to
all rows is left out.
"""

from __future__ import annotations

import sys

from keras_cxrgan.cli import main as cxrgan

CHANGES = (
    "no augmentation: augmentations= augmentation_target=0",
    "always augmented: augmentation_probability=1 augmentation_target=0",
    "exposure too: augmentations=brightness,contrast,translation,cutout",
    "no R1: penalty=none",
    "D normalized: discriminator_normalization=batch",
    "weights of N(0, 0.02): convention=pytorch",
    "rates 0.0002: generator_learning_rate=0.0002 discriminator_learning_rate=0.0002",
    "no minibatch stddev: minibatch_stddev=false",
    "no ways around: residual=false",
    "no EMA: ema_half_life=0",
    "batches of 32: batch_size=32",
    "constant rates: rate_decay=0",
    "long memory: beta_2=0.999",
    "mean gradients: beta_1=0.5",
    "one stddev of four: minibatch_group=4 minibatch_features=1",
    "ADA by each batch: augmentation_memory=1",
    "latents at the first size only: self_modulation=false",
)

BEFORE = (
    "discriminator_normalization=batch",
    "convention=pytorch",
    "penalty=none",
    "penalty_weight=10",
    "penalty_interval=1",
    "generator_learning_rate=0.0002",
    "discriminator_learning_rate=0.0002",
    "beta_1=0.5",
    "beta_2=0.999",
    "minibatch_group=4",
    "minibatch_features=1",
    "batch_size=32",
    "augmentation_probability=1",
    "augmentation_target=0",
    "augmentation_ramp=500000",
    "augmentation_memory=1",
    "self_modulation=false",
    "ema_half_life=2000",
    "rate_decay=0",
)
TRIED = (
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
    changes, fields = CHANGES, ()
    if "--tried" in given:
        given.remove("--tried")
        changes, fields = TRIED, BEFORE
    # A change that --set makes to all rows is no row of its own.
    said = {setting for option, setting in zip(given, given[1:]) if option == "--set"}
    left = [change for change in changes if not said.issuperset(change.partition(": ")[2].split())]
    rows = [part for change in left for part in ("--change", change)]
    base = [part for field in fields for part in ("--set", field)]
    cxrgan.main(["ablate", "--recipe", "small_data", *base, *rows, *given], "cxrgan")


if __name__ == "__main__":
    main()
