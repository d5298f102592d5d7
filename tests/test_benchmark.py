"""The measuring commands give their numbers; how large those are is not a test's business."""

import json
import subprocess

import pytest
from click.testing import CliRunner

from keras_cxrgan import benchmark
from keras_cxrgan.benchmark import benchmark_evaluation
from keras_cxrgan.cli import main

SMALL = ["image_size=32", "width=4", "generator_max_width=8", "discriminator_max_width=8"]


def measured(*arguments):
    result = CliRunner().invoke(main, [*arguments, "--processes", "1", "--json"])
    assert result.exit_code == 0, result.output
    printed = result.stdout[
        min(result.stdout.index(mark) for mark in "[{" if mark in result.stdout) :
    ]
    return json.loads(printed)


def test_an_evaluation_is_measured_extractor_by_extractor():
    found = measured("benchmark-evaluation", "--features", "cxr", "-n", "20", "--image-size", "32")
    (numbers,) = found["cxr"]
    assert numbers["dims"] == 128
    for name in ("building", "tracing", "features", "scores", "images_per_second", "peak_mib"):
        assert numbers[name] > 0


def test_a_training_step_is_measured_against_a_bare_loop_and_plain_layers():
    settings = [part for setting in SMALL for part in ("--set", setting)]
    (numbers,) = measured("benchmark", *settings, "--steps", "1")
    for name in ("fit", "loop", "fit_over_loop", "plain_layers", "fused_over_plain", "peak_mib"):
        assert numbers[name] > 0


def test_a_process_that_ends_without_a_word_is_explained():
    chatter = "I0000 00:00:1795.1 15478 cudart_stub.cc:31] Could not find cuda drivers"
    ended = {
        (-9, chatter): "killed by signal 9, by which systems end what needs much memory",
        (1, f"{chatter}\nValueError: too few films\n{chatter}"): "too few films",
        (1, chatter): "exit code 1",
        (1, ""): "exit code 1",
    }
    for (code, said), expected in ended.items():
        done = subprocess.CompletedProcess([], code, "", said)
        assert benchmark._reason(done) == expected


def test_a_measurement_that_fails_says_why_in_one_line():
    with pytest.raises(ValueError, match="the measurement failed: --features must be cxr") as error:
        benchmark_evaluation("nothing", processes=1)
    assert "\n" not in str(error.value)
