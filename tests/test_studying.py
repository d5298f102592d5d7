"""A whole study: nobody tested is ever trained on, arms differ in their films alone, and say so."""

import csv
import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan.cli import main
from keras_cxrgan.data.images import write_png
from keras_cxrgan.data.phantom import phantom
from keras_cxrgan.models import classifier
from keras_cxrgan.study import fitting
from keras_cxrgan.workflows import (
    concluding,
    designing,
    dividing,
    recognising,
    studying,
    supplying,
)
from keras_cxrgan.workflows.designing import plan_study
from keras_cxrgan.workflows.splitting import split

TINY = {
    "image_size": 32, "width": 4, "generator_max_width": 8, "discriminator_max_width": 8,
    "latent_dim": 8, "batch_size": 4, "epochs": 1,
}  # fmt: skip
PATIENT = r"(\w+/\d+)-"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Forty phantom films, two of each patient; those of class BRIGHT are brighter."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    for number, label in enumerate(("BRIGHT", "DARK")):
        (folder / label).mkdir()
        for index in range(20):
            film = phantom(index + 100 * number, 32).astype(float)
            film = film * 0.7 + 60 * (label == "BRIGHT") + random.normal(0, 12, (32, 32))
            film = np.clip(film, 0, 255).astype(np.uint8)
            write_png(folder / label / f"{index // 2}-{index % 2}.png", film)
    return folder


@pytest.fixture(scope="module")
def folds(films):
    path = films / "folds.csv"
    split(films, path, folds=2, patient_regex=PATIENT)
    return str(path)


@pytest.fixture(scope="module")
def halves(films):
    path = films / "halves.csv"
    split(films, path, fractions={"train": 0.6, "test": 0.4}, patient_regex=PATIENT)
    return str(path)


@pytest.fixture(scope="module")
def network(films):
    """A small classifier in a file, which ends in a softmax as most do."""
    images = x = keras.Input((32, 32, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(x))
    model.save(films.parent / "network.keras")
    return str(films.parent / "network.keras")


def plan(manifest, out, network, **options):
    options = {"seeds": (0, 1), "steps": 30, "batch_size": 8, "fields": TINY} | options
    return plan_study(manifest, out, classifier=network, learning_rates=[0.01], **options)


def noise(study, cell, counts, report):
    random = np.random.default_rng(cell.seed)
    return [random.integers(0, 256, (count, 32, 32), dtype=np.uint8) for count in counts]


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
    assert sorted(one.files) == sorted(record.name for record in study.films.records)
    assert one.probabilities.shape == (2, 40, 2)


def test_figures_and_page_are_written(world):
    study, results, _ = world
    page = (study.out / "results.md").read_text()
    for name, _ in results["figures"]:
        assert (study.out / name).is_file() and f"({name})" in page
    assert results["answer"][0] in page


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
    study = plan(halves, tmp_path, network, arms=("gan", "classic"), seeds=(0,))
    longer = plan(halves, tmp_path, network, arms=("gan", "classic"), seeds=(0,), steps=31)
    other = plan(halves, tmp_path, network, arms=("gan", "classic"), seeds=(0,), gan_images=99)
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
        ({"sizes": (1.5,)}, "--sizes needs"),
        ({"seeds": ()}, "--seeds needs different values .* got none"),
        ({"ratios": (1, 1)}, "--ratios needs different"),
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


# Hand-made predictions through the whole writer


def write_cell(study, cell, right):
    """Write predictions of which `right(place, label)` says whether they are so."""
    folder = study.out / "cells" / cell.name
    folder.mkdir(parents=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "file", "sha256", "patient", "label", "p BRIGHT", "p DARK"])
        seen = [0, 0]
        for i in study.part(cell).test:
            label = study.films.labels[i]
            p = 0.8 if right(seen[label], label) else 0.2
            seen[label] += 1
            row = [p, round(1 - p, 1)] if label == 0 else [round(1 - p, 1), p]
            patient = f"{label}-{seen[label]}"
            record = study.films.records[i]
            writer.writerow(["test", record.name, "", patient, record.label, *row])
    return {
        "arm": cell.arm, "part": cell.part, "size": cell.size, "seed": cell.seed, "row": cell.row,
        "name": cell.name,
    }  # fmt: skip


