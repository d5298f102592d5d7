"""The `cxrgan` command as a user types it: help, recipes, and one clear line for each mistake."""

import json
import os
import subprocess
import sys

import click
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from keras_cxrgan import __version__, recipe, workflows
from keras_cxrgan.cli import main
from keras_cxrgan.cli.base import short_name
from keras_cxrgan.data.images import write_png
from keras_cxrgan.recipe import RECIPES, Recipe


def succeed(*arguments):
    """Return what the command prints."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def fail(*arguments):
    """Return the message of a command that must fail: the one line after `Error: `."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2)
    lines = result.output.splitlines()
    assert [line.startswith("Error: ") for line in lines].count(True) == 1, result.output
    assert lines[-1].startswith("Error: "), result.output
    return lines[-1].removeprefix("Error: ")


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Each mistake below must be found before a network is built."""

    def build_gan(*arguments, **options):
        raise AssertionError("the networks were built")

    monkeypatch.setattr(workflows.running, "build_gan", build_gan)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Start and help


def test_the_command_starts_without_tensorflow():
    code = (
        "import sys, keras_cxrgan.cli;"
        "heavy = {'tensorflow', 'keras', 'cv2', 'matplotlib', 'scipy', 'numpy'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_python_m_is_the_command():
    ended = subprocess.run(
        [sys.executable, "-m", "keras_cxrgan", "--version"], capture_output=True, text=True
    )
    assert ended.stdout == f"cxrgan, version {__version__}\n"


def test_help_lists_every_command_with_a_line():
    text = succeed("--help")
    for name, command in main.commands.items():
        assert f"  {name} " in text
        assert command.get_short_help_str()
    for name in ("train", "generate", "export", "recipes", "phantom"):
        assert name in main.commands


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_and_option_has_help(name):
    command = main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert "Usage: " in succeed(name, "-h")


def test_a_misspelt_command_is_named():
    assert "No such command 'trian'" in fail("trian")


# Recipes


def test_recipes_are_listed_with_a_line_each():
    lines = succeed("recipes").splitlines()
    for name, recipe in RECIPES.items():
        assert [line.split(maxsplit=1) for line in lines].count([name, recipe.summary]) == 1


def test_every_field_of_a_recipe_is_shown_as_json_to_edit():
    text = succeed("recipes", "venu2020", "--json")
    assert Recipe.from_json(text) == RECIPES["venu2020"]
    assert json.loads(text).keys() == Recipe.__dataclass_fields__.keys()


def test_every_field_of_a_recipe_is_shown_with_what_it_means():
    text = succeed("recipes", "ng2023_wgan_gp")
    rows = [line[2:].split(maxsplit=2) for line in text.splitlines() if line[:2] in ("* ", "  ")]
    assert {"name", "summary", *(row[0] for row in rows)} == Recipe.__dataclass_fields__.keys() | {
        "is"  # the line that explains the mark
    }
    assert all(len(row) >= 2 for row in rows)
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("* ")}
    assert lines["critic_steps"].split()[2] == "5"
    assert "each on fresh images" in lines["critic_steps"]
    changed = RECIPES["ng2023_wgan_gp"].difference(Recipe())
    assert lines.keys() - {"is"} == changed.keys()


def test_all_recipes_are_one_json():
    assert json.loads(succeed("recipes", "--json")).keys() == RECIPES.keys()


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(in_tmp):
    text = succeed(
        "train", "--recipe", "ng2023_dcgan", "--epochs", 7, "--set", "width=16",
        "--set", "adam_epsilon=1e-6", "--set", "normalize_base=no", "--dry-run",
    )  # fmt: skip
    resolved = Recipe.from_json(text)
    assert resolved.difference(RECIPES["ng2023_dcgan"]) == {
        "epochs": (7, 700),
        "width": (16, 64),
        "adam_epsilon": (1e-6, 1e-8),
        "normalize_base": (False, True),
    }
    assert list(in_tmp.iterdir()) == []


def test_results_of_two_versions_of_a_folder_have_two_names(in_tmp):
    for folder in ("films.v1", "films.v2"):
        (in_tmp / folder).mkdir()
    names = [short_name(name) for name in ("films.v1", "films.v2", "sub/films.zip")]
    assert names == ["films.v1", "films.v2", "films"]
    assert short_name("cxr.csv:train") == "cxr" and short_name("tfds:cxr_nih") == "tfds-cxr_nih"


def test_a_dry_run_is_a_recipe_file_for_the_next_run(in_tmp):
    (in_tmp / "mine.json").write_text(succeed("train", "--set", "width=16", "--dry-run"))
    assert json.loads(succeed("train", "--recipe", "mine.json", "--dry-run"))["width"] == 16


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--recipe", "venue2020"], ["'venue2020'", "did you mean venu2020?"]),
        (["--recipe", "nowhere.json"], ["nowhere.json", "cxrgan recipes lists them"]),
        (["--set", "widht=3"], ["'widht'", "did you mean width?"]),
        (["--set", "=3"], ["no field ''"]),
        (["--set", "width"], ["'width' must be FIELD=VALUE", "--set width=64"]),
        (["--set", "width=wide"], ["width must be a whole number, got 'wide'"]),
        (["--set", "width=1.5"], ["width must be a whole number, got '1.5'"]),
        (["--set", "beta_1=half"], ["beta_1 must be a number, got 'half'"]),
        (["--set", "beta_1=nan"], ["beta_1 must be a number, got 'nan'"]),
        (["--set", "normalize_base=maybe"], ["normalize_base must be true or false"]),
        (["--set", "loss=wgan"], ["loss must be one of", "wasserstein", "got 'wgan'"]),
        (["--set", "discriminator_dropout=a,b"], ["discriminator_dropout must be a number"]),
        (["--image-size", "100"], ["power of two from 32 to 2048", "--image-size 128"]),
        (["--image-size", "16"], ["power of two from 32 to 2048", "--image-size 32"]),
        (["--image-size", "4096"], ["power of two from 32 to 2048", "--image-size 2048"]),
        (["--image-size", "wide"], ["'wide' is not a valid integer"]),
        (["--image-size", "32", "--set", "image_size=64"], ["image_size is given twice"]),
        (["--epochs", "0"], ["epochs must be above 0, got 0"]),
        (["--batch-size", "-4"], ["batch_size must be above 0, got -4"]),
        (["--seed", "-1"], ["seed must not be negative, got -1"]),
        (["--seed", str(2**63)], ["seed must fit in 64 bits"]),
        (["--precision", "float16"], ["'float16' is not one of", "mixed_float16"]),
        (
            ["--precision", "mixed_float16", "--set", "penalty=r1"],
            ["mixed_float16 cannot be used with penalty r1", "overflow", "mixed_bfloat16"],
        ),
        (["--evaluate-every", "-5"], ["evaluate_interval must not be negative, got -5"]),
        (["--evaluate-metric", "fid"], ["'fid' is not one of", "kid"]),
        (["--set", "evaluate_count=9"], ["evaluate_count must be 0 or at least 10, got 9"]),
        (["--set", "penalty_weight=1"], ["penalty_weight would change nothing", "set penalty too"]),
        (["--fit", "squash"], ["'squash' is not one of", "crop"]),
        (["--on-bad-file", "ignore"], ["'ignore' is not one of", "skip"]),
        (["--memory-budget", "-1"], ["-1", "--memory-budget"]),
        (["--worker-timeout", "0"], ["--worker-timeout"]),
        (["--bach-size", "4"], ["No such option", "--bach-size"]),
        (["films"], ["unexpected extra argument (films)"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else None,
)
def test_a_wrong_setting_is_one_clear_line(arguments, words, in_tmp):
    message = fail("train", *arguments)
    for word in words:
        assert word in message
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", ["no JSON"]),
        ("[]", ["JSON object of fields, got list"]),
        ('{"widht": 3}', ["'widht'", "did you mean width?"]),
        ('{"width": "wide"}', ["width must be a whole number"]),
        ("\xff\xd8", ["mine.json is no recipe: it is not text"]),
    ],
    ids=["cut off", "list", "field", "type", "binary"],
)
def test_a_wrong_recipe_file_is_one_clear_line(text, words, in_tmp):
    (in_tmp / "mine.json").write_text(text, encoding="latin-1")
    message = fail("train", "--recipe", "mine.json", "--dry-run")
    for word in words:
        assert word in message


# Data, devices and places


@pytest.mark.parametrize(
    "name, words",
    [
        ("nowhere", ["nowhere does not exist: give a folder, a zip or an image file"]),
        ("empty", ["empty holds no PNG, JPEG or DICOM image: it is empty"]),
        ("texts", ["texts holds no PNG, JPEG or DICOM image", ".txt 1"]),
        ("texts/note.txt", ["is not a folder, a zip, a PNG, a JPEG or a DICOM file"]),
        ("broken.zip", ["broken.zip is not a readable zip"]),
    ],
)
def test_data_without_images_is_one_clear_line(name, words, in_tmp):
    (in_tmp / "empty").mkdir()
    (in_tmp / "texts").mkdir()
    (in_tmp / "texts" / "note.txt").write_text("no image")
    (in_tmp / "broken.zip").write_text("no zip")
    message = fail("train", "--data", name)
    for word in words:
        assert word in message
    assert not any((in_tmp / "runs").glob("*"))


@pytest.mark.parametrize(
    "devices, words",
    [
        ("nonsense", ["--devices must be auto, cpu, cpu:2, gpu", "'nonsense'"]),
        ("gpus", ["--devices must be"]),
        ("cpu:0", ["--devices cpu:N takes one number", "got cpu:0"]),
        ("cpu:1,2", ["--devices cpu:N takes one number"]),
        ("auto:2", ["--devices must be"]),
        ("multiworker", ["needs TF_CONFIG", '"cluster"']),
    ],
)
def test_wrong_devices_are_one_clear_line(devices, words, in_tmp, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    message = fail("train", "--devices", devices)
    for word in words:
        assert word in message


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="for machines without a GPU"
)
def test_gpu_on_a_machine_without_one_says_what_to_do(in_tmp):
    for devices in ("gpu", "gpu:0,1"):
        message = fail("train", "--devices", devices)
        assert "TensorFlow sees no GPU" in message and "--devices cpu" in message


@pytest.mark.parametrize("text", ["{", "no JSON at all", "{'cluster': 1}"])
def test_tf_config_that_is_no_json_is_one_clear_line(text, in_tmp, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    message = fail("train", "--devices", "multiworker")
    assert "TF_CONFIG is no JSON" in message and '"worker"' in message


def test_a_run_of_another_recipe_is_refused_with_the_differences(in_tmp):
    (in_tmp / "run").mkdir()
    (in_tmp / "run" / "recipe.json").write_text(Recipe().override(width=16).to_json())
    result = CliRunner().invoke(main, ["train", "--out", "run", "--set", "beta_1=0.4"])
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1
    assert "run belongs to a run with another recipe" in result.output
    assert "  width: 16 in the run, 32 now\n" in result.output
    assert "  beta_1: 0.5 in the run, 0.4 now\n" in result.output
    assert "Choose another --out" in result.output


def test_a_run_directory_that_is_a_file_or_lies_in_one_is_refused(in_tmp):
    (in_tmp / "file").write_text("mine")
    assert "--out file is a file" in fail("train", "--out", "file")
    assert "cannot write to --out file/run" in fail("train", "--out", "file/run")
    assert (in_tmp / "file").read_text() == "mine"


def locked(folder):
    """A place that cannot be written to; None where the permissions mean nothing, as for root."""
    folder.mkdir()
    folder.chmod(0o555)
    return folder / "place" if not os.access(folder, os.W_OK) else None


def test_places_without_permission_are_one_clear_line(in_tmp):
    place = locked(in_tmp / "locked")
    if place is None:
        pytest.skip("this user may write everywhere")
    assert "cannot write to --out" in fail("train", "--out", place)
    assert "Permission denied" in fail("phantom", place)


def test_sources_that_are_no_run_are_one_clear_line(in_tmp):
    (in_tmp / "empty").mkdir()
    for source in ("empty", "nowhere"):
        for command in (["generate", source, "--out", "out"], ["export", source]):
            message = fail(*command)
            assert f"{source} is no run and no export" in message and "cxrgan train" in message
        assert f"{source} is no run" in fail("figure", source, "--out", "figure.png")
    assert sorted(path.name for path in in_tmp.iterdir()) == ["empty"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-n", "0"], ["-n must be 1 or more, got 0"]),
        (["-n", "many"], ["'many' is not a valid integer"]),
        (["--truncation", "0"], ["--truncation must be above 0"]),
        (["--truncation", "nan"], ["--truncation must be above 0"]),
        (["--seed", str(2**64)], ["--seed must fit in 64 bits"]),
        (["--out", "file"], ["--out file is a file"]),
        (["--out", "full"], ["full already holds files", "--overwrite"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else None,
)
def test_wrong_generate_options_are_one_clear_line(arguments, words, in_tmp):
    (in_tmp / "file").write_text("mine")
    (in_tmp / "full").mkdir()
    (in_tmp / "full" / "image.png").write_text("mine")
    message = fail("generate", "run", "--out", "out", *arguments)
    for word in words:
        assert word in message


def test_best_is_refused_where_there_is_none(in_tmp):
    (in_tmp / "run").mkdir()
    (in_tmp / "run" / "recipe.json").write_text(Recipe().to_json())
    (in_tmp / "export").mkdir()
    (in_tmp / "export" / "card.json").write_text("{}")
    for command in (["generate", "--out", "out"], ["export"]):
        message = fail(*command, "run", "--best")
        assert "run keeps no best checkpoint" in message and "--evaluate-every" in message
        message = fail(*command, "export", "--best")
        assert "export is an export, which holds one generator" in message
        assert "leave --best out" in message
    assert sorted(path.name for path in in_tmp.iterdir()) == ["export", "run"]


def test_generate_needs_to_be_told_where_to_write():
    assert "'--out'" in fail("generate", "run")


# The phantom as files


def test_phantom_writes_a_folder_a_class(in_tmp):
    arguments = ["--image-size", 32, "--class", "normal", "--class", "covid"]
    assert "4 in films" in succeed("phantom", "films", "-n", 4, *arguments)
    found = sorted(f"{path.parent.name}/{path.name}" for path in in_tmp.rglob("*.png"))
    assert found == [
        "covid/00001.png", "covid/00003.png", "normal/00000.png", "normal/00002.png",
    ]  # fmt: skip
    assert "already holds files" in fail("phantom", "films")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-n", "0"], ["0 is not in the range"]),
        (["--image-size", "5"], ["5", "32"]),
        (["--class", "flu"], ["'flu'", "pneumonia"]),
        (["--seed", "-1"], ["-1"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else None,
)
def test_wrong_phantom_options_are_one_clear_line(arguments, words, in_tmp):
    message = fail("phantom", "films", *arguments)
    for word in words:
        assert word in message
    assert list(in_tmp.iterdir()) == []


def test_the_number_of_films_chooses_the_recipe_where_none_is_named(tmp_path, monkeypatch):
    write_png(tmp_path / "film.png", np.zeros((32, 32), np.uint8))
    monkeypatch.setattr(recipe, "FEW_FILMS", 2)
    films = ["train", "--data", tmp_path, "--dry-run"]
    assert json.loads(succeed(*films))["name"] == "small_data"
    assert json.loads(succeed(*films, "--epochs", 3))["training_images"] == 0
    assert json.loads(succeed(*films, "--recipe", "venu2020"))["name"] == "venu2020"
    assert json.loads(succeed("train", "--dry-run"))["name"] == "default"  # the phantom
    write_png(tmp_path / "another.png", np.ones((32, 32), np.uint8))
    assert json.loads(succeed(*films))["name"] == "default"


@pytest.mark.parametrize(("films", "told"), [(1, False), (2, True), (3, False)])
def test_some_hundreds_of_films_are_told_of_the_recipe_for_them(tmp_path, monkeypatch, films, told):
    for index in range(films):
        write_png(tmp_path / f"{index}.png", np.full((32, 32), index, np.uint8))
    monkeypatch.setattr(recipe, "FEW_FILMS", 3)
    monkeypatch.setattr("keras_cxrgan.cli.training.FEW_FILMS", 3)
    monkeypatch.setattr("keras_cxrgan.cli.training.FILMS_FOR_LONG", 2)
    # Ended by a mistake, after the recipe is chosen and before anything is trained.
    arguments = ["train", "--data", str(tmp_path), "--epochs", "1", "--set", "training_images=1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert ("--recipe small_data_long takes" in result.stderr) == told
    assert f"recipe {'small_data' if films < 3 else 'default'}" in result.stderr


def test_films_that_are_not_there_are_named_before_a_recipe_is_chosen(tmp_path):
    assert "does not exist" in fail("train", "--data", tmp_path / "nothing")
