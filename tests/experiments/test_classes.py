"""One GAN of all classes against a GAN a class: equal cost, each class scored by its own images."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import classes
from keras_cxrgan.data.images import write_png
from keras_cxrgan.workflows.describing import Setting

TINY = (
    "image_size=32", "width=4", "generator_max_width=8", "discriminator_max_width=8",
    "latent_dim=8", "batch_size=8", "training_images=48",
)  # fmt: skip
COUNTS = {"dark": 14, "light": 20}
ALONE, TOGETHER = classes.ALONE, classes.TOGETHER
ROWS = [f"dark: {ALONE}", *(f"{label}: {TOGETHER}" for label in COUNTS)]  # a GAN less to train


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
    rows = [word for row in ROWS for word in ("--only", row)]
    return ["--data", str(films), "--scale", "smoke", "--out", str(out), "--json", *changes, *rows]


@pytest.fixture(scope="module")
def done(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "classes"
    result = CliRunner().invoke(classes.main, words(films, out))
    assert result.exit_code == 0, result.output
    return out, json.loads((out / "results.json").read_text())


def test_both_ways_see_as_many_images(done):
    cells = {cell["name"]: cell for cell in done[1]["cells"]}
    alone = cells["dark-alone-seed-0"]["images_seen"]
    together = {cells[f"{label}-together-seed-0"]["images_seen"] for label in COUNTS}
    assert (alone, together) == (48, {96})  # as two GANs of a class each
    assert len({cells[f"{label}-together-seed-0"]["run"] for label in COUNTS}) == 1


def test_classes_of_unequal_size_are_also_learnt_alike(tmp_path, monkeypatch):
    """At the same cost as the other; the cells are asked for, and none is trained."""
    counts = {"few": 10, "many": 20}
    monkeypatch.setattr(classes.reproducing, "count_classes", lambda films: counts)
    asked = list(classes.cells(Setting(classes.EXPERIMENT, tmp_path, data="films")))
    common = {cell.run: cell.recipe for cell in asked if cell.run}
    assert [cell.run for cell in asked if "many" in cell.name] == ["", *common]
    assert [recipe.balanced for recipe in common.values()] == [False, True]
    assert len({recipe.training_images for recipe in common.values()}) == 1


def test_each_class_is_scored_against_its_own_films(done):
    counted = {
        cell["row"]: (cell["real_images"], cell["generated_images"]) for cell in done[1]["cells"]
    }
    assert counted == {row: (COUNTS[row.partition(":")[0]],) * 2 for row in ROWS}


def test_the_page_has_the_aims_the_differences_and_pictures(done):
    page = (done[0] / "results.md").read_text()
    for row in ROWS:
        label = row.partition(":")[0]
        assert f"| {row} | 1 | {COUNTS[label]} |" in page
        assert f"## Scores against {label}: " in page
    assert (
        "## One GAN of all classes, less a GAN a class, at the same total cost, against the" in page
    )
    assert all((done[0] / name).stat().st_size > 1000 for name in ("pairs.png", "curves.png"))
    assert not list(done[0].glob("light-together-seed-0/run*"))


def write_other(folder, count=14):
    """Films of both classes, none of which is trained on."""
    random = np.random.default_rng(1)
    for label in COUNTS:
        (folder / label).mkdir(parents=True)
        for index in range(count):
            image = random.integers(0, 120, (32, 32), dtype=np.uint8)
            write_png(folder / label / f"{index}.png", image + 130 * (label == "light"))
    return folder


def test_films_never_trained_on_judge_what_was_trained_before(films, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    held_out = write_other(tmp_path / "held")
    given = [*words(films, out)[:-2], "--held-out", str(held_out)]  # both rows of dark films
    result = CliRunner().invoke(classes.main, given)
    assert result.exit_code == 0, result.output
    before = {cell["name"]: cell for cell in done[1]["cells"]}
    cells = json.loads((out / "results.json").read_text())["cells"]
    for cell in cells:
        assert (cell["also_real_images"], cell["also_generated_images"]) == (14, 14)
        assert cell["also_frechet"] != cell["frechet"]
        assert cell["seconds"] == before[cell["name"]]["seconds"]  # trained once, scored anew
        assert cell["frechet_at_floor"] == before[cell["name"]]["frechet_at_floor"]
    page = (out / "results.md").read_text()
    _, table = page.split("## Scores against dark films never trained on: 14 images on each side")
    first, *_ = [line for line in table.splitlines() if line.startswith("| films trained on |")]
    dark = next(cell for cell in cells if cell["row"] == f"dark: {ALONE}")
    assert f"| {dark['also_recall_reals']:.3g} |" in first
    assert "at the same total cost, against films never trained on" in page


@pytest.mark.parametrize(
    ("count", "held", "said"),
    [
        (9, "other", "films of light, and scores need 14 or more"),
        (14, "films", "films of --held-out"),
    ],
)
def test_films_that_cannot_judge_are_refused(films, tmp_path, count, held, said):
    other = write_other(tmp_path / "other", count)
    if count == 9:  # enough in all, too few of one class
        for index in range(20):
            write_png(other / "dark" / f"more-{index}.png", np.full((32, 32), index, np.uint8))
    given = [*words(films, tmp_path / "out"), "--held-out", str({"films": films}.get(held, other))]
    result = CliRunner().invoke(classes.main, given)
    assert result.exit_code == 1 and said in result.output
    assert "Traceback" not in result.output


def test_held_out_films_are_for_films_that_are_given(tmp_path):
    result = CliRunner().invoke(classes.main, ["--held-out", "films/", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "it needs films to train on (--data)" in result.output


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
