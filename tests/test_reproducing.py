"""The harness of the experiments: cells, resume, failures, what is written."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_networks import save_extractor

from keras_cxrgan import workflows
from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.sources import read_source
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.workflows import choosing, reproducing
from keras_cxrgan.workflows.reproducing import Cell, Experiment, Setting

TINY = {"image_size": 32, "width": 2, "latent_dim": 4, "batch_size": 8, "epochs": 2}
EXPERIMENT = Experiment(
    name="trial",
    citation="A. Nobody, 2020.",
    recipe="noori2024",
    data="1,341 NORMAL films",
    published={"short": {"frechet": 1.2}},
    left_open=("The batch.",),
    cannot_compare=("Another network.",),
    scales={
        "smoke": {"recipe": TINY, "phantom": {"normal": 16}, "generate": 20},
        "small": {"recipe": {"width": 16}, "phantom": {"normal": 16}, "generate": 20},
        "paper": {"recipe": {}, "phantom": {"normal": 16}, "generate": 20},
    },
    classes=("NORMAL",),
)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A path of a small seeded network that gives features, and how its images are prepared."""
    path = save_extractor(tmp_path_factory.mktemp("network") / "small.keras", (8, 4))
    return {"features": path, "score_options": {"preparation": "range=-1:1", "cache": False}}


def two_stages(setting):
    """Yield two cells of one run, the second of twice the epochs."""
    films = setting.films()
    for row, epochs in (("short", 2), ("long", 4)):
        yield Cell(
            f"{row}-0",
            setting.recipe(epochs=epochs),
            films,
            row,
            generate=setting["generate"],
            run="run-0",
        )


