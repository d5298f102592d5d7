"""The plan of a study: who is trained on, what an arm holds, and which classifier."""

import dataclasses

import keras
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
    with pytest.raises(ValueError, match="1 patient .* by a film under two names"):
        dividing.check_apart(films, training, test)


def test_who_has_one_film_under_two_names_is_one_patient_and_stays_on_one_side():
    records = [dividing.Record(f"{i}.png", label="ab"[i % 2], patient=f"p{i}") for i in range(40)]
    hashes = [f"{i}" for i in range(40)]
    # 0 and 2 have the same film, 4 a changed copy of 2's, 6 another of it.
    hashes[2] = hashes[0]
    records[4], records[6] = (
        dataclasses.replace(records[i], original=hashes[0] if i == 4 else "9" * 64) for i in (4, 6)
    )
    records[2] = dataclasses.replace(records[2], original="9" * 64)
    films = dividing.Films("films", ("a", "b"), tuple(records), tuple(hashes))
    assert len(set(films.patients)) == 37
    assert len({films.patients[i] for i in (0, 2, 4, 6)}) == 1
    part = dividing.Part("all", tuple(range(40)), ())
    for seed in range(20):
        fitted, validating = dividing.choose(films, part, 1.0, seed)
        dividing.check_apart(films, fitted, validating)


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
        ({"gan_images": 0, "arms": ("gan",)}, "--gan-images needs 1 or more: got 0"),
        (
            {"gan_images": 9, "fields": {"training_images": 8}},
            "--gan-images 9 and --set training_images=8 both say how long",
        ),
        ({"fields": {"seed": 8}}, "name seeds by --seeds"),
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
    network, facts = study.network
    assert facts["frozen_steps"] == 10 and facts["learning_rates"] == (0.001,)
    assert "ImageNet" in facts["weights"]
    network()
    assert asked[-1] == {"weights": "imagenet", "frozen": True, "image_size": 32}
    offline = True
    assert study.network == (network, facts)  # for all cells of this study
    study = dataclasses.replace(study)
    network, facts = study.network
    assert facts["frozen_steps"] == 0 and facts["learning_rates"] == (0.0001,)
    assert facts["weights"] == "random: the ImageNet weights cannot be had"
    network()
    assert asked[-1] == {"image_size": 32}


def test_weights_that_come_or_go_do_not_divide_the_arms(halves, tmp_path, monkeypatch):
    study = plan_study(halves, tmp_path, fields=TINY, seeds=(0,), arms=("copies",))
    online = (None, {"name": "InceptionV3", "weights": "ImageNet, frozen for a third of the steps"})
    offline = (None, {"name": "InceptionV3", "weights": "random: cannot be had"})
    first = study.cells[0]
    monkeypatch.setattr(
        studying, "finished", lambda _, cell: {"network": online[1]} if cell == first else None
    )
    for network, refused in ((online, False), (offline, True)):
        again = dataclasses.replace(study)
        again.__dict__["network"] = network
        if refused:
            with pytest.raises(
                ValueError, match="began with weights ImageNet.*with random: cannot"
            ):
                studying._check_network(again)
        else:
            studying._check_network(again)


def network_of(path, *layers, side=32):
    images = x = keras.Input((side, side, 1))
    for layer in layers:
        x = layer(x)
    keras.Model(images, x).save(path)
    return str(path)


def test_a_softmax_layer_of_a_file_is_taken_off(folds, tmp_path):
    dense = keras.layers.Dense(2)
    path = network_of(tmp_path / "net.keras", keras.layers.Flatten(), dense, keras.layers.Softmax())
    build, _ = plan_study(folds, tmp_path, fields=TINY, classifier=path).network
    films = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype("float32")
    logits = films.reshape(3, -1) @ dense.kernel.numpy()
    np.testing.assert_allclose(build()(films), logits, rtol=1e-4, atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Unknown(keras.layers.Layer):
    def call(self, x):
        return x


def test_a_file_that_is_no_classifier_of_these_films_is_one_line(folds, tmp_path, monkeypatch):
    def said(path):
        with pytest.raises(ValueError) as error:
            plan_study(folds, tmp_path / "out", fields=TINY, classifier=str(path)).network  # noqa: B018
        return str(error.value)

    flat = keras.layers.Flatten()
    three = network_of(tmp_path / "three.keras", flat, keras.layers.Dense(3))
    assert "maps (32, 32, 1) to (3,), and (32, 32, 1 or 3) to (2,) is needed" in said(three)
    large = network_of(
        tmp_path / "large.keras", keras.layers.Flatten(), keras.layers.Dense(2), side=64
    )
    assert said(large).endswith("pass --set image_size=64")
    (tmp_path / "damaged.keras").write_bytes(b"PK nothing")
    assert "damaged.keras cannot be loaded" in said(tmp_path / "damaged.keras")
    own = network_of(tmp_path / "own.keras", Unknown(), keras.layers.Flatten())
    keras.saving.get_custom_objects().pop("tests>Unknown")
    line = said(own)
    assert "own.keras cannot be loaded" in line and "\n" not in line


def test_what_a_file_holds_decides_and_not_what_it_is_called(folds, films, tmp_path):
    def decided(**options):
        study = plan_study(folds, tmp_path / "out", fields=TINY, **options)
        return designing.decides(study, study.cells[0])

    def save(name, units):
        layers = (keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(2))
        return network_of(tmp_path / name, *layers)

    first = decided(classifier=save("a.keras", 3))
    (tmp_path / "a.keras").rename(tmp_path / "b.keras")
    assert decided(classifier=str(tmp_path / "b.keras")) == first
    assert decided(classifier=save("b.keras", 4)) != first
    # Films of another hospital, and then one label of theirs mended.
    outside = []
    for folder, labels in (("x", ("BRIGHT", "DARK")), ("y", ("DARK", "BRIGHT"))):
        for level, label in zip((10, 200), labels):
            (tmp_path / folder / label).mkdir(parents=True)
            write_png(tmp_path / folder / label / "film.png", np.full((32, 32), level, np.uint8))
        outside.append(decided(external=str(tmp_path / folder)))
    assert outside[0] != outside[1]
    run = tmp_path / "run" / "backup"
    run.mkdir(parents=True)
    digests = []
    for name in ("000000000016.npz", "000000000032.npz"):
        (run / name).write_bytes(name.encode())
        digests.append(supplying.digest_of(run.parent))
    assert len({*digests, supplying.digest_of(tmp_path / "none")}) == 3


def test_a_class_whose_tested_films_are_of_one_patient_is_refused_first(tmp_path):
    """Hours of training would end in a table without an answer."""
    lines = ["path,label,patient,split"]
    for label, level in (("covid", 200), ("normal", 40)):
        for index in range(12):
            name = f"{label}{index}.png"
            write_png(tmp_path / name, np.full((32, 32), level + index, np.uint8))
            tested = index >= 6
            patient = f"{label}{'' if label == 'covid' and tested else index}"
            lines.append(f"{name},{label},{patient},{'test' if tested else 'train'}")
    (tmp_path / "films.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="the tested films of covid are of one patient"):
        plan_study(str(tmp_path / "films.csv"), tmp_path / "out", arms=("copies",), fields=TINY)
