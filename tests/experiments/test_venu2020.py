"""Venu 2020, trained and generated for real at a tiny size."""

import csv

import keras
import pytest

from experiments import venu2020
from keras_cxrgan.workflows import reproducing

TINY = {"image_size": 32, "width": 2, "latent_dim": 4, "batch_size": 12, "epochs": 1}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A path of a small network that gives features."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            keras.layers.Conv2D(8, 5, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    path = tmp_path_factory.mktemp("network") / "small.keras"
    model.save(path)
    return str(path)


def test_the_minority_is_trained_on_and_evened_out(tmp_path, network, quick_films):
    setting = reproducing.Setting(
        venu2020.EXPERIMENT,
        tmp_path / "out",
        features=network,
        score_options={"preparation": "range=-1:1", "cache": False},
        recipe_changes=TINY,
    )
    written = reproducing.reproduce(setting, venu2020.cells, venu2020.present)
    assert not written["failed"], written["cells"]
    scored, counts = written["tables"]
    assert scored["rows"][0][-1] == "1.289"
    assert counts["rows"] == [["NORMAL", "36", "24", "60"], ["PNEUMONIA", "60", "0", "60"]]
    folder = setting.out / "rebalanced" / "synthetic" / "NORMAL"
    with open(folder / "manifest.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert all((setting.out / name).is_file() for name, _ in written["figures"])
    assert len(written["figures"]) == 3


def test_a_set_of_one_class_has_nothing_to_even_out(smoke):
    setting = smoke(venu2020)
    films = setting.films()
    with pytest.raises(ValueError, match="no two classes"):
        list(venu2020.cells(smoke(venu2020, data=f"{films}/NORMAL")))


def test_the_recipe_steps(smoke, steps):
    assert steps(smoke(venu2020).recipe())["generator_loss"] > 0
