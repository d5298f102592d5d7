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

from keras_cxrgan.workflows.assembly import build_gan, build_networks, load_images
from keras_cxrgan.workflows.auditing import audit
from keras_cxrgan.workflows.evaluating import evaluate
from keras_cxrgan.workflows.inspecting import inspect
from keras_cxrgan.workflows.producing import export, figure, generate, load_generator
from keras_cxrgan.workflows.running import RunResult, train
from keras_cxrgan.workflows.splitting import split

__all__ = [
    "RunResult",
    "audit",
    "build_gan",
    "build_networks",
    "evaluate",
    "export",
    "figure",
    "generate",
    "inspect",
    "load_generator",
    "load_images",
    "split",
    "train",
]
