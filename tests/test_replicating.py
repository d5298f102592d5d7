"""A paper's protocol: its mistakes are made on purpose, beside what should be done."""

import json
import types

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan.cli import main
from keras_cxrgan.data.images import write_png
from keras_cxrgan.study.fitting import fit_classifier, predict, predict_in_training_mode
from keras_cxrgan.study.protocols import PROTOCOLS
from keras_cxrgan.workflows import studying, supplying
from keras_cxrgan.workflows.designing import plan_study
from keras_cxrgan.workflows.recognising import recognise
from keras_cxrgan.workflows.replicating import published_tables, score_of
from keras_cxrgan.workflows.splitting import split

TINY = {
    "image_size": 32, "width": 4, "generator_max_width": 8, "discriminator_max_width": 8,
    "latent_dim": 8, "batch_size": 4, "epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Ten films of covid and twenty of normal, told apart by their brightness; 40 % are tested."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    for label, count, level in (("covid", 10, 150), ("normal", 20, 90)):
        (folder / label).mkdir()
        for index in range(count):
            film = np.clip(random.normal(level, 50, (32, 32)), 0, 255).astype(np.uint8)
            write_png(folder / label / f"{index}.png", film)
    table = folder / "manifest.csv"
    split(folder, table, fractions={"train": 0.6, "test": 0.4})
    return str(table)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.keras"
    images = x = keras.Input((32, 32, 1))
    x = keras.layers.BatchNormalization()(keras.layers.AveragePooling2D(8)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    keras.Model(images, keras.layers.Dense(2)(x)).save(path)
    return str(path)


def noise(study, cell, counts, report):
    random = np.random.default_rng(cell.seed)
    return [random.integers(0, 256, (count, 32, 32), dtype=np.uint8) for count in counts]


def test_training_mode_normalizes_films_by_each_other_and_leaves_the_network_as_it_was():
    images = x = keras.Input((2, 2, 1))
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    logits = keras.layers.Dense(2, kernel_initializer="ones")(keras.layers.Flatten()(x))
    model = keras.Model(images, logits)
    kernel = np.array([[1.0, -1.0]] * 4, np.float32)
    model.layers[-1].set_weights([kernel, np.zeros(2, np.float32)])
    before = model.get_weights()
    films = np.full((4, 2, 2), 200, np.uint8)
    films[:2] = 220
    # All are bright; among themselves two are darker, which only the batch's own mean can say.
    assert predict(model, films).argmax(axis=1).tolist() == [0, 0, 0, 0]
    found = predict_in_training_mode(model, films, 3)
    assert found.tolist() == [[0, 0, 1, 1]] * 3
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_training_mode_drops_anew_in_each_pass():
    images = keras.Input((2, 2, 1))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(images))
    model = keras.Model(images, keras.layers.Dense(2, kernel_initializer="glorot_uniform")(x))
    films = np.random.default_rng(0).integers(0, 256, (20, 2, 2), dtype=np.uint8)
    found = predict_in_training_mode(model, films, 30)
    assert found.shape == (30, 20) and len({tuple(row) for row in found.tolist()}) > 10
    np.testing.assert_array_equal(found, predict_in_training_mode(model, films, 30))


def test_scores_of_counts_by_hand():
    # Class 1: 6 found, 2 missed, 1 other taken for it, 11 the rest.
    counts = [[7, 1, 0], [2, 6, 0], [1, 0, 3]]
    assert score_of(counts, 1, "sensitivity") == 6 / 8
    assert score_of(counts, 1, "specificity") == 11 / 12
    assert score_of(counts, 1, "precision") == 6 / 7
    assert score_of(counts, 1, "accuracy") == 17 / 20
    assert score_of(counts, 1, "f1") == pytest.approx(2 * 6 / (2 * 6 + 2 + 1))
    assert score_of(counts, 1, "harmonic") == pytest.approx(2 / (8 / 6 + 12 / 11))
    assert score_of(counts, None, "accuracy") == 16 / 20
    assert score_of([[4, 0], [2, 0]], 1, "precision") is None


def test_sgd_has_nesterovs_momentum():
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4), dtype=np.uint8)

    def network():
        images = keras.Input((4, 4, 1))
        return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))

    model, _ = fit_classifier(
        images, np.arange(8) % 2, classes=2, network=network, steps=2, batch_size=4,
        optimizer="sgd", learning_rate=0.01,
    )  # fmt: skip
    config = model.optimizer.get_config()
    assert (config["momentum"], config["nesterov"]) == (0.9, True)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_protocol_lays_the_paper_beside_its_way_and_the_right_one(
    name, manifest, network, tmp_path
):
    settings = dict(PROTOCOLS[name].settings) | {
        "classifier": network, "steps": 10, "batch_size": 8,
    }  # fmt: skip
    fields = TINY | {"discriminator_dropout": ()}
    seeds = (0, 1) if name == "davoodi2021" else (0,)
    study = plan_study(
        manifest, tmp_path, **settings, fields=fields, seeds=seeds, ratios=(1,), protocol=name
    )
    results = studying.run_study(study, make=noise)
    assert results["failed"] == []
    tables = {table["title"]: table for table in results["tables"]}
    if name == "davoodi2021":
        table = tables["Table 4b (davoodi2021): classic+gan"]
        rows = {row[0]: row[1:] for row in table["rows"]}
        assert rows["covid, published"] == ["1.000", "1.000", "1.000", "1.000"]
        assert rows["all, published"] == ["0.818", "-", "-", "-"]
        cells = [c for c in results["cells"] if c["arm"] == "classic+gan"]
        tested = cells[0]["as_published"]
        films = len(study.parts[0].test)
        assert tested["passes"] == 500 and np.sum(tested["confusion"]) == 500 * films
        one = np.trace(tested["confusion"]) / (500 * films)
        assert rows["all, tested so, seed 0 alone"][0] == f"{one:.3f}"
        # The published F1 is no F1; the right one knows precision.
        right = [
            row["scores"][0]["classes"][0]["f1"]
            for row in results["sets"]["test"][0]["rows"]
            if row["row"] == "classic+gan x1"
        ]
        assert rows["covid, as it should be, 2 seeds"][3].startswith("0.") and right
        assert not any("pneumonia" in row for row in rows)
    else:
        assert "Table 4, with images of the DCGAN (ng2023): gan-even" in tables
        assert "Table 4, with images of the WGAN-GP (ng2023): gan-even" not in tables
    page = (tmp_path / "results.md").read_text()
    assert "## What is wrong with the published protocol" in page
    assert PROTOCOLS[name].wrong[0] in page


