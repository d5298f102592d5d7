"""No Docker engine here: what can be read off the files is checked."""

import json
import re
from pathlib import Path

import click
import pytest

from keras_cxrgan.cli import main
from keras_cxrgan.training.runtime import read_cluster

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


def commands():
    for path in DOCKERFILES:
        yield json.loads(re.search(r"^CMD (\[.*\])$", path.read_text(), re.M)[1])
    for line in re.findall(r"^    command: (\[.*\])$", COMPOSE, re.M):
        if "--logdir" not in line:  # TensorBoard's own
            yield json.loads(line)


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_commands_are_accepted_by_the_command_line(arguments):
    name, *rest = arguments
    with click.Context(main) as parent:
        main.commands[name].make_context(name, rest, parent=parent)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_is_pinned_and_does_not_run_as_root(path):
    lines = path.read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM")]
    assert re.fullmatch(r"FROM \S+:\d+\.\d+\.\d+-\S+", base)
    users = [index for index, line in enumerate(lines) if line.startswith("USER")]
    assert lines[users[-1]] != "USER root"
    assert users[-1] < lines.index('ENTRYPOINT ["cxrgan"]')


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_file_exists(path):
    for line in re.findall(r"^COPY (.*)$", path.read_text(), re.M):
        for name in line.split()[:-1]:
            assert (DOCKER.parent / name).exists(), name


def test_two_workers_share_one_cluster():
    clusters = [read_cluster(text) for text in re.findall(r"TF_CONFIG: '(.*)'", COMPOSE)]
    (first, zero), (second, one) = clusters
    assert first == second == ["worker0:2222", "worker1:2222"]
    assert (zero, one) == (0, 1)
    for worker in first:
        assert f"\n  {worker.split(':')[0]}:\n" in COMPOSE
