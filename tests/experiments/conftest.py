"""Experiments without training: cells that step once, and results as if they had trained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from keras_cxrgan import workflows
from keras_cxrgan.data.images import image_grid, write_png
from keras_cxrgan.workflows import describing, reproducing

TINY = {"width": 1, "latent_dim": 4, "batch_size": 2}
LOG = {
    "discriminator_loss": 1.2, "generator_loss": 2.1, "real_score": 0.6,
    "fake_score_before": 0.1, "fake_score_after": 0.3, "discriminator_gradient_norm": 2.0,
    "generator_gradient_norm": 3.0,
}  # fmt: skip


def step(recipe):
    """Take one step of a recipe on noise, without tracing a graph; return its losses."""
    gan = workflows.build_gan(recipe)
    shape = (recipe.batch_size * recipe.critic_steps, recipe.image_size, recipe.image_size)
    noise = np.random.default_rng(0).uniform(-1, 1, (*shape, recipe.channels))
    return {name: float(value) for name, value in gan.train_step(noise.astype("float32")).items()}


@pytest.fixture
def faked(monkeypatch):
    """Cells give hand-made numbers; `.scores` and `.seconds` are functions of a cell.

    Runs have a log and sample grids, so that figures are drawn as after a training.
    """
    asked = SimpleNamespace(cells=[], scores=lambda cell: 10.0, seconds=lambda cell: 100.0)

    def train_and_score(cell, folder, setting):
        asked.cells.append(cell)
        films = reproducing.count_films(cell.data, cell.classes)
        run = setting.out / (cell.run or cell.name)
        epochs, recipe = cell.recipe.epochs, cell.recipe
        (run / "samples").mkdir(parents=True, exist_ok=True)
        log = LOG | ({"wasserstein_estimate": 4.0} if recipe.loss == "wasserstein" else {})
        lines = [
            json.dumps(log | {"epoch": float(epoch), "images_seen": epoch * films})
            for epoch in range(1, epochs + 1)
        ]
        (run / "log.jsonl").write_text("\n".join(lines) + "\n")
        images = np.random.default_rng(0).integers(
            0, 256, (16, recipe.image_size, recipe.image_size), np.uint8
        )
        for epoch in {0, epochs // 2, epochs}:
            write_png(run / "samples" / f"{epoch * films:09d}.png", image_grid(images))
        score = asked.scores(cell)
        return log | {
            "run": run.name, "films": films, "epochs": float(epochs),
            "images_seen": epochs * films, "seconds": asked.seconds(cell),
            "generator_updates": epochs * films // recipe.batch_size // recipe.critic_steps,
            "frechet": score, "frechet_error": 1.0, "frechet_floor": 5.0, "score": "FD-cxr",
            "also_frechet": score / 2, "also_frechet_error": 0.5,
        }  # fmt: skip

    monkeypatch.setattr(reproducing, "train_and_score", train_and_score)
    return asked


@pytest.fixture
def quick_films(monkeypatch):
    """Phantom films are noise, which takes no time."""

    def write_films(folder, counts, image_size=128):
        random = np.random.default_rng(0)
        for label, count in counts.items():
            (folder / label.upper()).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image = random.integers(0, 256, (32, 32), np.uint8)
                write_png(folder / label.upper() / f"{index:05d}.png", image)
        return folder

    monkeypatch.setattr(describing, "write_phantom", write_films)


@pytest.fixture
def smoke(tmp_path, quick_films):
    """Function of an experiment's module: its smoke scale with tiny networks."""

    def setting(module, **changes):
        arguments = {"recipe_changes": TINY} | changes
        return reproducing.Setting(module.EXPERIMENT, tmp_path / "out", "smoke", **arguments)

    return setting


@pytest.fixture
def steps():
    return step
