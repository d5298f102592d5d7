"""The papers' classifier studies: their arms, settings and tables, with noise for generated films."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest

from experiments import all as every
from experiments import davoodi2021_study, ng2023_study, venu2020_study
from keras_cxrgan.data.images import write_png
from keras_cxrgan.study.protocols import PROTOCOLS
from keras_cxrgan.workflows import reproducing, restudying, studying

MODULES = {module.EXPERIMENT.name: module for module in (
    davoodi2021_study, ng2023_study, venu2020_study,
)}  # fmt: skip
SMALL = {
    "davoodi2021_study": {"image_size": 32, "discriminator_dropout": ()},
    "ng2023_study": {"image_size": 32},
    "venu2020_study": {"image_size": 32, "base_size": 4},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Path of a tiny classifier of two classes."""
    images = x = keras.Input((32, 32, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(x))
    path = tmp_path_factory.mktemp("network") / "network.keras"
    keras.Model(images, keras.layers.Dense(2)(x)).save(path)
    return str(path)


def noise(study, cell, counts, report):
    random = np.random.default_rng(cell.seed)
    return [random.integers(0, 256, (count, 32, 32), dtype=np.uint8) for count in counts]


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    """(setting, results) of Ng & Hargreaves' two studies, on phantom films."""
    return run("ng2023_study", network, tmp_path_factory.mktemp("study"))


def run(name, network, out):
    module = MODULES[name]
    smoke = dict(module.EXPERIMENT.scales["smoke"])
    smoke["study"] = smoke["study"] | {"classifier": network, "steps": 3, "seeds": 1}
    experiment = dataclasses.replace(module.EXPERIMENT, scales={"smoke": smoke})
    setting = reproducing.Setting(experiment, out, recipe_changes=SMALL[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studying, "run_study", functools.partial(studying.run_study, make=noise))
        return setting, reproducing.reproduce(setting, module.cells, restudying.present_studies)


def test_the_tables_of_the_paper_and_the_answer_are_written(written):
    setting, results = written
    assert results["failed"] == [], results["cells"]
    titles = [table["title"] for table in results["tables"]]
    assert [title for title in titles if "Table 4" in title] == [
        "DCGAN: Table 4, films alone (ng2023): real",
        "DCGAN: Table 4, with images of the DCGAN (ng2023): gan-even",
        "WGAN-GP: Table 4, films alone (ng2023): real",
        "WGAN-GP: Table 4, with images of the WGAN-GP (ng2023): gan-even",
    ]
    scores = next(table for table in results["tables"] if "Scores: " in table["title"])
    assert {row[0] for row in scores["rows"]} == {"real", "oversampled", "gan-even"}
    assert all((setting.out / name).is_file() for name, _ in results["figures"])
    assert results["seeds"] == [0]
    answers = ["DCGAN"] * 3 + ["WGAN-GP"] * 3
    assert [text.partition(":")[0] for text in results["findings"][:6]] == answers
    assert all("No difference shown" in text for text in results["findings"][:6])
    assert results["findings"][6].startswith("Wrong with the published protocol: ")


def test_what_needs_no_gan_is_fitted_once_for_both_studies(written):
    setting, _ = written
    seconds = {"real": [], "oversampled": [], "gan-even": []}
    for path in setting.out.glob("study-*/cells/*-fold0-*/cell.json"):
        cell = json.loads(path.read_text())
        seconds[cell["arm"]].append(cell["fit"]["seconds"])
    assert all(len(both) == 2 for both in seconds.values())
    # No two fits take the same time to the nanosecond.
    assert [arm for arm, both in seconds.items() if len(set(both)) == 1] == ["real", "oversampled"]


@pytest.mark.parametrize(
    ("name", "protocol", "arms"),
    [
        ("davoodi2021_study", "davoodi2021", {"real", "classic", "classic+gan"}),
        ("ng2023_study", "ng2023", {"real", "oversampled", "gan-even"}),
        ("venu2020_study", None, {"real", "oversampled", "weighted", "gan-even"}),
    ],
)
def test_each_paper_has_its_arms_and_its_protocol(name, protocol, arms, tmp_path, monkeypatch):
    plans = []

    def keep(plan, report=None):
        plans.append(plan)
        return dict.fromkeys(("study", "answer", "limits", "wrong", "left_open", "tables"), []) | {
            "figures": [], "failed": [],
        }  # fmt: skip

    monkeypatch.setattr(studying, "run_study", keep)
    module = MODULES[name]
    setting = reproducing.Setting(module.EXPERIMENT, tmp_path, recipe_changes=SMALL[name])
    reproducing.reproduce(setting, module.cells, restudying.present_studies)
    for plan in plans:
        assert (set(plan.arms), plan.protocol) == (arms, PROTOCOLS.get(protocol))
    assert len(plans) == (2 if name == "ng2023_study" else 1)


def test_other_options_make_a_study_anew_and_the_same_ones_do_not(written, monkeypatch):
    setting, _ = written

    def cells(steps=3):
        smoke = setting.experiment.scales["smoke"]
        study = smoke["study"] | {"steps": steps}
        changed = dataclasses.replace(
            setting.experiment, scales={"smoke": smoke | {"study": study}}
        )
        return list(ng2023_study.cells(dataclasses.replace(setting, experiment=changed)))

    done = []

    def run_paper_study(cell, folder, setting):
        done.append(cell.name)
        return {}

    monkeypatch.setattr(restudying, "run_paper_study", run_paper_study)
    for each in cells():
        reproducing.run_cell(each, setting)
    assert not done
    for each in cells(steps=4):
        reproducing.run_cell(each, setting)
    assert len(done) == 2


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """Folder of films in folders train and test, with a folder a class in each."""
    folder, random = tmp_path_factory.mktemp("divided"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label in ("covid", "normal"):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                film = random.integers(0, 256, (32, 32), dtype=np.uint8)
                write_png(folder / split / label / f"{split}{index}.png", film)
    return str(folder)


@pytest.mark.parametrize(
    ("split", "parts"), [("", ["test"]), (":train", ["fold0", "fold1"])], ids=["set", "its train"]
)
def test_films_that_come_divided_are_taken_so(split, parts, divided, tmp_path, monkeypatch):
    plans = []

    def keep(plan, report=None):
        plans.append(plan)
        raise ValueError("planned")

    monkeypatch.setattr(studying, "run_study", keep)
    module = MODULES["davoodi2021_study"]
    setting = reproducing.Setting(
        module.EXPERIMENT,
        tmp_path,
        data=divided + split,
        recipe_changes=SMALL[module.EXPERIMENT.name],
    )
    results = reproducing.reproduce(setting, module.cells, restudying.present_studies)
    assert plans, results["findings"]
    (plan,) = plans
    assert [part.name for part in plan.parts] == parts
    assert len(plan.films.records) == (24 if split else 32)


def test_a_missing_folder_is_refused_before_anything_is_made(tmp_path):
    module = MODULES["davoodi2021_study"]
    setting = reproducing.Setting(module.EXPERIMENT, tmp_path / "out", data=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="gone"):
        reproducing.reproduce(setting, module.cells, restudying.present_studies)
    assert not (tmp_path / "out").exists()


def test_all_runs_them():
    assert set(MODULES) <= set(every.NAMES)
    for name in MODULES:
        assert every.importlib.util.find_spec(f"experiments.{name}")


@pytest.mark.parametrize("name", list(MODULES))
@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_scale_has_a_recipe_and_seeds(name, scale, tmp_path):
    module = MODULES[name]
    setting = reproducing.Setting(module.EXPERIMENT, tmp_path, scale=scale)
    assert len(restudying.study_seeds(setting)) >= (2 if scale == "smoke" else 5)
    several = dataclasses.replace(setting, seeds=(3, 4, 7))
    assert restudying.study_seeds(several) == (3, 4, 7)
    assert setting.recipe().check()
