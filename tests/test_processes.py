"""What only whole processes show: kills, signals, full disks, clusters, a quiet terminal."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan.cli import main
from keras_cxrgan.data.images import decode, write_png

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds after which a process that should have ended is killed
TINY = (
    "--image-size 32 --batch-size 8 --set width=4 --set generator_max_width=16"
    " --set discriminator_max_width=16 --set latent_dim=8 --set convention=keras --devices cpu"
    " --set minibatch_group=4"  # as many images as each of two workers has
).split()
PROGRESS = re.compile(r"(images|training|generating) +\d+% \[[#.]{20}\]  [\d,]+/[\d,]+( .*)?")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def environment(**changes):
    """This environment without what would change the command: its log level and its cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    return {**kept, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", **changes}


started = []


def start(*arguments, command=(sys.executable, "-m", "keras_cxrgan"), env=None, **options):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Tests that run in a shell's background ignore Ctrl-C, and so would what they start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env or environment(),
        **options,
    )
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def no_process_left():
    """A test that fails half-way does not leave its processes to the next."""
    yield
    while started:
        process = started.pop()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def finish(process):
    """Return (exit status, stdout, stderr); a process that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still running after {PATIENCE} s\n{out}\n{err}")
    assert "Traceback" not in err, err
    return process.returncode, out, err


def error_lines(err):
    """The lines of stderr that are no progress: the message, and any chatter."""
    return [line for line in err.splitlines() if not PROGRESS.fullmatch(line)]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films of mine")
    random = np.random.default_rng(0)
    for index in range(24):
        write_png(folder / f"{index:02d}.png", random.integers(0, 256, (34, 40), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def finished(films, tmp_path_factory):
    """(run, stdout, stderr) of one finished run of one epoch, with `--json`."""
    run = tmp_path_factory.mktemp("runs") / "a run"
    command = ["train", *TINY, "--data", films, "--epochs", 1, "--out", run, "--json"]
    status, out, err = finish(start(*command))
    assert status == 0, err
    return run, out, err


def newest_state(run):
    path = max((run / "backup").glob("*.npz"))
    with np.load(path) as file:
        return path.stem, {name: file[name] for name in file.files}


# Killed at any moment

TRAIN = """
import sys
from keras_cxrgan import workflows
from keras_cxrgan.recipe import Recipe

recipe = Recipe().override(
    image_size=32, batch_size=8, epochs=20, width=4, generator_max_width=16,
    discriminator_max_width=16, latent_dim=8, discriminator_dropout="0.5,0,0",
)
workflows.train(
    recipe, sys.argv[2], data=sys.argv[1], devices="cpu", deterministic=True, backup_seconds=0,
    report=lambda stage, done, total, note="": print(stage, done, flush=True),
)
"""


def test_a_run_killed_twice_ends_with_the_weights_of_one_never_killed(films, tmp_path):
    python = (sys.executable, "-c", TRAIN)
    reference = start(films, tmp_path / "whole", command=python)
    resumed_at = []
    for kill_at in (100, 250, None):
        process = start(films, tmp_path / "killed", command=python)
        seen = 0
        for line in process.stdout:
            stage, done = line.split()
            if stage == "training":
                if not seen:
                    resumed_at.append(int(done))
                seen = int(done)
                if kill_at and seen >= kill_at:
                    process.kill()
        error = process.stderr.read()
        assert process.wait() == (-signal.SIGKILL if kill_at else 0), error
        if kill_at:
            assert int(newest_state(tmp_path / "killed")[0]) < 20 * 24
    assert finish(reference)[0] == 0
    assert 8 == resumed_at[0] < resumed_at[1] < resumed_at[2]

    name, whole = newest_state(tmp_path / "whole")
    other, killed = newest_state(tmp_path / "killed")
    assert name == other == "000000000480"
    assert whole.keys() == killed.keys()
    assert [key for key in whole if whole[key].tobytes() != killed[key].tobytes()] == []

    def log(run):
        timed = ("images_per_second", "seconds", "seconds_left")
        lines = (tmp_path / run / "log.jsonl").read_text().splitlines()
        return [
            {name: value for name, value in json.loads(line).items() if name not in timed}
            for line in lines
        ]

    assert [line["images_seen"] for line in log("whole")] == list(range(24, 481, 24))
    assert log("whole") == log("killed")
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_a_signal_saves_says_so_and_the_same_command_goes_on(films, tmp_path):
    run = tmp_path / "run"
    saved = []
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start("train", *TINY, "--data", films, "--epochs", 100_000, "--out", run)
        for line in process.stderr:
            if line.startswith("training"):
                process.send_signal(number)
                break
        ended, out, err = finish(process)
        assert ended == status
        assert "Stopped. The same command goes on from here." in err
        saved.append(newest_state(run)[1]["images_seen"])
        assert f"{saved[-1]:,}  (" in out
    assert 0 < saved[0] < saved[1]
    assert f"stopped, resumed from {saved[0]:,} images" in out
    assert not (run / "export").exists()


# As a full disk does, it makes the write of a state fail half-way; all other files are smaller.
WITH_A_LIMIT = """
import resource, sys

