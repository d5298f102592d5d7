"""Shared by all tests: two logical CPU devices, so that strategies of two replicas run anywhere."""

import gc
import os
import sys
from pathlib import Path

# The experiments are not installed but read where they lie; last, so that of the package the
# installed one is tested.
sys.path.append(str(Path(__file__).parents[1]))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the same results on machines with a GPU

import keras
import numpy as np
import pytest
import tensorflow as tf

# Python searched TensorFlow's many small objects for garbage in an eighth of the time of the tests.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# Files of minutes. Started last, one of them would run alone while the other processes idle.
LONG = (
    "test_processes.py",
    "test_running.py",
    "test_scores_on_the_way.py",
    "test_worlds.py",
    "test_gan.py",
    "test_growing.py",
)


def pytest_collection_modifyitems(items):
    """Put the longest files first; the others stay in their order."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Each test starts from the same seeds and the default precision, whatever ran before it."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def films():
    """Forty 32x32 uint8 images with some structure, the same each time."""
    rows, columns = np.mgrid[0:32, 0:32]
    random = np.random.default_rng(7)
    waves = [
        np.sin(rows / random.uniform(2, 6)) + np.cos(columns / random.uniform(2, 6))
        for _ in range(40)
    ]
    return np.stack([np.rint(127.5 + 60 * wave).astype(np.uint8) for wave in waves])
