"""What guards a run: nothing of a user's is replaced, and nothing goes on without its record."""

import json
import shutil

import pytest
from click.testing import CliRunner
from small_runs import TINY, contents, write_films

from keras_cxrgan import runs, workflows
from keras_cxrgan.cli import main

LONGER = TINY.override(epochs=4)


def refused(message, recipe, run, **options):
    """Train, and check that the one line matches and that no file has changed."""
    before = contents(run)
    with pytest.raises(ValueError, match=message) as error:
        workflows.train(recipe, run, **options)
    assert "\n" not in str(error.value) and contents(run) == before


def test_a_folder_of_other_files_is_left_alone(folder, tmp_path, no_training):
    (tmp_path / "log.jsonl").write_text("my notes")
    (tmp_path / "thesis.txt").write_text("my thesis")
    message = "--out .* holds log.jsonl and 1 more and no run: name a new folder"
    refused(message, TINY, tmp_path, data=str(folder))


def test_what_a_run_leaves_that_ended_while_it_read_its_films_is_no_hindrance(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / ".lock").touch()
    assert workflows.train(TINY, tmp_path, data=str(folder)).state == "finished"


@pytest.mark.parametrize("inside", ["", "runs/run"])
def test_a_run_inside_the_folder_of_its_films_is_refused(inside, tmp_path, no_training):
    films = write_films(tmp_path / "films", 8)
    refused("lies in .* taken for films", TINY, films / inside, data=str(films))
    assert len(list(films.iterdir())) == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recipe.json", "holds a saved state and no recipe.json, which says how it was trained"),
        ("data.json", "holds a saved state and no data.json, which says what it was trained on"),
    ],
)
def test_a_state_does_not_go_on_without_the_record_of_what_it_saw(
    name, message, run, folder, no_training
):
    (run / name).unlink()
    refused(message, LONGER, run, data=str(folder), extend=True)


@pytest.mark.parametrize("name", ["recipe.json", "data.json"])
@pytest.mark.parametrize("text", ["[1,2", "[1, 2]", "\udcff"])
def test_a_damaged_record_is_named(name, text, run, folder, no_training, tmp_path):
    (run / name).write_text(text, errors="surrogateescape")
    refused(f"{name} is damaged .* copy of the run", TINY, run, data=str(folder))
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        workflows.generate(run, tmp_path / "out", 1)


def test_a_recipe_of_something_else_is_named(run, folder, no_training):
    (run / "recipe.json").write_text('{"a": 1}')
    refused("recipe.json is no recipe of a run: the recipe has no field", TINY, run,
            data=str(folder))  # fmt: skip


def test_a_log_that_is_no_text_does_not_stop_a_run(run, folder):
    for name in ("log.jsonl", "metrics.jsonl"):
        (run / name).write_bytes(b"\xf4\xff\x00 no text")
    result = workflows.train(LONGER, run, data=str(folder), extend=True)
    assert (result.state, result.resumed_from) == ("finished", 64)


def test_what_changed_about_the_films_is_said(run, finished, folder, tmp_path, no_training):
    about = "trained on other films: 32 of .*films.*, and now"
    refused(f"{about} 20 of .*, class NORMAL .12 no longer there: PNEUMONIA/film00.png, PNEUMONIA"
            r"/film01.png, PNEUMONIA/film02.png, \.\.\.\)", TINY, run, data=str(folder),
            classes=("NORMAL",))  # fmt: skip
    other = shutil.copytree(folder, tmp_path / "films")
    shutil.copy(other / "NORMAL" / "film00.png", other / "NORMAL" / "film01.png")
    refused(f"{about} 32 of .*1 no longer there: NORMAL/film01.png", TINY, run, data=str(other))


def test_one_film_is_too_few_whatever_the_batch(tmp_path, no_training):
    films = write_films(tmp_path / "films", 1)
    for size in (1, 8):
        with pytest.raises(ValueError, match="1 image: 2 different ones are the least"):
            workflows.train(TINY.override(batch_size=size), tmp_path / "run", data=str(films))


def test_two_lengths_of_one_training_are_refused(folder, tmp_path):
    command = ["train", "--data", str(folder), "--epochs", "3", "--set", "training_images=800"]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "epochs and training_images say the same thing: give one" in done.output
    assert not (tmp_path / "run").exists()


def test_the_films_of_a_run_are_those_of_its_record(run):
    about = json.loads((run / "data.json").read_text())
    assert runs.films_of(run) == {digest for _, digest in about["images"]}
