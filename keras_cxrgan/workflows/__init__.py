"""The whole jobs: train, generate, export, evaluate, audit. The only place where rooms meet.

A run is a directory, and the same call on the same directory goes on where it stopped:

    recipe.json       every choice          log.jsonl      one line a tick
    data.json         what it was fed       tensorboard/   the same, and pictures
    environment.json  versions, devices     losses.png     curves, at the end
    reals.png         real images           backup/        the last two complete states
    samples/          grids of fixed latents, named by images seen
    metrics.jsonl     scores on the way     checkpoints/   the generator that scored best
    export/           the finished generator
"""

from __future__ import annotations

import importlib

_PLACES = {
    "RunResult": "running",
    "audit": "auditing",
    "augment_films": "augmenting",
    "build_gan": "assembly",
    "build_networks": "assembly",
    "evaluate": "evaluating",
    "export": "producing",
    "figure": "producing",
    "generate": "generating",
    "grow": "growing",
    "inspect": "inspecting",
    "load_generator": "producing",
    "load_images": "assembly",
    "plan_ablation": "ablating",
    "plan_study": "designing",
    "run_ablation": "ablating",
    "run_study": "studying",
    "split": "splitting",
    "train": "running",
}
__all__ = list(_PLACES)  # noqa: PLE0604


def __getattr__(name: str):
    # Looking at films needs no TensorFlow, which takes seconds to import.
    if name in _PLACES.values():
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
