"""Davoodi & Lo Giudice: the whole experiment at a tiny width, and its tables on known numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import davoodi2021
from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.sources import read_source
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.workflows.reproducing import Setting

TINY = (
    "image_size=32", "width=4", "generator_max_width=8", "discriminator_max_width=8",
    "discriminator_dropout=0.5,0,0.25", "latent_dim=8", "batch_size=16", "epochs=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "films"
    rows, columns = np.mgrid[0:40, 0:32]
    for label in ("covid", "normal"):
        (folder / label).mkdir(parents=True)
        for index in range(16):
            random = np.random.default_rng([index, len(label)])
            wave = np.sin(rows / random.uniform(2, 6)) + np.cos(columns / random.uniform(2, 6))
            image = np.rint(127.5 + 60 * wave).astype(np.uint8)
            write_png(folder / label / f"person{index}_1.png", image)
    return folder


@pytest.fixture(scope="module")
def done(films, tmp_path_factory):
    """The folder of a finished experiment, and the command that made it."""
    out = tmp_path_factory.mktemp("runs") / "davoodi"
    words = ["--data", str(films), "--out", str(out), "--seeds", "3"]
    words += [word for setting in TINY for word in ("--set", setting)]
    result = CliRunner().invoke(davoodi2021.main, words)
    assert result.exit_code == 0, result.output
    return out, words


def numbers_of(**changes):
    """A result as a cell gives it."""
    values = dict.fromkeys(davoodi2021.LINE, 0.5)
    return {
        "name": "covid-seed-0", "row": "covid", "seed": 0, "score": "FD-cxr", "frechet": 30.0,
        "also_frechet": 20.0, "generator_parameters": 3_574_656,
        "discriminator_parameters": 2_763_520, **values, **changes,
    }  # fmt: skip


def test_the_networks_are_those_of_tables_1_and_2():
    assert davoodi2021.count_parameters(RECIPES["davoodi2021"]) == {
        "generator_parameters": 3_574_656,
        "discriminator_parameters": 2_763_520,
    }


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_full_scales_change_nothing_in_the_recipe(scale):
    setting = Setting(davoodi2021.EXPERIMENT, Path("out"), scale)
    assert setting.recipe().difference(RECIPES["davoodi2021"]) == {}


def test_the_paper_scale_has_the_34_batches_of_its_progress_bar():
    setting = Setting(davoodi2021.EXPERIMENT, Path("out"), "paper")
    for originals in (60, 70):
        assert -(-(originals + setting["augmented"]) // setting.recipe().batch_size) == 34


def test_the_page_shows_the_published_line_and_a_row_for_each_class(done):
    page = (done[0] / "results.md").read_text()
    assert "| published: a class, epoch 200 | 1.2568 | 3.0651 | 0.7847 | 0.5819 | 0.0646 |" in page
    assert "published FID (other extractor)" in page and "needs the weights of fid2015" in page
    for label in ("covid", "normal"):
        assert sum(line.startswith(f"| {label} |") for line in page.splitlines()) == 2
    assert "failed" not in page
    for name in ("pairs.png", "losses.png", "frechet.png"):
        assert f"({name})" in page and (done[0] / name).stat().st_size > 1000


def test_each_gan_is_trained_on_originals_and_copies_and_scored_on_originals_alone(done):
    cells = json.loads((done[0] / "results.json").read_text())["cells"]
    assert [cell["name"] for cell in cells] == ["covid-seed-3", "normal-seed-3"]
    for cell in cells:
        assert cell["films"] == 16 + 72
        assert cell["real_images"] == 16 and cell["also_real_images"] == 88
        data = json.loads((done[0] / cell["name"] / "data.json").read_text())
        assert data["classes"] == [cell["row"]] and data["count"] == 88
        assert cell["recipe"]["latent_distribution"] == "uniform" and cell["recipe"]["seed"] == 3


def test_images_handed_on_double_each_class_and_are_read_as_films(done):
    records = read_source(done[0] / "synthetic.csv")[0].records
    assert sorted(record.label for record in records) == ["covid"] * 16 + ["normal"] * 16
    with open(done[0] / "synthetic.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "seed", "model", "run"]
    for row in rows:
        assert (done[0] / row["file"]).is_file()
        assert row["run"] == f"{row['label']}-seed-3" and row["seed"] == "3"
    models = {label: {r["model"] for r in rows if r["label"] == label} for label in
              ("covid", "normal")}  # fmt: skip
    assert all(len(found) == 1 for found in models.values())
    assert models["covid"] != models["normal"]


def test_every_epoch_has_its_statistics_line(done):
    with open(done[0] / "covid-seed-3" / "statistics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert 0 < float(row["real_score"]) < 1 and float(row["discriminator_loss"]) > 0
    assert float(rows[-1]["frechet"]) > 0 and rows[-1]["features"] == "cxr"


def test_the_same_command_trains_and_augments_nothing_again(done):
    out, words = done
    watched = [
        out / "covid-seed-3" / "cell.json", out / "covid-seed-3" / "log.jsonl",
        out / "augmented" / "seed-3" / "films.csv", out / "synthetic" / "normal" / "manifest.csv",
    ]  # fmt: skip
    before = [path.stat().st_mtime_ns for path in watched]
    result = CliRunner().invoke(davoodi2021.main, words)
    assert result.exit_code == 0, result.output
    assert [path.stat().st_mtime_ns for path in watched] == before


def test_statistics_are_means_over_each_epoch_with_the_scores_of_that_epoch(tmp_path):
    def record(epoch, seen, loss):
        return {"epoch": epoch, "images_seen": seen, **dict.fromkeys(davoodi2021.LINE, loss)}

    log = [record(0.98, 98, 1.0), record(1.96, 196, 2.0), record(2.4, 240, 4.0)]
    metrics = {"images_seen": 196, "frechet": 7.0, "kid": 0.5, "features": "cxr"}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    first, second = davoodi2021.statistics(tmp_path, 100)
    assert (first["epoch"], first["generator_loss"], first["frechet"]) == (1, 1.0, None)
    assert (second["epoch"], second["generator_loss"], second["frechet"]) == (2, 3.0, 7.0)
    assert second["images_seen"] == 240


def test_the_line_table_averages_seeds_and_keeps_failed_classes(tmp_path):
    results = [
        numbers_of(generator_loss=2.0),
        numbers_of(generator_loss=4.0, seed=1),
        {"name": "normal-seed-0", "row": "normal", "seed": 0, "error": "no memory"},
    ]
    setting = Setting(davoodi2021.EXPERIMENT, tmp_path)
    table = davoodi2021.line_table(setting, results)
    assert table.header[2] == "Loss_G" and table.header[6] == "Fréchet, FD-cxr"
    assert table.rows[0][1:] == (
        "1.2568", "3.0651", "0.7847", "0.5819", "0.0646", "-", "1.1241", "2.7997",
    )  # fmt: skip
    assert table.rows[1][0] == "covid" and table.rows[1][2] == "3 ± 1"
    assert table.rows[2][0] == "normal: failed: no memory"
    assert set(table.rows[2][1:]) == {"-"}


def test_no_finished_gan_still_gives_a_page(tmp_path):
    failed = [{"name": "covid-seed-0", "row": "covid", "seed": 0, "error": "no memory"}]
    page = davoodi2021.present(Setting(davoodi2021.EXPERIMENT, tmp_path), failed)
    assert len(page.tables) == 2 and page.figures == ()
    assert any("covid: failed: no memory" in row[0] for row in page.tables[0].rows)
