"""A whole study: nobody tested is ever trained on, arms differ in their films alone, and say so."""

import json

import numpy as np
import pytest
from small_studies import PATIENT, TINY, noise, plan

from keras_cxrgan.data.images import write_png
from keras_cxrgan.study import fitting
from keras_cxrgan.workflows import (
    concluding,
    designing,
    recognising,
    studying,
)
from keras_cxrgan.workflows.splitting import split

# A world end to end


@pytest.fixture(scope="module")
def world(folds, network, tmp_path_factory):
    """(study, results, calls of fit_classifier) of real, copies, and noise as generated images."""
    calls = []  # the cells', then the parts' of `recognise`
    real = fitting.fit_classifier

    def spy(images, labels, **options):
        calls.append((images, labels, options))
        return real(images, labels, **options)

    study = plan(
        folds,
        tmp_path_factory.mktemp("world") / "out",
        network,
        arms=("copies", "gan"),
        ratios=(3,),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit_classifier", spy)
        results = studying.run_study(study, make=noise)
    return study, results, calls


def test_copies_show_nothing_and_noise_never_helps(world):
    _, results, _ = world
    rows = {row["row"]: row for row in results["sets"]["test"][0]["rows"]}
    assert rows["copies x3"]["answer"]["verdict"] == "no difference shown"
    assert rows["gan x3"]["answer"]["verdict"] in ("hurts", "no difference shown")
    assert rows["real"]["scores"][0]["balanced_accuracy"] > 0.8
    assert results["answer"] == [
        rows[name]["answer"]["sentence"] for name in ("copies x3", "gan x3")
    ]
    assert results["failed"] == []


def test_no_film_or_patient_that_is_tested_ever_reaches_a_fit(world, films):
    study, _, calls = world
    images = studying._load(study.films, study.recipe)
    keys = [image.tobytes() for image in images]
    parts = {part.name: part for part in study.parts}
    for cell, (shown, _, options) in zip(study.cells, calls):
        test = set(parts[cell.part].test)
        patients = {study.films.patients[i] for i in test}
        inside = [i for i, key in enumerate(keys) if key in {s.tobytes() for s in shown}]
        inside += [
            i
            for i, key in enumerate(keys)
            if key in {s.tobytes() for s in options["validation"][0]}
        ]
        assert inside and not test & set(inside)
        assert not patients & {study.films.patients[i] for i in inside}


def test_arms_have_the_same_steps_and_tuning_however_many_films_they_have(world):
    study, results, calls = world
    names = ("steps", "batch_size", "learning_rate", "seed", "frozen_steps")
    calls = calls[: len(study.cells)]
    for first, second, third in zip(calls[::3], calls[1::3], calls[2::3]):
        assert len(second[0]) == len(third[0]) == 4 * len(first[0])
        for other in (second, third):
            assert [other[2][name] for name in names] == [first[2][name] for name in names]
            np.testing.assert_array_equal(other[2]["validation"][0], first[2]["validation"][0])
    assert {cell["fit"]["steps"] for cell in results["cells"]} == {30}


def test_each_film_is_tested_once_for_each_seed(world):
    study, results, _ = world
    one = concluding.gather(study, results["cells"], "test")[0]
    assert sorted(one.hashes) == sorted(study.films.hashes)
    assert one.probabilities.shape == (2, 40, 2)


def test_figures_and_page_are_written(world):
    study, results, _ = world
    page = (study.out / "results.md").read_text()
    for name, _ in results["figures"]:
        assert (study.out / name).is_file() and page.count(f"({name})") == 1
    assert page.index("(differences.png)") < page.index("## What was done")
    assert results["answer"][0] in page
    assert "classifier network.keras (weights of the file), learning rate 0.01, 32 px" in page


def test_what_is_complete_is_not_done_again(world):
    study, results, calls = world
    before = len(calls)
    again = studying.run_study(study, make=noise)
    assert len(calls) == before
    assert again["sets"] == results["sets"]
    assert designing.describe(study)["complete"] == len(study.cells) == 12


def speckled(count, label, seed):
    """Films of a class that is told from the other by one corner, in much noise."""
    random = np.random.default_rng([seed, label])
    films = random.normal(128, 40, (count, 8, 8))
    films[:, :3, :3] += 25 * (1 if label else -1)
    films = np.repeat(np.repeat(films, 4, axis=1), 4, axis=2)
    return np.clip(films, 0, 255).astype(np.uint8)


def test_images_of_endlessly_many_other_patients_help(network, tmp_path):
    for label, name in enumerate(("LOW", "HIGH")):
        (tmp_path / name).mkdir()
        for index, film in enumerate(speckled(50, label, 0)):
            write_png(tmp_path / name / f"{index}.png", film)
    table = tmp_path / "manifest.csv"
    split(tmp_path, table, fractions={"train": 0.2, "test": 0.8})

    def perfect(study, cell, counts, report):
        # HIGH comes before LOW in the study's order of classes.
        return [speckled(count, 1 - number, 1 + cell.seed) for number, count in enumerate(counts)]

    study = plan(
        str(table), tmp_path / "out", network, arms=("gan",), ratios=(40,), seeds=(0, 1, 2),
        steps=200,
    )  # fmt: skip
    results = studying.run_study(study, make=perfect)
    (sentence,) = results["answer"]
    assert sentence.startswith("gan x40 helps: balanced accuracy rises by ")


# Going on


def test_a_stopped_study_ends_as_one_that_never_stopped(halves, network, tmp_path):
    def stops(study, cell, counts, report):
        raise KeyboardInterrupt

    studies = [plan(halves, tmp_path / name, network, arms=("gan",)) for name in ("whole", "cut")]
    whole = studying.run_study(studies[0], make=noise)
    with pytest.raises(KeyboardInterrupt):
        studying.run_study(studies[1], make=stops)
    assert designing.describe(studies[1])["complete"] == 1
    cut = studying.run_study(studies[1], make=noise)
    assert cut["sets"] == whole["sets"]
    for cell in studies[0].cells:
        first, second = (
            (study.out / "cells" / cell.name / "predictions.csv").read_bytes() for study in studies
        )
        assert first == second


def test_other_settings_make_a_cell_anew(halves, network, tmp_path):
    fields = {name: value for name, value in TINY.items() if name != "epochs"}
    options = {"arms": ("gan", "classic"), "seeds": (0,), "fields": fields}
    study = plan(halves, tmp_path, network, **options)
    longer = plan(halves, tmp_path, network, **options, steps=31)
    other = plan(halves, tmp_path, network, **options, gan_images=99)
    same = [
        [designing.decides(study, cell) == designing.decides(changed, cell) for cell in study.cells]
        for changed in (longer, other)
    ]
    assert same == [[False, False, False], [True, False, True]]


def test_a_cell_that_fails_is_a_row_and_the_others_have_a_table(halves, network, tmp_path):
    def fails(study, cell, counts, report):
        raise ValueError("no images\nhere")

    study = plan(halves, tmp_path, network, arms=("gan", "copies"), seeds=(0,))
    results = studying.run_study(study, make=fails)
    assert results["failed"] == ["gan-x1-test-100-seed-0"]
    page = (tmp_path / "results.md").read_text()
    assert "| gan x1: failed: gan-x1-test-100-seed-0: no images here | - |" in page
    assert "- gan-x1-test-100-seed-0: no images here" in page
    assert len(results["answer"]) == 1 and "copies" in results["answer"][0]


# GANs of the study's own


@pytest.fixture(scope="module")
def with_gans(halves, network, tmp_path_factory):
    study = plan(halves, tmp_path_factory.mktemp("gans"), network, arms=("gan",), seeds=(0,))
    return study, studying.run_study(study)


def test_gans_see_a_class_of_the_films_that_are_fitted_and_no_other(with_gans):
    study, results = with_gans
    assert results["failed"] == []
    page = (study.out / "results.md").read_text()
    assert "- 2 GANs of the recipe default, epochs each: 1" in page
    (cell,) = [cell for cell in study.cells if cell.arm == "gan"]
    fitted, validating = study.chosen(cell)
    for number in range(2):
        run = study.out / "gans" / cell.training / str(number)
        seen = {digest for _, digest in json.loads((run / "data.json").read_text())["images"]}
        assert seen == {study.films.hashes[i] for i in fitted if study.films.labels[i] == number}
        assert not seen & {study.films.hashes[i] for i in (*validating, *study.parts[0].test)}
    made = next(each for each in results["cells"] if each["arm"] == "gan")
    assert np.sum(results["labels"][0]["generated"]) == len(fitted)
    assert made["added"] == made["real_films"] == len(fitted)


def test_runs_that_saw_a_tested_film_or_patient_are_refused(
    with_gans, halves, films, network, tmp_path
):
    study, _ = with_gans
    folder = study.out / "gans" / study.trainings[0][0].training
    runs = {name: str(folder / str(number)) for number, name in enumerate(study.films.classes)}
    # The same parts: these runs saw none of the tested films.
    plan(halves, tmp_path, network, generators=runs)
    with pytest.raises(ValueError, match="32 pixels and the study is of 64: pass --set image_size"):
        plan(halves, tmp_path, network, generators=runs, fields={"image_size": 64})
    with pytest.raises(ValueError, match="there is no .*typo: give the directory of a run"):
        plan(halves, tmp_path, network, generators=runs | {"DARK": str(tmp_path / "typo")})
    other = films / "others.csv"
    if not other.exists():
        split(films, other, fractions={"train": 0.5, "test": 0.5}, patient_regex=PATIENT, seed=5)
    with pytest.raises(
        ValueError, match="was trained on .* of the films, or their patients"
    ) as error:
        plan(str(other), tmp_path, network, generators=runs)
    assert "\n" not in str(error.value)


def test_an_export_which_lists_no_films_is_refused(with_gans, halves, network, tmp_path):
    study, _ = with_gans
    export = study.out / "gans" / study.trainings[0][0].training / "0" / "export"
    runs = dict.fromkeys(study.films.classes, str(export))
    with pytest.raises(ValueError, match="give the run and not its export"):
        plan(halves, tmp_path, network, generators=runs)


def test_labels_of_images_are_read_by_a_classifier_that_shares_no_film_with_their_gan(
    world, network
):
    study, results, calls = world

    def other_class(study, cell, counts, report):
        """Real films, each under the label of the other class."""
        truth = np.array(study.films.labels)
        return [images[truth == 1 - number][:count] for number, count in enumerate(counts)]

    images = studying._load(study.films, study.recipe)
    (study.out / "labels" / "fold0.json").unlink()
    first, second = recognising.recognise(study, images, other_class)
    assert second["generated"] == results["labels"][1]["generated"]  # kept
    wrong = np.array(first["generated"])
    assert wrong[0, 1] > wrong[0, 0] and wrong[1, 0] > wrong[1, 1]
    real = np.array(first["real"])
    assert np.trace(real) > 0.8 * real.sum()
    # Asked about as many as there are films to fit on, one call of fit_classifier for each part.
    assert wrong.sum() == real.sum() == len(study.chosen(study.cells[0])[0])
    assert len(calls) == len(study.cells) + len(study.parts)


def test_parts_that_test_too_few_films_to_learn_a_class_by_do_not_judge_labels(world, monkeypatch):
    study, _, _ = world
    monkeypatch.setattr(recognising, "decides", lambda *_: "anew")
    monkeypatch.setattr(recognising, "count_classes", lambda _, places: [len(places), 0])
    told = []
    assert recognising.recognise(study, None, None, lambda *args: told.append(args[-1])) == []
    assert told[0].startswith("fold0: too few films of a class")