def test_of_several_ratios_a_table_has_one_in_both_ways():
    study = types.SimpleNamespace(
        protocol=PROTOCOLS["davoodi2021"], sizes=(1.0,),
        recipe=types.SimpleNamespace(name="davoodi2021"),
        films=types.SimpleNamespace(classes=("covid", "normal")),
    )  # fmt: skip
    right, wrong = [[1, 0], [0, 1]], [[0, 1], [1, 0]]
    cells = [
        {"size": 1.0, "arm": "classic+gan", "row": f"classic+gan x{ratio}", "seed": 0,
         "as_published": {"passes": 1, "confusion": confusion}}
        for ratio, confusion in ((1, right), (2, wrong))
    ]  # fmt: skip
    predicted = types.SimpleNamespace(
        row="classic+gan x1", size=1.0, seeds=(0,), labels=np.array([0, 1]),
        probabilities=np.eye(2)[None],
    )  # fmt: skip
    (table,) = published_tables(study, cells, [predicted])
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["all, tested so, 1 seeds"] == rows["all, as it should be, 1 seeds"] == "1.000"


def test_arms_are_held_against_the_same_without_a_gan(manifest, network, tmp_path):
    arms = ("classic", "classic+gan", "oversampled", "gan-even")
    study = plan_study(
        manifest, tmp_path, arms=arms, classifier=network, steps=10, batch_size=8, fields=TINY,
        seeds=(0,),
    )  # fmt: skip
    results = studying.run_study(study, make=noise)
    block = results["sets"]["test"][0]
    names = [row["row"] for row in block["between"]]
    assert names == ["classic+gan x1 against classic", "gan-even against oversampled"]
    scores = {row["row"]: row.get("scores") for row in block["rows"]}
    for row in block["between"]:
        one, other = row["row"].split(" against ")
        means = [
            np.mean([seed["balanced_accuracy"] for seed in scores[name]]) for name in (one, other)
        ]
        assert row["comparison"]["difference"] == pytest.approx(means[0] - means[1])
        assert row["comparison"]["comparisons"] == 6
    assert len(results["answer"]) == 6