def test_hand_made_predictions_give_hand_computed_numbers(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=("gan",), fields=TINY, seeds=(0, 1))
    # real misses 7 of 10 DARK films of each fold, and gan none.
    cells = [
        write_cell(study, cell, lambda n, label, arm=cell.arm: arm == "gan" or label == 0 or n < 3)
        for cell in study.cells
    ]
    results = concluding.conclude(study, cells)
    real, gan = results["sets"]["test"][0]["rows"]
    for scores in real["scores"]:
        assert scores["confusion"] == [[20, 0], [14, 6]]
        assert scores["balanced_accuracy"] == 0.65
        assert scores["classes"][0]["precision"] == 20 / 34
        assert scores["classes"][1]["f1"] == 12 / 26
        assert scores["macro"]["f1"] == pytest.approx((40 / 54 + 12 / 26) / 2)
        assert scores["calibration_error"] == pytest.approx(abs(26 / 40 - 0.8))
    assert gan["comparison"]["difference"] == pytest.approx(0.35)
    assert gan["comparison"]["patients"] == 20
    assert (gan["mcnemar"]["only_arm_right"], gan["mcnemar"]["only_baseline_right"]) == (14, 0)
    assert gan["mcnemar"]["p_exact"] == 2 * 0.5**14
    assert gan["answer"]["verdict"] == "helps"
    assert results["answer"][0].startswith("gan x1 helps: balanced accuracy rises by 35.0")
    page = (tmp_path / "results.md").read_text()
    assert "| real | 2 | 65.0 ± 0.0 | 65.0 ± 0.0 | 65.0 ± 0.0 | 79.4 ± 0.0 |" in page
    assert "| gan x1 | +35.0 | " in page and " | 14 : 0 | " in page


def test_a_seed_of_which_a_part_failed_does_not_count(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=("copies",), fields=TINY, seeds=(0, 1))
    cells = [write_cell(study, cell, lambda n, label: n % 2 == 0) for cell in study.cells]
    last = cells[-1]
    assert (last["arm"], last["seed"]) == ("copies", 1)
    last["error"] = "out of memory"
    results = concluding.conclude(study, cells)
    real, copies = results["sets"]["test"][0]["rows"]
    assert (real["seeds"], copies["seeds"]) == ([0, 1], [0])
    assert copies["comparison"]["seeds"] == 1
    assert "with one seed" in results["answer"][0]


def test_the_time_is_measured_once_and_then_known_to_the_plan(halves, network, tmp_path):
    def make(steps):
        return plan(halves, tmp_path, network, arms=("gan",), seeds=(0,), steps=steps)

    study = make(3)
    assert designing.estimate(study) is None
    studying.measure(study, np.zeros((40, 32, 32), np.uint8))
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert designing.estimate(study) == 2 * measured["cell"] + 2 * measured["gan"] > 0
    assert designing.estimate(make(4)) is None


# The command


def test_the_plan_is_printed_without_training_anything(folds, tmp_path):
    out = tmp_path / "out"
    command = ["study", folds, "--sizes", "50%,100%", "--ratios", "1,2", "--out", str(out)]
    command += [
        "--arms",
        "real,classic,gan",
        "--seeds",
        "0,1,2",
        "--dry-run",
        "--set",
        "batch_size=4",
    ]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    assert "unknown before the first cell" in shown.output and not out.exists()
    about = json.loads(CliRunner().invoke(main, [*command, "--json"]).output)
    # 2 folds, 2 sizes, 3 seeds; real and classic, and gan at two ratios. GANs: 2 classes each.
    assert about["cells"] == 2 * 2 * 3 * 4
    assert about["gans"] == 2 * 2 * 2
    assert about["seconds_left"] is None


def test_the_command_answers(halves, network, tmp_path):
    command = ["study", halves, "--arms", "real,copies", "--seeds", "0", "--steps", "5"]
    command += ["--classifier", network, "--set", "image_size=32", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "No difference shown for copies x1" in " ".join(done.output.split())
    assert (tmp_path / "out" / "results.md").is_file()


def test_a_mistake_is_one_line(folds, tmp_path):
    failed = CliRunner().invoke(main, ["study", folds, "--sizes", "half", "--out", str(tmp_path)])
    assert failed.exit_code == 2 and "must be numbers such as 25%,50%,100%" in failed.output
    failed = CliRunner().invoke(main, ["study", str(tmp_path / "no.csv")])
    assert failed.exit_code == 1 and failed.output.count("\n") == 1
