import random
from collections import Counter

import pytest

from keras_cxrgan.data.splits import crossing, split_patients, straddling


def test_a_patient_of_two_classes_stays_on_one_side():
    # 21 patients have a normal film and one of pneumonia; the others have one film each.
    patients = [f"p{i}" for i in range(100)] + [f"p{i}" for i in range(79, 179)]
    labels = ["NORMAL"] * 100 + ["PNEUMONIA"] * 100
    made = split_patients(labels, patients, [f"h{i}" for i in range(200)])
    sides = {p: {made.names[i] for i in range(200) if patients[i] == p} for p in patients}
    assert len([p for p, n in Counter(patients).items() if n == 2]) == 21
    assert all(len(side) == 1 for side in sides.values())
    assert made.report["patients"] == 179
    assert made.report["classes"]["NORMAL"] == {"files": 100, "patients": 100}


def test_copies_join_their_patients_through_chains():
    # a-b share h0, b-c share h1: the three are one group although a and c share nothing.
    patients = ["a", "b", "b", "c", "d", "e", "f", None]
    hashes = ["h0", "h0", "h1", "h1", "h2", "h3", "h4", "h0"]
    for seed in range(10):
        made = split_patients(
            ["x"] * 8, patients, hashes, fractions={"train": 0.5, "test": 0.5}, seed=seed
        )
        assert len({made.names[i] for i in (0, 1, 2, 3, 7)}) == 1
        assert made.report["joined_patients"] == [["a", "b", "c"]]
        assert made.report["duplicate_files"] == 3
        assert made.report["files_without_patient"] == 1


def test_near_duplicates_join_their_patients():
    names = set()
    for seed in range(20):
        made = split_patients(
            ["x"] * 4,
            [None, "p", "q", None],
            ["h0", "h1", "h2", "h3"],
            fractions={"train": 0.5, "test": 0.5},
            near_duplicates=[(0, 2)],
            seed=seed,
        )
        assert made.names[0] == made.names[2]
        names.add(made.names)
    assert len(names) > 1


def test_single_films_meet_the_fractions_of_each_class_within_one_file():
    labels = ["a"] * 100 + ["b"] * 40 + ["c"] * 17
    made = split_patients(labels, [None] * 157, [f"h{i}" for i in range(157)])
    for name, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
        for label, total in {"a": 100, "b": 40, "c": 17}.items():
            assert abs(made.report["splits"][name]["classes"][label]["files"] - share * total) < 1


def test_uneven_patients_keep_the_class_shares_within_three_points():
    chance = random.Random(5)
    labels, patients = [], []
    for patient in range(300):
        for _ in range(min(12, int(chance.paretovariate(1.2)))):
            labels.append(chance.choices("abc", (5, 3, 1))[0])
            patients.append(str(patient))
    made = split_patients(labels, patients, [f"h{i}" for i in range(len(labels))])
    for name, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
        part = made.report["splits"][name]
        assert part["largest_share_difference"] < 0.03
        assert abs(part["files"] / len(labels) - share) < 0.03


def test_the_same_seed_gives_the_same_split_in_any_order_and_another_seed_does_not():
    chance = random.Random(1)
    files = [(chance.choice("ab"), str(chance.randrange(30)), f"h{i}") for i in range(90)]
    shuffled = chance.sample(files, len(files))

    def made(rows, seed):
        return dict(zip((row[2] for row in rows), split_patients(*zip(*rows), seed=seed).names))

    assert made(files, 3) == made(files, 3) == made(shuffled, 3)
    assert made(files, 3) != made(files, 4)


def test_the_seed_moves_large_patients_too():
    patients = [str(p) for p in range(8) for _ in range(8 + p)]
    hashes = [f"h{i}" for i in range(len(patients))]
    sides = {
        split_patients(
            ["x"] * len(patients), patients, hashes, fractions={"train": 0.5, "test": 0.5}, seed=s
        ).names
        for s in range(10)
    }
    assert len(sides) > 5


def test_folds_partition_everything_evenly():
    made = split_patients("ab" * 25, [None] * 50, [f"h{i}" for i in range(50)], folds=5)
    assert Counter(made.names) == {f"fold{k}": 10 for k in range(5)}
    assert all(part["classes"]["a"]["files"] == 5 for part in made.report["splits"].values())


def test_too_few_patients_is_an_error_and_just_enough_fills_every_split():
    with pytest.raises(ValueError, match="5 files make 2 groups .* too few for 3 splits") as error:
        split_patients("aaaaa", "pppqq", "12345")
    assert "\n" not in str(error.value)
    made = split_patients("a" * 12, ["big"] * 10 + ["p", "q"], [str(i) for i in range(12)])
    assert set(made.names) == {"train", "val", "test"}
    made = split_patients("aa", "pq", "12", fractions={"train": 0.99, "test": 0.01})
    assert set(made.names) == {"train", "test"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": {"train": 0.7, "test": 0.2}}, "sum to 0.9"),
        ({"fractions": {"train": 1.0}}, "two or more"),
        ({"fractions": {"train": 1.2, "test": -0.2}}, "each above 0"),
        ({"fractions": {"train": float("nan"), "test": 0.5}}, "each above 0"),
        ({"folds": 1}, "1 folds: at least 2"),
    ],
)
def test_fractions_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        split_patients("aaaa", "pqrs", "1234", **options)


def test_an_unread_file_is_not_taken_for_a_copy_of_another():
    with pytest.raises(ValueError, match="without a hash"):
        split_patients("aaaa", "pqrs", ["", "", "1", "2"])


@pytest.mark.parametrize("seed", range(40))
def test_no_patient_and_no_content_is_ever_on_two_sides(seed):
    chance = random.Random(seed)
    count = chance.randrange(30, 200)
    labels = [chance.choice(["a", "b", None]) for _ in range(count)]
    patients = [chance.choice([None, str(chance.randrange(count))]) for _ in range(count)]
    hashes = [f"h{chance.randrange(4 * count)}" for _ in range(count)]
    pairs = [(chance.randrange(count), chance.randrange(count)) for _ in range(3)]
    folds = chance.choice([None, 2, 4])
    made = split_patients(labels, patients, hashes, folds=folds, near_duplicates=pairs, seed=seed)
    assert straddling(made.names, patients) == [] == straddling(made.names, hashes)
    assert all(made.names[a] == made.names[b] for a, b in pairs)
    assert len(set(made.names)) == (folds or 3)
    assert sum(part["files"] for part in made.report["splits"].values()) == count


def test_straddling_finds_what_is_on_two_sides():
    splits = ["train", "test", "train", "test", "val"]
    assert straddling(splits, ["p", "q", "q", None, None]) == ["q"]


def test_crossing_names_the_tested_files_that_were_trained_on():
    tested = (["z.png", "b.png", "a.png"], ["h1", "h2", "h1"], [None] * 3)
    assert crossing(iter(["h1", "h9"]), *tested) == ["z.png", "a.png"]
    assert crossing([], *tested) == []


def test_crossing_sees_through_a_copy_to_its_original():
    assert crossing({"h1"}, ["copy.png", "other.png"], ["h5", "h6"], ["h1", "h2"]) == ["copy.png"]