size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
from keras_cxrgan.cli import main

main()
"""


def test_a_full_disk_keeps_the_earlier_backup_and_the_next_run_goes_on_from_it(
    films, finished, tmp_path
):
    run = shutil.copytree(finished[0], tmp_path / "run")
    earlier = run / "backup" / "000000000024.npz"
    before = earlier.read_bytes()
    command = ["train", *TINY, "--data", films, "--epochs", 2, "--extend", "--out", run, "--json"]
    limited = (sys.executable, "-c", WITH_A_LIMIT, str(len(before) * 3 // 4))
    status, out, err = finish(start(*command, command=limited))
    assert (status, out) == (1, "")
    (line,) = error_lines(err)
    assert line.startswith(f"Error: training in {run} stopped: File too large.")
    assert "The newest complete backup holds 24 images seen" in line
    assert [path.name for path in (run / "backup").iterdir()] == [earlier.name]
    assert earlier.read_bytes() == before

    again = CliRunner().invoke(main, list(map(str, command)))
    assert again.exit_code == 0, again.output
    # Older releases of click mix the progress lines on stderr into what they call stdout.
    result = json.loads(again.stdout[again.stdout.index("{") :])
    assert (result["state"], result["resumed_from"], result["images_seen"]) == ("finished", 24, 48)


# Several workers


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def start_worker(workers, index, *arguments):
    task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    options = [option if option != "cpu" else "multiworker" for option in TINY]
    return start("train", *options, *arguments, env=environment(TF_CONFIG=json.dumps(task)))


def test_two_workers_train_as_one_and_write_once(films, finished, tmp_path):
    run = tmp_path / "run"
    workers = free_ports(2)
    arguments = ["--data", films, "--epochs", 1, "--out", run, "--json"]
    processes = [start_worker(workers, index, *arguments) for index in range(2)]
    (status, out, err), (second_status, second_out, second_err) = map(finish, processes)
    assert (status, second_status) == (0, 0), err + second_err
    chief, second = json.loads(out), json.loads(second_out)
    assert chief["export"] == str(run / "export") and second["export"] is None
    assert chief["images_seen"] == second["images_seen"] == 24

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines] == [24]
    assert all(isinstance(value, (int, float)) for value in lines[0].values())
    assert len(list((run / "backup").iterdir())) == 1
    assert json.loads((run / "environment.json").read_text())["replicas"] == 2
    states = [newest_state(place)[1] for place in (run, finished[0])]
    together, alone = (
        # Without biases before a normalization: their gradient is 0, and Adam magnifies its noise.
        {k: v for k, v in state.items() if v.ndim > 1 and "optimizer" not in k}
        for state in states
    )
    for name, value in alone.items():
        # Three steps move a weight by about 6e-4; a doubled gradient or other noise would show.
        np.testing.assert_allclose(together[name], value, atol=3e-5, err_msg=name)


def test_workers_that_would_go_on_from_different_states_are_refused(films, finished, tmp_path):
    """Without a shared disk the second worker would start anew beside a resumed first one."""
    first = shutil.copytree(finished[0], tmp_path / "first")
    arguments = ["--data", films, "--epochs", 2, "--extend", "--out"]
    workers = free_ports(2)
    processes = [
        start_worker(workers, index, *arguments, run)
        for index, run in enumerate((first, tmp_path / "second"))
    ]
    for process in processes:
        status, _, err = finish(process)
        assert status == 1
        # TensorFlow 2.19's servers chatter whatever the log level, so other lines may stand here.
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert "the workers differ in saved state (--out)" in line or "another worker" in line
    assert newest_state(first)[0] == "000000000024"


def test_a_worker_that_does_not_answer_is_named_within_the_timeout(films, tmp_path):
    """Whoever waits: the chief for the second worker, or, of another cluster, that for the chief."""
    arguments = ["--data", films, "--recipe", "small_data", "--out", tmp_path / "run"]
    arguments += ["--worker-timeout", 3]
    clusters = [free_ports(2), free_ports(2)]
    waiting = [start_worker(workers, index, *arguments) for index, workers in enumerate(clusters)]
    for index, (workers, process) in enumerate(zip(clusters, waiting)):
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("Error: waited 3 s for the cluster in TF_CONFIG; no answer from")
        assert workers[1 - index] in line and workers[index] not in line
    assert not (tmp_path / "run").exists()


# The terminal


def test_stdout_is_pure_json_and_stderr_only_progress(finished):
    run, out, err = finished
    assert json.loads(out)["run"] == str(run)
    assert error_lines(err) == []
    stages = [line.split()[0] for line in err.splitlines()]
    assert "images" in stages and "training" in stages
    assert "24/24" in err.splitlines()[-1]


def test_verbose_brings_tensorflows_messages_back(finished, tmp_path):
    run, _, quiet = finished
    assert error_lines(quiet) == []
    command = ["generate", run, "-n", 1, "--out", tmp_path / "loud", "-v"]
    status, _, loud = finish(start(*command))
    assert status == 0 and error_lines(loud)


def test_ctrl_c_while_generating_is_no_traceback(finished, tmp_path):
    process = start("generate", finished[0], "-n", 10_000_000, "--out", tmp_path / "images")
    for line in process.stderr:
        if line.startswith("generating"):
            process.send_signal(signal.SIGINT)
            break
    status, out, err = finish(process)
    assert status != 0 and out == ""
    assert [line for line in error_lines(err) if line] == ["Aborted!"]
    assert not list((tmp_path / "images").iterdir())


# The export on its own

STRANGER = """
import sys
import numpy as np
import tensorflow as tf

