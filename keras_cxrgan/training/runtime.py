"""Devices, strategies, precision and seeds: the only place that creates them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import time

import keras
import tensorflow as tf

DEVICES_HELP = "auto, cpu, cpu:2, gpu, gpu:0,1 or multiworker"


def start(
    devices: str = "auto",
    *,
    seed: int = 0,
    deterministic: bool = False,
    worker_timeout: float = 120,
    precision: str = "float32",
) -> tf.distribute.Strategy:
    """Choose the devices, seed everything and return the strategy to train under.

    Args:
        devices: `auto` (all GPUs, else the CPU), `cpu`, `cpu:2` (two logical CPU devices),
            `gpu` (all), `gpu:0,1` (these), `multiworker` (the cluster in TF_CONFIG).
        seed: of initial weights; the GAN's noise has its own.
        deterministic: bitwise repeatable operations, somewhat slower.
        worker_timeout: seconds to wait for the other workers of a cluster.
        precision: of what will run most, as in a recipe; on a CPU it decides how cores are used.

    Raises `ValueError` for devices that do not exist or cannot be changed any more, and for a
    TF_CONFIG that is missing, wrong or names workers that do not answer.
    """
    match = re.fullmatch(r"(auto|cpu|gpu|multiworker)(?::(\d+(?:,\d+)*))?", devices)
    if not match or (match[2] and match[1] in ("auto", "multiworker")):
        raise ValueError(f"--devices must be {DEVICES_HELP}, got {devices!r}")
    kind = match[1]
    numbers = [int(number) for number in match[2].split(",")] if match[2] else []
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        strategy = _strategy(kind, numbers, worker_timeout)
    except RuntimeError as error:
        if "initialized" not in str(error):
            raise
        raise ValueError(
            f"--devices {devices} must be chosen before TensorFlow has run its first operation:"
            " start a new Python process"
        ) from None
    on_cpu = not tf.config.get_visible_devices("GPU")
    if on_cpu and precision == "mixed_bfloat16" and strategy.num_replicas_in_sync == 1:
        _run_operations_side_by_side()
    keras.utils.set_random_seed(seed % 2**32)
    return strategy


def _run_operations_side_by_side() -> None:
    """Let half the CPU's cores share an operation, for the others to run another one.

    A bfloat16 convolution of 16 small images ends so soon that sharing it out among all cores
    costs what it gains. Measured of the recipe small_data at 64x64 on two cores: 1.3 times the
    images a second; in float32 nothing. Set TF_NUM_INTRAOP_THREADS to decide otherwise.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "TF_NUM_INTRAOP_THREADS" in os.environ or cores < 2:
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow has its threads by now: so be it
        tf.config.threading.set_intra_op_parallelism_threads(cores // 2)


def _strategy(kind, numbers, worker_timeout) -> tf.distribute.Strategy:
    if kind == "multiworker":
        return _multiworker(worker_timeout)
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu" or not gpus:
        if kind == "gpu":
            raise ValueError(
                "--devices gpu: TensorFlow sees no GPU here; install its libraries with"
                " pip install 'keras_cxrgan[gpu]' and check nvidia-smi, or pass --devices cpu"
            )
        return _cpu_strategy(numbers)
    missing = [number for number in numbers if number >= len(gpus)]
    if missing:
        raise ValueError(
            f"--devices gpu: there is no GPU {missing[0]}; this machine has"
            f" {len(gpus)}, numbered from 0"
        )
    chosen = [gpus[number] for number in numbers] if numbers else gpus
    tf.config.set_visible_devices(chosen, "GPU")
    for gpu in chosen:
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(chosen) == 1:
        return tf.distribute.get_strategy()
    return _mirrored(tuple(f"/gpu:{index}" for index in range(len(chosen))))


def _cpu_strategy(numbers) -> tf.distribute.Strategy:
    if len(numbers) > 1 or (numbers and numbers[0] < 1):
        raise ValueError(
            "--devices cpu:N takes one number of logical CPU devices, 1 or more;"
            f" got cpu:{','.join(map(str, numbers))}"
        )
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    if not numbers or numbers[0] == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * numbers[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) != numbers[0]:
        tf.config.set_logical_device_configuration(cpu, wanted)
    return _mirrored(tuple(f"/cpu:{index}" for index in range(numbers[0])))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One for the life of the process: each strategy numbers its collective operations from the
    # same start, and a second one of the same devices would run into the shapes of the first.
    return tf.distribute.MirroredStrategy(devices)


def read_cluster(text: str | None) -> tuple[list[str], int]:
    """Return (addresses of all workers, index of this one) from TF_CONFIG's text."""
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    if not text:
        raise ValueError(
            f"--devices multiworker needs TF_CONFIG in the environment, like {example}"
        )
    try:
        config = json.loads(text)
        workers = config["cluster"]["worker"]
        task, index = config["task"]["type"], config["task"]["index"]
        addresses = [
            (worker.rsplit(":", 1)[0], int(worker.rsplit(":", 1)[1])) for worker in workers
        ]
        if not all(0 < port < 2**16 for _, port in addresses):
            raise ValueError
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG is no JSON ({error}); it must be like {example}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise ValueError(f"TF_CONFIG must be like {example}; got {text}") from None
    if task != "worker" or not isinstance(index, int) or not 0 <= index < len(addresses):
        raise ValueError(
            f"TF_CONFIG's task must be a worker with an index from 0 to {len(addresses) - 1};"
            f" got type {task!r}, index {index!r}"
        )
    return workers, index


def _multiworker(timeout: float) -> tf.distribute.Strategy:
    workers, index = read_cluster(os.environ.get("TF_CONFIG"))
    _meet(workers, index, timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet(workers: list[str], index: int, timeout: float) -> None:
    """Wait until every other worker has answered once; raise `ValueError` that names the silent.

    TensorFlow itself waits inside C++ for up to an hour, holding Python's lock, so that neither
    Ctrl-C nor a thread could end it. So all meet here first, each listening at its own address
    until it has seen the others; then TensorFlow's server answers there.
    """
    port = int(workers[index].rsplit(":", 1)[1])
    try:
        listener = socket.create_server(("", port))
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG gives this worker {workers[index]}, which cannot be used: {error.strerror}"
        ) from None
    with listener:
        silent = [worker for other, worker in enumerate(workers) if other != index]
        deadline = time.monotonic() + timeout
        while silent := [worker for worker in silent if not _answers(worker)]:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"waited {timeout:.0f} s for the cluster in TF_CONFIG; no answer from"
                    f" {', '.join(silent)}. Start the same command there, or correct TF_CONFIG;"
                    " --worker-timeout waits longer"
                )
            time.sleep(0.2)


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files: the only one, or worker 0 of a cluster."""
    resolver = getattr(strategy, "cluster_resolver", None)
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def finite_on_all(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return a replica's gradients, or no numbers where those of another one have overflowed.

    Keras asks the first replica alone whether a float16 step is to be skipped.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
    share = context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.cast(finite, tf.float32))
    return [tf.where(share < 1, tf.cast(float("nan"), each.dtype), each) for each in gradients]


def use_xla(strategy: tf.distribute.Strategy) -> bool:
    """Whether to compile the step with XLA: on one GPU. On a CPU it is the slower choice."""
    return strategy.num_replicas_in_sync == 1 and bool(tf.config.list_logical_devices("GPU"))


@contextlib.contextmanager
def dtype_policy(name: str):
    """Build Keras layers under a precision: float32, mixed_bfloat16 or mixed_float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class InFloat32:
    """In it, a network built under any precision computes in float32, with the weights it has.

    Replicas are traced in threads that take turns wherever they meet, within it too: the last one
    out restores what the network was built with.
    """

    def __init__(self, network: keras.Model):
        self.built = [(layer, layer.dtype_policy) for layer in (network, *network.layers)]
        self.inside = 0

    def __enter__(self):
        self.inside += 1
        for layer, _ in self.built:
            layer.dtype_policy = "float32"

    def __exit__(self, *_):
        self.inside -= 1
        if not self.inside:
            for layer, policy in self.built:
                layer.dtype_policy = policy