def test_gan_even_adds_images_of_the_smaller_classes_alone(manifest, network, tmp_path):
    study = plan_study(
        manifest, tmp_path, arms=("gan-even",), classifier=network, fields=TINY, seeds=(0,)
    )
    images = studying._load(study.films, study.recipe)
    (cell,) = (cell for cell in study.cells if cell.arm == "gan-even")
    assert (cell.ratio, cell.row) == (None, "gan-even")
    fitted, _ = study.chosen(cell)
    real = np.bincount(np.array(study.films.labels)[fitted])
    shown, labels, _ = supplying.supply(study, cell, images, noise)
    assert real[0] < real[1]
    assert np.bincount(labels).tolist() == [real[1], real[1]]
    assert len(shown) == 2 * real[1]


def test_evening_out_trains_no_gan_of_the_largest_class(manifest, network, tmp_path):
    options = {"classifier": network, "fields": TINY, "seeds": (0,), "steps": 3}
    even = plan_study(manifest, tmp_path / "even", arms=("gan-even",), **options)
    both = plan_study(manifest, tmp_path / "both", arms=("gan-even", "gan-only"), **options)
    assert [name for _, name in even.trainings] == ["covid"]
    assert [name for _, name in both.trainings] == ["covid", "normal"]
    cell, _ = even.trainings[0]
    blocks = supplying.generated(even, cell, [0, 0])
    assert [block.shape for block in blocks] == [(0, 32, 32)] * 2
    assert not (tmp_path / "even").exists()
    asked = []

    def make(study, cell, counts, report=None):
        asked.append(counts)
        return noise(study, cell, counts, report)

    images = studying._load(even.films, even.recipe)
    (labels,) = recognise(even, images, make)
    assert asked[0][0] > 0 and asked[0][1] == 0
    assert sum(labels["generated"][1]) == 0 and sum(labels["real"][1]) > 0


def test_a_protocol_sets_what_is_not_given(manifest, tmp_path):
    call = ["study", manifest, "--dry-run", "--json", "--out", str(tmp_path / "out")]
    call += ["--set", "batch_size=4"]
    told = CliRunner().invoke(main, [*call, "--protocol", "davoodi2021", "--steps", "7"])
    about = json.loads(told.stdout)
    assert (about["protocol"], about["steps"], about["batch_size"]) == ("davoodi2021", 7, 256)
    assert (about["optimizer"], about["learning_rates"]) == ("sgd", [0.01])
    assert (about["recipe"], list(about["arms"])) == (
        "davoodi2021", ["real", "classic", "classic+gan"],
    )  # fmt: skip


@pytest.mark.parametrize("option", ["protocol", "optimizer"])
def test_an_unknown_name_is_refused_in_one_line(option, manifest):
    told = CliRunner().invoke(main, ["study", manifest, f"--{option}", "best", "--dry-run"])
    assert told.exit_code == 1 and f"--{option} has no 'best': choose of " in told.output
    assert "Traceback" not in told.output
