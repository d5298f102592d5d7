"""Sets of images, a small network and a run, which the tests of a file share."""

import numpy as np
import pytest
from clouds import SIDE, clouds, write
from small_networks import save_extractor

from keras_cxrgan import workflows
from keras_cxrgan.recipe import Recipe


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folders of images: real, others of the same law, held out, and several bad generators."""
    folder = tmp_path_factory.mktemp("sets")
    random = np.random.default_rng(5)
    many, others, unseen = (clouds(160, seed) for seed in (1, 2, 3))
    noisy = np.clip(many + random.normal(0, 3, many.shape), 0, 255).astype(np.uint8)
    images = {
        "many": many,
        "others": others,
        "unseen": unseen,
        "learnt": noisy,
        "real": many[:80],
        "good": others[:80],
        "held": unseen[:80],
        "copies": noisy[:20],
        "few": clouds(20, 7),
        "collapsed": np.repeat(clouds(4, 4), 20, axis=0),
        "noise": random.integers(0, 256, (80, SIDE, SIDE), np.uint8),
    }
    return {name: write(folder / name, each) for name, each in images.items()}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A path of a small seeded network that gives 24 features."""
    path = tmp_path_factory.mktemp("network") / "small.keras"
    return save_extractor(path, (16, 2), (24, 2))


@pytest.fixture(scope="module")
def trained(sets, tmp_path_factory):
    """(manifest, run trained on its 48 films of `train`) of the real images, in three channels."""
    folder = tmp_path_factory.mktemp("trained")
    manifest = str(folder / "manifest.csv")
    workflows.split(sets["real"], manifest, fractions={"train": 0.6, "test": 0.4}, seed=0)
    recipe = Recipe().override(
        image_size=SIDE, width=4, generator_max_width=8, discriminator_max_width=8, latent_dim=8,
        batch_size=16, epochs=1, channels=3, convention="keras",
    )  # fmt: skip
    workflows.train(recipe, folder / "run", data=manifest, split="train")
    return manifest, str(folder / "run")


@pytest.fixture(scope="module")
def judge(sets, network):
    """evaluate(), with the small network and without a cache."""

    def evaluate(fakes, real="real", **arguments):
        arguments.setdefault("references", False)
        arguments.setdefault("features", (network,))
        arguments.setdefault("preparation", "range=-1:1")
        return workflows.evaluate(
            sets[real],
            [sets[fake] for fake in fakes],
            cache=False,
            **arguments,
        )

    return evaluate


@pytest.fixture(scope="module")
def results(judge):
    """One result for each generator alone."""
    return {name: judge([name]) for name in ("good", "collapsed", "noise")}
