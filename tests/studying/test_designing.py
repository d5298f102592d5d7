"""The plan of a study: who is trained on, what an arm holds, and which classifier."""

import numpy as np
import pytest
from small_studies import TINY, noise, plan

from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.phantom import phantom
from keras_cxrgan.models import classifier
from keras_cxrgan.workflows import (
    designing,
    dividing,
    studying,
    supplying,
)
from keras_cxrgan.workflows.designing import plan_study

# Who is trained on, and who is not


def test_sizes_are_nested_whole_patients_of_every_class(folds):
    films, parts = dividing.read_films(folds)
    for part in parts:
        chosen = [dividing.choose(films, part, size) for size in (0.6, 1.0)]
        smaller, larger = ({*fitted, *validating} for fitted, validating in chosen)
        assert smaller < larger == set(part.training)
        # Of each class, three of its five patients, of two films each.
        assert dividing.count_classes(films, sorted(smaller)) == [6, 6]
        outside = {films.patients[i] for i in larger - smaller}
        assert not outside & {films.patients[i] for i in smaller}


def test_the_films_that_choose_are_of_other_patients_and_of_every_class(folds):
    films, parts = dividing.read_films(folds)
    for part in parts:
        fitted, validating = dividing.choose(films, part, 1.0)
        assert not {films.patients[i] for i in fitted} & {films.patients[i] for i in validating}
        assert all(dividing.count_classes(films, validating))


def test_a_patient_on_both_sides_is_refused_at_the_last_moment_too(folds):
    films, _ = dividing.read_films(folds)
    first = films.patients[0]
    own = [i for i, patient in enumerate(films.patients) if patient == first]
    with pytest.raises(ValueError, match="1 patient .* would be trained and tested on"):
        dividing.check_apart(films, own[:1], own[1:])


def test_a_copy_under_another_name_is_refused(folds):
    films, parts = dividing.read_films(folds)
    training, test = parts[0].training, parts[0].test
    hashes = list(films.hashes)
    hashes[test[0]] = hashes[training[0]]
    films = dividing.Films(films.source, films.classes, films.records, tuple(hashes))
    with pytest.raises(ValueError, match="under another name"):
        dividing.check_apart(films, training, test)


def test_a_generator_that_saw_another_film_of_a_tested_patient_has_crossed_too(folds):
    films, _ = dividing.read_films(folds)
    own = [i for i, patient in enumerate(films.patients) if patient == films.patients[0]]
    names = dividing.crossed_films(films, {films.hashes[own[0]]}, own[1:])
    assert names == [films.records[own[1]].name]
    others = [i for i in range(40) if i not in own]
    assert dividing.crossed_films(films, {films.hashes[own[0]]}, others) == []


def test_folds_are_made_of_any_source_by_patient(films, folds):
    _, parts = dividing.read_films(folds, folds=4)
    assert [part.name for part in parts] == ["fold0", "fold1", "fold2", "fold3"]
    assert sorted(i for part in parts for i in part.test) == list(range(40))


def test_a_set_that_comes_divided_is_tested_as_it_is(tmp_path):
    for split_name, count in (("train", 6), ("test", 2)):
        for label in ("BRIGHT", "DARK"):
            folder = tmp_path / split_name / label
            folder.mkdir(parents=True)
            for index in range(count):
                film = phantom(len(split_name + label) * 100 + index, 32)
                write_png(folder / f"{split_name}-{label}-{index}.png", film)
    films, (part,) = dividing.read_films(str(tmp_path))
    assert (part.name, len(part.training), len(part.test)) == ("test", 12, 4)
    assert {films.records[i].split for i in part.test} == {"test"}
    assert films.classes == ("BRIGHT", "DARK")


