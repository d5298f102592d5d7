"""The README's code runs and its commands exist."""

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest

from keras_cxrgan.cli import main
from keras_cxrgan.evaluation.scores import METRICS
from keras_cxrgan.recipe import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "experiments" / "results" / "README.md").read_text()


def commands():
    texts = [README, RESULTS, *(path.read_text() for path in sorted((ROOT / "docker").iterdir()))]
    for text in texts:
        for line in re.findall(r"^(?:# docker .*is  )?(?:.*&& )?(cxrgan [^#\n`|]*)", text, re.M):
            yield shlex.split(line)[1:]


def test_python_examples_run_as_printed_one_after_another():
    scope = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(compile(code, "README.md", "exec"), scope)
    assert scope["synthetic"].shape == (8, 32, 32, 1)
    assert np.isfinite(scope["synthetic"]).all()
    assert set(scope["scores"]) == set(METRICS)
    assert np.isfinite(list(scope["scores"].values())).all()


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_commands_are_accepted_by_the_command_line(arguments):
    name, *rest = arguments
    command = main.commands[name]
    with click.Context(main) as parent:
        command.make_context(name, rest, parent=parent)  # parses, and runs nothing


def test_every_recipe_is_in_the_table():
    for name in RECIPES:
        assert f"`{name}`" in README


def test_first_command_is_what_ci_runs():
    assert "pip install . && cxrgan train\n" in README
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install --quiet . && cxrgan train" in ci
    assert "pip install --quiet '.[test]' && pytest\n" in ci