for name in ("keras", "keras_cxrgan"):
    try:
        __import__(name)
    except ImportError as error:
        assert "not installed here" in str(error)
    else:
        sys.exit(name + " can be imported")
model = tf.saved_model.load(sys.argv[1])
images = model.signatures["sample"](n=tf.constant(4), seed=tf.constant(7))["images"]
np.save(sys.argv[2], images.numpy())
"""


def test_the_saved_model_needs_no_keras_and_gives_the_images_of_generate(finished, tmp_path):
    run = finished[0]
    for name in ("keras", "keras_cxrgan"):
        # TensorFlow looks for Keras without importing it, so a package of that name must exist.
        (tmp_path / "stubs" / name).mkdir(parents=True)
        stub = tmp_path / "stubs" / name / "__init__.py"
        stub.write_text(f"raise ImportError('{name} is not installed here')\n")
    process = start(
        run / "export" / "saved_model",
        tmp_path / "images.npy",
        command=(sys.executable, "-c", STRANGER),
        env=environment(PYTHONPATH=str(tmp_path / "stubs")),
        cwd=tmp_path,
    )
    status, _, err = finish(process)
    assert status == 0, err
    images = np.load(tmp_path / "images.npy")
    command = ["generate", str(run), "-n", "4", "--seed", "7", "--out", str(tmp_path / "images")]
    assert CliRunner().invoke(main, command).exit_code == 0
    files = sorted((tmp_path / "images").glob("*.png"))
    expected = np.stack([decode(path.read_bytes()) for path in files])[..., np.newaxis]
    assert images.dtype == np.uint8 and images.shape == expected.shape == (4, 32, 32, 1)
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert np.ptp(images.astype(int)) > 20  # not four flat grey images
