"""The `cxrgan` command: thin click commands over workflows. Heavy imports happen inside them."""

# Importing a module of commands puts them into the group.
from keras_cxrgan.cli import (  # noqa: F401
    ablating,
    augmenting,
    data,
    evaluating,
    producing,
    splitting,
    studying,
    training,
)
from keras_cxrgan.cli.base import main

__all__ = ["main"]
