import json
import socket

import keras
import pytest
import tensorflow as tf

from keras_cxrgan.training import runtime


@pytest.mark.parametrize(
    "devices", ["", "tpu", "cpu:", "cpu:a", "gpu:0,", "auto:2", "multiworker:1"]
)
def test_unknown_devices_are_refused_with_the_choices(devices):
    with pytest.raises(ValueError, match="--devices must be auto, cpu, cpu:2"):
        runtime.start(devices)


def test_gpu_on_a_machine_without_one_says_what_to_do():
    with pytest.raises(ValueError, match="sees no GPU.*--devices cpu"):
        runtime.start("gpu")


@pytest.mark.parametrize(
    ("devices", "replicas"), [("auto", 1), ("cpu", 1), ("cpu:1", 1), ("cpu:2", 2)]
)
def test_strategy_has_the_replicas_asked_for(devices, replicas):
    assert runtime.start(devices).num_replicas_in_sync == replicas


def test_devices_of_a_started_tensorflow_cannot_change():
    tf.constant(1.0)
    with pytest.raises(ValueError, match="before TensorFlow has run its first operation"):
        runtime.start("cpu:3")


def test_seed_decides_the_initial_weights():
    kernels = []
    for seed in (1, 1, 2):
        runtime.start("cpu", seed=seed)
        layer = keras.layers.Dense(3)
        layer.build((None, 4))
        kernels.append(layer.kernel.numpy().tolist())
    assert kernels[0] == kernels[1] != kernels[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "needs TF_CONFIG in the environment, like"),
        ("", "needs TF_CONFIG"),
        ("{worker", "TF_CONFIG is no JSON"),
        ("[]", "TF_CONFIG must be like"),
        ('{"cluster": {}}', "TF_CONFIG must be like"),
        (
            '{"cluster": {"worker": ["host"]}, "task": {"type": "worker", "index": 0}}',
            "TF_CONFIG must be like",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
            "an index from 0 to 1; got type 'worker', index 2",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "must be a worker",
        ),
    ],
)
def test_wrong_cluster_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        runtime.read_cluster(text)


def test_right_cluster_is_read():
    text = json.dumps(
        {"cluster": {"worker": ["a:1", "[::1]:2"]}, "task": {"type": "worker", "index": 1}}
    )
    assert runtime.read_cluster(text) == (["a:1", "[::1]:2"], 1)


def test_reachable_workers_are_told_from_silent_ones():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert runtime._answers(address)
    assert not runtime._answers(address)


def test_precision_holds_only_inside_its_block():
    with runtime.dtype_policy("mixed_bfloat16"):
        inside = keras.layers.Dense(1)
    outside = keras.layers.Dense(1)
    assert (inside.compute_dtype, outside.compute_dtype) == ("bfloat16", "float32")


def test_xla_is_left_off_on_a_cpu():
    assert runtime.use_xla(tf.distribute.get_strategy()) is False