def contents(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


@pytest.fixture(scope="module")
def finished(network, tmp_path_factory):
    """(setting, what was written) of an experiment that ran; tests do not change it."""
    setting = Setting(EXPERIMENT, tmp_path_factory.mktemp("experiment") / "out", **network)
    return setting, reproducing.reproduce(setting, two_stages)


def test_cells_train_and_score_and_the_page_is_written(finished):
    setting, written = finished
    short, long = written["cells"]
    assert not written["failed"], written["cells"]
    assert (short["epochs"], long["epochs"]) == (2, 4)
    assert (short["images_seen"], short["generator_updates"]) == (32, 4)
    assert short["frechet"] > 0 and short["frechet_error"] > 0 and short["frechet_floor"] > 0
    assert (short["real_images"], short["generated_images"]) == (16, 20)
    page = (setting.out / "results.md").read_text()
    assert "published (other extractor)" in page and "1.2" in page
    assert "phantom films: computed, not of patients" in page
    assert json.loads((setting.out / "results.json").read_text()) == written


def test_results_name_no_folder_of_the_machine(tmp_path):
    def warn(cell, folder, setting):
        return {"warnings": [f"{setting.data}: 1 file twice", f"{folder}: odd"], "classes": []}

    films = tmp_path / "films"
    films.mkdir()
    setting = Setting(EXPERIMENT, tmp_path / "out", data=str(films), classes=("any",))
    cells = [Cell("one", setting.recipe(), setting.data, work=warn)]
    (cell,) = reproducing.reproduce(setting, lambda _: cells)["cells"]
    assert cell["warnings"] == ["films: 1 file twice", "one: odd"]
    assert str(tmp_path) not in (tmp_path / "out" / "results.json").read_text()


def test_settings_that_are_not_the_papers_are_said(finished):
    _, written = finished
    assert written["departures"]["width"] == [2, 64]
    assert "width 2 (paper: 64)" in (finished[0].out / "results.md").read_text()


def test_a_second_call_trains_and_scores_nothing_again(finished, monkeypatch):
    setting, written = finished
    before = contents(setting.out)
    monkeypatch.setattr(workflows, "train", None, raising=False)
    monkeypatch.setattr(workflows, "evaluate", None, raising=False)
    assert reproducing.reproduce(setting, two_stages) == written
    assert contents(setting.out) == before


def test_other_scores_of_an_early_stage_need_no_training_though_the_run_went_on(
    finished, network, tmp_path, monkeypatch
):
    setting, _ = finished
    out = shutil.copytree(setting.out, tmp_path / "out")
    monkeypatch.setattr(reproducing, "train", None)
    moved = Setting(EXPERIMENT, out, **network)
    cells = [dataclasses.replace(cell, generate=24) for cell in two_stages(moved)]
    again = reproducing.reproduce(moved, lambda _: cells)
    assert [cell["generated_images"] for cell in again["cells"]] == [24, 24]
    assert [cell["epochs"] for cell in again["cells"]] == [2, 4]


def test_a_moved_folder_of_phantom_films_is_still_complete(
    finished, network, tmp_path, monkeypatch
):
    setting, written = finished
    out = shutil.copytree(setting.out, tmp_path / "out")
    monkeypatch.setattr(reproducing, "train_and_score", None)
    again = reproducing.reproduce(Setting(EXPERIMENT, out, **network), two_stages)
    assert again["cells"] == written["cells"]


def test_a_stage_is_refused_when_its_run_has_gone_further(finished, network, tmp_path):
    setting, _ = finished
    out = shutil.copytree(setting.out, tmp_path / "out")
    shutil.rmtree(out / "short-0")
    again = reproducing.reproduce(Setting(EXPERIMENT, out, **network), two_stages)
    assert again["failed"] == ["short-0"]
    assert "trained for 4 epochs already" in again["cells"][0]["error"]


def fake(folder, tmp_path, work, **changes):
    """Run cells that do `work` instead of a training."""
    cell = Cell("a", RECIPES["noori2024"], "films", "short", work=work)
    setting = Setting(EXPERIMENT, tmp_path / folder, **changes)
    return setting, reproducing.reproduce(
        setting, lambda _: [cell, dataclasses.replace(cell, name="b", row="long")]
    )


def test_films_too_few_to_score_fail_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(workflows, "train", lambda *arguments, **options: 1 / 0)
    few = choosing.write_phantom(tmp_path / "films", {"normal": 13})
    setting = Setting(EXPERIMENT, tmp_path / "out", data=str(few))
    written = reproducing.reproduce(setting, two_stages)
    assert written["failed"] == ["short-0", "long-0"]
    reason = "13 films, and scores need 14 or more: add films"
    assert reason in (setting.out / "results.md").read_text()


def test_a_failed_cell_is_a_row_and_the_others_keep_their_table(tmp_path):
    def work(cell, folder, setting):
        if cell.name == "a":
            raise RuntimeError("out of\nmemory")
        return {"frechet": 2.0, "films": 60}

    setting, written = fake("out", tmp_path, work)
    assert written["failed"] == ["a"]
    assert written["cells"][0]["error"] == "RuntimeError: out of memory"
    assert written["tables"][0]["rows"][1][:2] == ["long", "1"]
    assert "failed: RuntimeError: out of memory" in (setting.out / "results.md").read_text()
    # It is tried again, and the complete one is not.
    tried = []
    fake("out", tmp_path, lambda cell, *_: tried.append(cell.name) or {"frechet": 1.0})
    assert tried == ["a", "b"]  # `b` too: other work decides other numbers


def test_an_interrupted_cell_ends_everything_and_is_no_failure(tmp_path):
    def work(cell, folder, setting):
        raise reproducing.Stopped("stopped")

    with pytest.raises(reproducing.Stopped):
        fake("out", tmp_path, work)
    assert not (tmp_path / "out" / "a" / "cell.json").exists()


def test_rows_that_were_not_asked_for_are_shown_when_complete_and_not_run(tmp_path):
    done = []

    def work(cell, folder, setting):
        done.append(cell.name)
        return {"frechet": 1.0}

    fake("out", tmp_path, work, only=("long",))
    assert done == ["b"]
    _, written = fake("out", tmp_path, work, only=("short",))
    assert done == ["b", "a"] and [cell["name"] for cell in written["cells"]] == ["a", "b"]
    with pytest.raises(ValueError, match=r"no row shrt \(--only\): the rows are short, long"):
        fake("out", tmp_path, work, only=("shrt",))


def test_a_row_made_with_other_settings_is_left_out(tmp_path):
    """Beside the others it would be compared with them, under a page that names these settings."""

    def work(cell, folder, setting):
        return {"frechet": 1.0}

    fake("out", tmp_path, work, features="inception")
    told = []
    _, written = fake(
        "out", tmp_path, work, only=("short",), report=lambda *args, **_: told.append(args[-1])
    )
    assert [cell["name"] for cell in written["cells"]] == ["a"]
    assert "b was made with other settings: the page leaves it out" in told


def test_a_seed_for_all_cells_is_refused(tmp_path):
    setting = Setting(EXPERIMENT, tmp_path / "out", recipe_changes={"seed": "7"})
    with pytest.raises(ValueError, match="name seeds by --seeds"):
        reproducing.reproduce(setting, two_stages)


def test_an_unknown_field_is_refused_before_anything_is_written(tmp_path):
    setting = Setting(EXPERIMENT, tmp_path / "out", recipe_changes={"widht": "8"})
    with pytest.raises(ValueError, match="did you mean width"):
        reproducing.reproduce(setting, two_stages)
    assert not (tmp_path / "out").exists()


def test_asked_changes_win_over_the_scales_and_the_cells():
    setting = Setting(EXPERIMENT, None, recipe_changes={"epochs": "7"})
    assert setting.recipe(epochs=4).epochs == 7
    # Who names epochs means them, and not a number of images of the scale or the cell.
    assert setting.recipe(training_images=400).total_images(100) == 700
    assert setting.recipe().width == 2
    assert Setting(EXPERIMENT, None, "paper").recipe() == RECIPES["noori2024"]


@pytest.fixture
def films(tmp_path):
    """Ten films of NORMAL and six of Covid."""
    for label, count in (("NORMAL", 10), ("Covid", 6)):
        (tmp_path / "films" / label).mkdir(parents=True)
        for index in range(count):
            image = np.full((8, 8), 20 * index + len(label), np.uint8)
            write_png(tmp_path / "films" / label / f"{index}.png", image)
    return str(tmp_path / "films")


def test_subsets_are_nested_seeded_and_readable_as_films(films, tmp_path):
    def subsets(folder, seed):
        lists = choosing.nested_subsets(films, ("NORMAL",), [3, 6, 10], tmp_path / folder, seed)
        return [{record.path for record in read_source(lists[n])[0].records} for n in (3, 6, 10)]

    small, middle, large = subsets("a", 0)
    assert small < middle < large
    assert (len(small), len(middle), len(large)) == (3, 6, 10)
    assert subsets("b", 0)[0] == small
    assert subsets("c", 1)[0] != small


def test_a_subset_of_more_films_than_there_are_is_refused(films, tmp_path):
    with pytest.raises(ValueError, match="holds 16 films and a subset of 20"):
        choosing.nested_subsets(films, (), [4, 20], tmp_path / "a", 0)


def test_all_films_are_taken_as_they_are_where_a_choice_would_be_all(films, tmp_path):
    folder = tmp_path / "subsets"
    assert choosing.some_films(films, ("NORMAL",), 10, folder, 0) == (films, 10)
    chosen, count = choosing.some_films(films, ("NORMAL",), 4, folder, 0)
    assert count == 4 and len(read_source(chosen)[0].records) == 4


def test_the_papers_class_is_found_whatever_its_case_and_else_the_largest_stands_in(films):
    assert choosing.choose_classes(films, ("COVID",)) == ("Covid",)
    assert choosing.choose_classes(films, ("COVID",), fewest=7) == ("NORMAL",)
    assert choosing.choose_classes(films, ("VIRAL",)) == ("NORMAL",)
    assert choosing.choose_classes(films, ()) == ()
    assert choosing.choose_classes(f"{films}/NORMAL", ("COVID",)) == ()


def run(*arguments):
    main = reproducing.command(
        EXPERIMENT,
        lambda setting: [Cell("a", setting.recipe(), "films", work=lambda *_: {"frechet": 2.0})],
    )
    return CliRunner().invoke(main, list(arguments))


def test_the_command_prints_the_page_or_only_json(tmp_path):
    shown = run("--out", str(tmp_path / "out"))
    assert shown.exit_code == 0 and shown.stdout.startswith("# trial")
    shown = run("--out", str(tmp_path / "out"), "--json")
    assert json.loads(shown.stdout)["cells"][0]["frechet"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0,x"], "--seeds needs whole numbers"),
        (["--seeds", "1,1"], "--seeds must be different"),
        (["--set", "width"], "--set needs FIELD=VALUE"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_one_line_for_what_a_user_can_mend(tmp_path, arguments, said):
    shown = run("--out", str(tmp_path / "out"), *arguments)
    assert shown.exit_code == 1
    assert said in shown.stderr and "Traceback" not in shown.stderr


def test_the_command_exits_with_an_error_when_a_cell_failed(tmp_path):
    def work(*_):
        raise ValueError("no films")

    main = reproducing.command(
        EXPERIMENT, lambda setting: [Cell("a", setting.recipe(), "films", work=work)]
    )
    shown = CliRunner().invoke(main, ["--out", str(tmp_path / "out")])
    assert shown.exit_code == 1 and "failed: a" in shown.stderr
    assert "failed: no films" in shown.stdout


def test_films_changed_in_their_place_are_other_films(tmp_path):
    films = choosing.write_phantom(tmp_path / "films", {"normal": 4, "covid": 4})
    first = reproducing._films(str(films))
    assert reproducing._films(str(films)) == first != ""
    film = next(Path(films).rglob("*.png"))
    data = film.read_bytes()
    film.unlink()
    assert reproducing._films(str(films)) != first
    film.write_bytes(data)
    assert reproducing._films(str(films)) == first
    # The same films, one of them in another class.
    other = next(folder for folder in Path(films).iterdir() if folder != film.parent)
    film.rename(other / "moved.png")
    assert reproducing._films(str(films)) != first
    assert reproducing._films(None) == reproducing._films(str(tmp_path / "none")) == ""
