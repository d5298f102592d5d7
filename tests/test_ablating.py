"""Ablations: rows that differ in one change alone, scored alike, and honest about noise."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan import workflows
from keras_cxrgan.cli import main
from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.phantom import phantom
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.workflows import ablating, contrasting, reproducing
from keras_cxrgan.workflows.ablating import plan_ablation, read_change, run_ablation

TINY = {
    "image_size": 32, "width": 4, "generator_max_width": 8, "discriminator_max_width": 8,
    "latent_dim": 8, "batch_size": 8,
}  # fmt: skip
NO_EMA = "no EMA: ema_half_life=0"
TRAINED_ON, HELD_OUT = 20, 16


def write_films(folder, first, count, label="NORMAL"):
    (folder / label).mkdir(parents=True)
    for index in range(first, first + count):
        write_png(folder / label / f"{index}.png", phantom(index, 48))
    return str(folder)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """(films to train on, films held out)."""
    folder = tmp_path_factory.mktemp("films")
    return (
        write_films(folder / "ours", 0, TRAINED_ON),
        write_films(folder / "theirs", 100, HELD_OUT),
    )


# Changes and plans


def test_a_change_is_a_label_and_fields():
    text = "two rates : generator-learning-rate=1e-4  discriminator_dropout=0.5,0,0"
    assert read_change(text) == (
        "two rates",
        {"generator_learning_rate": "1e-4", "discriminator_dropout": "0.5,0,0"},
    )
    assert read_change("width=8") == ("width=8", {"width": "8"})


@pytest.mark.parametrize("text", ["", "no EMA", "no EMA:", ": width=8", "wide: width", "w: =8"])
def test_a_change_without_label_or_value_is_refused(text):
    with pytest.raises(ValueError, match="--change needs 'LABEL: FIELD=VALUE"):
        read_change(text)


def plan(films, tmp_path, *changes, **options):
    options = {"data": films[0], "fields": TINY, "images": 200} | options
    return plan_ablation("default", changes or (NO_EMA,), tmp_path / "out", **options)


def test_rows_differ_from_the_base_in_their_change_alone(films, tmp_path):
    made = plan(films, tmp_path, NO_EMA, "wide: width=6 batch_size=4", curve=5)
    base = made.recipe("base", 3)
    assert base.difference(RECIPES["default"].override(**TINY)) == {
        "epochs": (10, 100),
        "seed": (3, 0),
    }
    assert made.recipe("no EMA", 3).difference(base) == {"ema_half_life": (0, 2000)}
    assert made.recipe("wide", 3).difference(base) == {"width": (6, 4), "batch_size": (4, 8)}


def test_a_curve_looks_alike_in_rows_that_name_how_to_look(films, tmp_path):
    made = plan(films, tmp_path, "x: sample_interval=9 ema_half_life=0", curve=5)
    assert {made.recipe(row).sample_interval for row in ("base", "x")} == {40}


def test_what_has_an_effect_in_one_row_may_be_set_for_all(films, tmp_path):
    made = plan(films, tmp_path, "R1: penalty=r1", fields={"penalty_weight": 3})
    assert made.recipe("R1").penalty_weight == 3
    # --curve is what evaluates.
    plan(films, tmp_path, NO_EMA, fields={"evaluate_count": 20}, curve=5)


def test_images_seen_are_whole_passes_and_the_same_for_all(films, tmp_path):
    made = plan(films, tmp_path, images=207)
    assert (made.images, made.recipe("base").epochs) == (200, 10)
    assert plan(films, tmp_path, images=1).images == 20
    assert plan(films, tmp_path, images=None, epochs=3).images == 60
    assert plan(films, tmp_path, images=None).images == 20 * RECIPES["default"].epochs


def test_the_fewer_films_decide_how_many_are_scored(films, tmp_path):
    assert plan(films, tmp_path).scored == TRAINED_ON
    assert plan(films, tmp_path, held_out=films[1]).scored == HELD_OUT


def test_the_base_may_be_a_file(films, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(dataclasses.replace(RECIPES["default"], beta_1=0.25).to_json())
    made = plan_ablation(str(path), [NO_EMA], tmp_path / "out", data=films[0], fields=TINY)
    assert made.recipe("no EMA").beta_1 == 0.25
    assert ablating.describe(made)["recipe"] == "mine"


def test_without_data_phantom_films_are_planned_and_not_yet_written(tmp_path):
    made = plan_ablation("default", [NO_EMA], tmp_path / "out", epochs=2)
    assert (made.films, made.images) == (60, 120)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (["wide: widht=8"], {}, "--change 'wide': the recipe has no field 'widht'; did you mean width"),
        (["odd: width=wide"], {}, "--change 'odd': width must be a whole number"),
        ([], {"fields": {"epochs": 9}}, "--images 200 and --set epochs=9 both say how long"),
        (
            [],
            {"images": None, "epochs": 3, "fields": {"training_images": 9}},
            "--epochs 3 and --set training_images=9 both say how long",
        ),
        ([], {"fields": {"seed": 9}}, "name seeds by --seeds"),
        (["long: epochs=9"], {}, "all rows see the same images; say --images or --epochs"),
        (["other: seed=9"], {}, "say --seeds"),
        (["large: image_size=64"], {}, "image_size changes the films that are scored against"),
        (["clear: clahe_clip_limit=2"], {}, "clahe_clip_limit changes the films"),
        (["same: width=4"], {}, "--change 'same' changes nothing"),
        (["watch: evaluate_count=20"], {}, "--change 'watch' changes nothing"),
        (
            ["idle: width=8 penalty_weight=3"],
            {},
            "--change 'idle': penalty_weight would change nothing",
        ),
        ([NO_EMA], {"fields": {"penalty_weight": 3}}, "penalty_weight would change nothing"),
        ([NO_EMA], {"fields": {"evaluate_count": 20}}, "evaluate_count would change nothing"),
        ([NO_EMA, "No ema: width=8"], {}, "needs a label of letters that no other row has"),
        (["base: width=8"], {}, "no other row has"),
        ([NO_EMA], {"epochs": 3}, "--images and --epochs say the same thing"),
        ([NO_EMA], {"images": 0}, "--images must be 1 or more, got 0"),
        ([NO_EMA], {"curve": -1}, "--curve must be 0 or more"),
        ([NO_EMA], {"seeds": (1, 1)}, "--seeds must be different"),
        ([NO_EMA], {"seeds": (0, -1)}, "seed must not be negative, got -1"),
        ([NO_EMA], {"data": None, "classes": ("A",)}, "name them with --data"),
        ([NO_EMA], {"classes": ("COVID",)}, "COVID"),
        ([NO_EMA], {"fields": {"widht": 8}}, "did you mean width"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_first_step(films, tmp_path, changes, options, said):
    with pytest.raises(ValueError) as raised:
        plan(films, tmp_path, *changes, **options)
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_many_sizes_is_refused(films, tmp_path):
    with pytest.raises(ValueError, match="grows in stages"):
        plan_ablation("incremental", [NO_EMA], tmp_path / "out", data=films[0])


def test_held_out_films_that_are_trained_on_are_refused(films, tmp_path):
    write_films(tmp_path / "mixed", TRAINED_ON - 1, HELD_OUT)  # one film of both
    with pytest.raises(ValueError, match=r"1 films of --held-out .* are trained on \(19.png"):
        plan(films, tmp_path, held_out=str(tmp_path / "mixed"))


def test_too_few_films_to_score_are_refused(films, tmp_path):
    few = write_films(tmp_path / "few", 200, 9)
    with pytest.raises(
        ValueError, match="9 films, and scores need 14 or more: .* leave --held-out"
    ):
        plan(films, tmp_path, held_out=few)


def test_the_time_left_is_of_the_trainings_done(films, tmp_path):
    made = plan(films, tmp_path, NO_EMA, "wide: width=6", seeds=(0, 1))
    assert ablating.estimate(made) is None

    def trained(row, seconds, images_seen):
        folder = made.setting.out / made.folder(row, 0)
        folder.mkdir(parents=True)
        numbers = {"seconds": seconds, "images_seen": images_seen}
        (folder / "trained.json").write_text(json.dumps({"numbers": numbers}))

    trained("base", 10.0, 200)
    trained("no EMA", 10.0, 100)
    # The base takes 10 s again and the row without EMA 20 s; the wide one, twice, their mean.
    assert ablating.estimate(made) == pytest.approx(10 + 20 + 2 * 15)


def test_curves_are_averaged_where_all_seeds_have_a_score():
    curves = [[(1, 2.0), (2, 3.0), (3, None)], [(1, 4.0), (3, 5.0)]]
    assert contrasting.mean_curve(curves) == ([1], [3.0])


# A whole ablation


@pytest.fixture(scope="module")
def ablation(films, tmp_path_factory):
    """(plan, results) of a base and one change, held-out films and a curve."""
    made = plan(films, tmp_path_factory.mktemp("a"), images=40, held_out=films[1], curve=2)
    return made, run_ablation(made)


def tables(written):
    return {table["title"].partition(":")[0]: table for table in written["tables"]}


def test_all_rows_see_the_same_images_and_are_scored_alike(ablation):
    _, written = ablation
    assert not written["failed"], written["cells"]
    assert [cell["row"] for cell in written["cells"]] == ["base", "no EMA"]
    for cell in written["cells"]:
        assert cell["images_seen"] == 40 and cell["films"] == TRAINED_ON
        for prefix in ("", "also_"):
            assert cell[f"{prefix}real_images"] == HELD_OUT
            assert cell[f"{prefix}generated_images"] == HELD_OUT
            assert cell[f"{prefix}draws"] == 50  # of so few images, one set says little
        assert cell["also_frechet"] != cell["frechet"]


def test_each_set_of_films_has_its_floor_as_the_first_row(ablation):
    _, written = ablation
    for name, prefix in (("the films trained on", ""), ("films never trained on", "also_")):
        table = tables(written)[f"Scores against {name}"]
        assert "8 images on each side" in table["title"]
        first, *rows = table["rows"]
        assert first[0] == "real half against half" and first[1] == "-"
        assert [row[:2] for row in rows] == [["base", "1"], ["no EMA", "1"]]
        floors = [cell[f"{prefix}recall_floor"] for cell in written["cells"]]
        shown = first[table["header"].index("recall")]
        assert float(shown) == pytest.approx(np.mean(floors), abs=1e-3)
        assert "1 seed cannot say" in table["note"]
    assert list(tables(written))[2] == "Difference from the base, against films never trained on"
    errors = tables(written)["The same of all images, against films never trained on"]
    assert errors["header"].count("its standard error") == 2
    # What films trained on score is what a generator may hope for.
    assert errors["rows"][0][0] == "films trained on"
    reals = [cell["also_frechet_reals"] for cell in written["cells"]]
    assert float(errors["rows"][0][2]) == pytest.approx(np.mean(reals), rel=0.01)


def test_nearest_distances_stand_beside_those_of_held_out_films(ablation):
    _, written = ablation
    table = tables(written)["Nearest film trained on"]
    assert table["rows"][0][0] == "held-out films"
    assert "In pixels they are too few" in table["note"]  # sixteen calibrate no threshold
    for cell in written["cells"]:
        # Noise is never nearer to a film than another film is.
        assert cell["nearest_features"] > cell["nearest_features_real"] > 0
        assert cell["nearer_features"] < 0.5
        assert 0 <= cell["authenticity_real"] <= 1


def test_curves_hold_the_scores_and_the_nearest_distance(ablation):
    made, written = ablation
    for cell in written["cells"]:
        assert len(cell["curve"]) == 2 and cell["curve"][-1]["images_seen"] == 40
        assert cell["curve"][-1]["frechet"] > 0
        assert [seen for seen, _ in cell["nearest_curve"]][::2] == [0, 40]
    files = [name for name, _ in written["figures"]]
    assert files == ["samples.png", "curves.png"]
    assert all((made.setting.out / name).is_file() for name in files)


def test_results_name_the_change_and_no_folder_of_the_machine(ablation, films):
    made, written = ablation
    assert "no EMA: ema_half_life 0 (base: 2000)" in written["findings"]
    page = (made.setting.out / "results.md").read_text()
    assert "real half against half" in page and "paper" not in page
    for name in reproducing.RESULTS:
        text = (made.setting.out / name).read_text()
        assert str(made.setting.out.parent) not in text and str(films[1])[:-6] not in text


def test_a_second_call_trains_and_scores_nothing_again(ablation, monkeypatch):
    made, written = ablation
    monkeypatch.setattr(workflows, "train", None, raising=False)
    monkeypatch.setattr(workflows, "evaluate", None, raising=False)
    assert run_ablation(made) == written
    assert ablating.describe(made)["complete"] == 2


def test_a_row_that_fails_leaves_the_others_their_tables(ablation, films, tmp_path):
    made, _ = ablation
    shutil.copytree(made.setting.out, tmp_path / "out")
    changes = (NO_EMA, "broken: batch_size=128")
    again = plan(films, tmp_path, *changes, images=40, held_out=films[1], curve=2)
    written = run_ablation(again)
    assert written["failed"] == ["broken-seed-0"]
    scores = tables(written)["Scores against films never trained on"]["rows"]
    assert [row[0] for row in scores[1:]] == ["base", "no EMA", "broken (failed)"]
    assert "20 images are fewer than one batch of 128" in (tmp_path / "out/results.md").read_text()


def test_rows_not_asked_for_are_shown_if_complete_and_not_trained(ablation, films, tmp_path):
    made, _ = ablation
    shutil.copytree(made.setting.out, tmp_path / "out")
    asked = {"images": 40, "held_out": films[1], "curve": 2}
    again = plan(films, tmp_path, NO_EMA, "wide: width=6", only=("base",), **asked)
    assert {ablating.describe(again)[name] for name in ("trainings", "complete")} == {1}
    assert [cell["row"] for cell in run_ablation(again)["cells"]] == ["base", "no EMA"]
    with pytest.raises(ValueError, match="--only 'EMA' is no row; the rows are base, no EMA"):
        plan(films, tmp_path, NO_EMA, only=("EMA",))


# The command


def run(*arguments):
    return CliRunner().invoke(main, ["ablate", *map(str, arguments)])


def test_a_dry_run_prints_the_plan_and_writes_nothing(films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = (
        "--data", films[0], "--held-out", films[1], "--change", NO_EMA, "--images", 100,
        "--seeds", "0,1,2", "--dry-run",
    )  # fmt: skip
    shown = run(*given)
    assert shown.exit_code == 0 and shown.stderr == ""
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    assert ["base", "recipe default"] in lines
    assert "no EMA  ema_half_life 0 (base: 2000)" in shown.stdout
    assert ["films", "20, and 16 held out"] in lines
    assert "100 by each training (5 epochs)" in shown.stdout
    assert ["trainings", "6: 2 rows, seeds 0, 1, 2"] in lines
    about = json.loads(run(*given, "--json").stdout)
    assert about["rows"]["no EMA"] == {"ema_half_life": [2000, 0]}
    assert (about["trainings"], about["seconds_left"]) == (6, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--change", "wide: widht=8"], "did you mean width?"),
        (["--change", "wide"], "--change needs 'LABEL: FIELD=VALUE FIELD=VALUE'"),
        (["--recipe", "venue2020"], "did you mean venu2020?"),
        (["--seeds", "a"], "--seeds needs whole numbers"),
        (["--data", "nowhere"], "nowhere"),
        (["--set", "epochs=3", "--epochs", "4"], "epochs is given twice"),
    ],
)
def test_the_command_says_one_line_for_what_a_user_can_mend(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    shown = run(*arguments)
    assert shown.exit_code in (1, 2) and said in shown.output
    assert "Traceback" not in shown.output and list(tmp_path.iterdir()) == []


def test_the_command_prints_tables_or_only_json(ablation, films):
    made, written = ablation
    given = [f"--set={name}={value}" for name, value in TINY.items()]
    given += ["--data", films[0], "--held-out", films[1], "--change", NO_EMA, "--images", 40]
    given += ["--curve", 2, "--out", made.setting.out]
    shown = run(*given)
    assert shown.exit_code == 0, shown.output
    assert "real half against half" in shown.stdout and "Difference from the base" in shown.stdout
    assert json.loads(run(*given, "--json").stdout) == written
