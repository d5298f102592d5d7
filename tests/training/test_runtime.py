import json
import socket

import keras
import numpy as np
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


@pytest.mark.parametrize(
    ("precision", "cores", "given", "threads"),
    [
        ("mixed_bfloat16", 2, None, [1]),
        ("mixed_bfloat16", 9, None, [4]),
        ("mixed_bfloat16", 1, None, []),
        ("mixed_bfloat16", 8, "3", []),
        ("float32", 8, None, []),
    ],
)
def test_bfloat16_lets_half_the_cores_share_an_operation(
    precision, cores, given, threads, monkeypatch
):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if given:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    chosen = []
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", chosen.append)
    runtime.start("cpu", precision=precision)
    assert chosen == threads


def test_bfloat16_takes_the_threads_of_a_started_tensorflow_as_they_are(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    tf.constant(1.0)
    assert runtime.start("cpu", precision="mixed_bfloat16").num_replicas_in_sync == 1


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
            '{"cluster": {"worker": ["a:65536"]}, "task": {"type": "worker", "index": 0}}',
            "TF_CONFIG must be like",
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


def test_all_replicas_compute_in_float32_inside_and_as_built_after():
    """Their threads take turns inside: the first one out must not take it from the others."""
    with runtime.dtype_policy("mixed_bfloat16"):
        network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    in_float32, seen = runtime.InFloat32(network), []

    def compute():
        context = tf.distribute.get_replica_context()
        with in_float32:
            context.merge_call(lambda strategy: None)
            seen.append(network.layers[0].compute_dtype)
            if context.replica_id_in_sync_group:
                context.merge_call(lambda strategy: None)
                seen.append(network.layers[0].compute_dtype)
        if not context.replica_id_in_sync_group:
            context.merge_call(lambda strategy: None)

    runtime.start("cpu:2").run(compute)
    assert seen == ["float32"] * 3
    assert network.layers[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize("second", [2.0, float("inf")])
def test_a_step_that_overflows_on_any_replica_is_one_of_no_numbers_on_all(second):
    strategy = runtime.start("cpu:2")

    def gradients():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        value = tf.constant([1.0, 1.0 if first else second], tf.float16)
        return runtime.finite_on_all([value, tf.constant(3.0)])

    for each in strategy.run(gradients):
        for value in strategy.experimental_local_results(each):
            assert np.isfinite(value.numpy()).all() == np.isfinite(second)


def test_xla_is_left_off_on_a_cpu():
    assert runtime.use_xla(tf.distribute.get_strategy()) is False
