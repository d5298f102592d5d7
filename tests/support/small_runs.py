"""Films and recipes small enough to train a whole run in seconds, and how to read what it wrote."""

import csv

import numpy as np

from keras_cxrgan.data.images import write_png
from keras_cxrgan.recipe import Recipe

SMALL = {
    "image_size": 32,
    "base_size": 4,
    "width": 4,
    "generator_max_width": 16,
    "discriminator_max_width": 16,
    "latent_dim": 8,
}
# Keras' wider initial weights: images of a few steps would otherwise be one flat grey.
TINY = Recipe().override(**SMALL, batch_size=8, epochs=2, sample_interval=20, convention="keras")


def write_films(folder, count, seed=0):
    """Smooth 40x36 images that are all different."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:40, 0:36]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        wave = np.sin(rows / random.uniform(3, 9)) + np.cos(columns / random.uniform(3, 9))
        write_png(folder / f"film{index:02d}.png", np.rint(127.5 + 60 * wave).astype(np.uint8))
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def read_manifest(out):
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def pngs(out):
    return {path.name: path.read_bytes() for path in out.glob("0*.png")}