def test_external_films_share_no_patient_and_decide_nothing(folds, films, network, tmp_path):
    with pytest.raises(ValueError, match="are in .* too"):
        plan(folds, tmp_path, network, external=str(films))
    other = tmp_path / "other"
    for label, level in (("BRIGHT", 200), ("DARK", 40)):
        (other / label).mkdir(parents=True)
        for index in range(3):
            write_png(other / label / f"{index}.png", np.full((32, 32), level + index, np.uint8))
    study, plain = (
        plan(folds, tmp_path / name, network, arms=(), seeds=(0,), external=external)
        for name, external in (("with", str(other)), ("without", None))
    )
    results, without = (studying.run_study(each) for each in (study, plain))
    assert results["sets"]["external"][0]["rows"][0]["scores"][0]["films"] == 6
    assert results["sets"]["test"] == without["sets"]["test"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arms": ("gann",)}, "--arms has no 'gann'"),
        ({"sizes": (1.5,)}, r"--sizes needs different shares above 0, up to 1 .*: got 1\.5"),
        ({"seeds": ()}, "--seeds needs different whole numbers .* got none"),
        ({"seeds": (2**32,)}, "from 0 to 4,294,967,295: got 4294967296"),
        ({"ratios": (1, 1)}, "--ratios needs different numbers .* got 1, 1"),
        ({"steps": 0}, "--steps needs 1 or more: got 0"),
        ({"classifier": "resnet"}, "neither cnn, inception, nor a .keras file"),
        ({"sizes": (0.1,)}, "films to fit on in fold0 at 10 % .* and 4 are needed"),
        ({"fields": TINY | {"batch_size": 64}, "arms": ("gan",)}, "fewer than one batch of 64"),
        ({"generators": {"DARK": "run"}}, "one run for each of BRIGHT, DARK is needed"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(folds, tmp_path, options, said):
    options = {"fields": TINY, "arms": ("copies",)} | options
    with pytest.raises(ValueError, match=said) as error:
        plan_study(folds, tmp_path / "out", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_or_is_no_manifest_is_named(films, tmp_path):
    with pytest.raises(ValueError, match="there is no .*nothing.csv: give a manifest"):
        plan_study(str(tmp_path / "nothing.csv"), tmp_path / "out")
    with pytest.raises(ValueError, match="is no manifest: .* --folds 5"):
        plan_study(str(films / "DARK"), tmp_path)


# Arms


def test_arms_hold_what_their_names_say(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=tuple(supplying.ARMS), fields=TINY, ratios=(0.5,))
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 32), np.uint8)
    cells = {cell.arm: cell for cell in study.cells if (cell.part, cell.seed) == ("fold0", 0)}
    made = {arm: supplying.supply(study, cell, images, noise) for arm, cell in cells.items()}
    fitted = len(study.chosen(cells["real"])[0])
    added = fitted // 2
    sizes = {arm: len(labels) for arm, (_, labels, _) in made.items()}
    assert sizes == {
        "real": fitted, "oversampled": fitted, "weighted": fitted, "classic": fitted,
        "gan": fitted + added, "classic+gan": fitted + added, "gan-even": fitted,
        "gan-only": added,
        "copies": fitted + added,
    }  # fmt: skip
    options = {arm: options for arm, (_, _, options) in made.items()}
    assert [arm for arm in made if options[arm]["oversample"]] == ["oversampled"]
    assert [arm for arm in made if options[arm]["class_weights"]] == ["weighted"]
    assert [arm for arm in made if options[arm]["augmentation"]] == ["classic", "classic+gan"]
    assert not supplying.CLASSIC.flip
    real, copies = made["real"][0], made["copies"][0]
    assert {film[0, 0] for film in copies[fitted:]} <= {film[0, 0] for film in real}


# Classifiers


def test_inception_starts_from_imagenet_where_it_can_and_else_says_that_it_did_not(
    folds, tmp_path, monkeypatch
):
    study = plan_study(folds, tmp_path, fields=TINY, classifier="inception", steps=30)
    asked = []

    def build(classes, **options):
        asked.append(options)
        if offline and options.get("weights"):
            raise ValueError("the ImageNet weights cannot be had")
        return "network"

    monkeypatch.setattr(classifier, "build_inception_classifier", build)
    offline = False
    network, facts = designing.classifier_of(study)
    assert facts["frozen_steps"] == 10 and facts["learning_rates"] == (0.001,)
    assert "ImageNet" in facts["weights"]
    network()
    assert asked[-1] == {"weights": "imagenet", "frozen": True, "image_size": 32}
    offline = True
    network, facts = designing.classifier_of(study)
    assert facts["frozen_steps"] == 0 and facts["learning_rates"] == (0.0001,)
    assert facts["weights"] == "random: the ImageNet weights cannot be had"
    network()
    assert asked[-1] == {"image_size": 32}
