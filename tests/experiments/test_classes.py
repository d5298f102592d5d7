"""One GAN of all classes against a GAN a class: equal cost, each class scored by its own images."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import classes
from keras_cxrgan.data.images import write_png

TINY = (
    "image_size=32", "width=4", "generator_max_width=8", "discriminator_max_width=8",
    "latent_dim=8", "batch_size=8", "training_images=48",
)  # fmt: skip
COUNTS = {"dark": 14, "light": 20}
ALONE, TOGETHER, ALIKE = classes.ALONE, classes.TOGETHER, classes.ALIKE


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "films"
    random = np.random.default_rng(0)
    for label, count in COUNTS.items():
        (folder / label).mkdir(parents=True)
        for index in range(count):
            image = random.integers(0, 120, (32, 32), dtype=np.uint8)
            write_png(folder / label / f"{index}.png", image + 130 * (label == "light"))
    return folder


def words(films, out):
    changes = [word for change in TINY for word in ("--set", change)]
    # The smoke scale scores once on the way; the films and networks are those above.
    return ["--data", str(films), "--scale", "smoke", "--out", str(out), "--json", *changes]


@pytest.fixture(scope="module")
def done(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "classes"
    result = CliRunner().invoke(classes.main, words(films, out))
    assert result.exit_code == 0, result.output
    return out, json.loads((out / "results.json").read_text())


def test_all_ways_see_as_many_images(done):
    cells = {cell["name"]: cell for cell in done[1]["cells"]}
    alone = [cells[f"{label}-alone-seed-0"]["images_seen"] for label in COUNTS]
    assert alone == [48, 48]
    for way in ("together", "alike"):
        common = [cells[f"{label}-{way}-seed-0"] for label in COUNTS]
        assert {cell["images_seen"] for cell in common} == {96}
        assert len({cell["run"] for cell in common}) == 1


def test_all_classes_alike_is_another_training_than_as_many_as_films(done):
    cells = {cell["name"]: cell for cell in done[1]["cells"]}
    together, alike = (cells[f"dark-{way}-seed-0"] for way in ("together", "alike"))
    assert together["generator_loss"] != alike["generator_loss"]


def test_each_class_is_scored_against_its_own_films(done):
    counted = {
        cell["row"]: (cell["real_images"], cell["generated_images"]) for cell in done[1]["cells"]
    }
    assert counted == {
        f"{label}: {way}": (COUNTS[label],) * 2
        for label in COUNTS
        for way in (ALONE, TOGETHER, ALIKE)
    }


def test_the_page_has_the_aims_the_differences_and_pictures(done):
    page = (done[0] / "results.md").read_text()
    for label in COUNTS:
        assert f"| {label}: {ALONE} | 1 | {COUNTS[label]} |" in page
        assert f"## Scores against {label}: " in page
    assert "## One GAN of all classes, less a GAN a class, at the same total cost" in page
    assert all((done[0] / name).stat().st_size > 1000 for name in ("pairs.png", "curves.png"))
    assert not list(done[0].glob("light-together-seed-0/run*"))


def test_a_set_of_one_class_is_refused(films, tmp_path):
    result = CliRunner().invoke(classes.main, [*words(films, tmp_path / "out"), "--class", "dark"])
    assert result.exit_code == 1
    assert "has 1 of the classes asked for" in result.output and "Traceback" not in result.output


def result_of(row, seed, **numbers):
    return {"row": row, "seed": seed, "real_images": 60, **numbers}


def test_the_aim_of_the_distance_is_its_floor():
    row = f"COVID: {ALONE}"
    scores = {"recall": 0.75, "coverage": 0.9, "copies": 1, "copies_real": 2}
    found = [
        result_of(row, 0, frechet_at_floor=50.0, frechet_floor=40.0, **scores),
        result_of(row, 1, frechet_at_floor=30.0, frechet_floor=40.0, **scores),
    ]
    (line,) = classes.aims_table({"COVID": found}).rows
    assert line[:8] == (row, "2", "60", "1.0 ± 0.4", "0.75", "0.9", "1", "2")


def test_a_failed_training_is_a_row_that_says_so():
    failed = {"row": f"COVID: {ALONE}", "seed": 0, "error": "no room"}
    (line,) = classes.aims_table({"COVID": [failed]}).rows
    assert line[:3] == (failed["row"], "0", "failed: no room")
