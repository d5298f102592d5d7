import json

import numpy as np
import pytest

from keras_cxrgan.evaluation.scores import (
    METRICS,
    check_counts,
    compare,
    findings,
    ladder,
    quick_scores,
    score,
    score_draws,
    score_reals,
    warnings,
)


def draw(count, seed, shift=0.0, scale=1.0, dims=8):
    return np.random.default_rng(seed).normal(shift, scale, (count, dims)).astype(np.float32)


REAL = draw(200, 0)


def named(texts, name):
    return any(text.startswith(name) for text in texts)


def test_a_perfect_generator_stands_on_its_floor_and_nothing_is_said():
    scores = score(REAL, draw(200, 1), held_out=draw(200, 2))
    floor = scores["floor"]
    assert floor["n"] == 100
    assert abs(floor["frechet"]["excess_mean"]) < 3 * floor["frechet"]["floor_sd"]
    assert floor["fake"]["recall"] == pytest.approx(floor["real"]["recall"], abs=0.1)
    assert scores["vendi"]["ratio"] == pytest.approx(1, abs=0.1)
    assert findings(scores) == []
    assert warnings(scores) == []
    json.dumps(scores)


def test_few_films_repeated_are_a_collapse_though_their_distance_is_small():
    repeated = np.repeat(REAL[:20], 10, axis=0)
    scores = score(REAL, repeated)
    found = findings(scores)
    assert named(found, "COLLAPSE")
    assert "recall 0.00" in found[0]
    # The trap that the sentence is there for: noise of the same law as the films scores worse.
    assert scores["frechet"]["value"] < score(REAL, draw(200, 3, shift=1.0))["frechet"]["value"]


def test_a_narrow_generator_has_low_diversity_and_is_no_collapse():
    found = findings(score(REAL, draw(200, 4, scale=0.5)))
    assert named(found, "LOW DIVERSITY") and not named(found, "COLLAPSE")


def test_far_images_are_not_realistic_and_not_called_collapsed_for_their_recall():
    found = findings(score(REAL, draw(200, 5, shift=20.0, scale=30.0)))
    assert named(found, "NOT REALISTIC") and not named(found, "COLLAPSE")


def test_copies_of_training_films_are_suspected_against_held_out_films():
    copies = REAL + draw(200, 6, scale=0.01)
    scores = score(REAL, copies, held_out=draw(200, 7))
    assert named(findings(scores), "COPIES?")
    # Nothing but the held-out films shows it: the distance itself is the best there is.
    assert scores["frechet"]["value"] < scores["floor"]["frechet"]["floor_mean"]
    assert not named(findings(score(REAL, copies)), "COPIES?")


def test_what_is_reached_of_films_held_out_stands_beside_what_films_trained_on_reach():
    real, fake, held_out = REAL[:100], draw(100, 6, scale=0.5), draw(100, 7)
    found = score(real, fake, held_out=held_out)["held_out"]["prdc"]
    for name, side in (("fake_to_held_out", fake), ("real_to_held_out", real)):
        expected = quick_scores(held_out, side)
        assert found[name] == {key: pytest.approx(expected[key]) for key in found[name]}
    assert found["fake_to_held_out"]["recall"] < 0.7 * found["real_to_held_out"]["recall"]


def test_all_copies_of_one_image_are_a_collapse():
    assert named(findings(score(REAL, np.repeat(REAL[:1], 200, axis=0))), "COLLAPSE")


def test_a_collapse_shows_where_all_features_point_one_way():
    """As features without negative numbers do: one image then has nearly all of the films' score.

    Its recall is not asked, for it lies far from all films.
    """
    scores = score(REAL + 20, np.repeat(REAL[:1] + 60, 200, axis=0))
    assert scores["vendi"]["real"] < 1.1
    assert named(findings(scores), "COLLAPSE")
    assert findings(score(REAL + 20, draw(200, 1) + 20)) == []


def test_warnings_name_rank_counts_and_smallness():
    scores = score(draw(60, 0, dims=64), draw(20, 1, dims=64))
    text = " ".join(warnings(scores))
    assert "N < D: 20 images for 64 dimensions" in text
    assert "unequal counts: 60 real and 20 generated" in text
    assert "only 20 images" in text
    full = score(draw(130, 0, dims=64), draw(130, 1, dims=64))
    assert not any("N < D" in text for text in warnings(full))


def test_a_count_equal_to_the_dimensions_is_rank_deficient():
    scores = score(draw(64, 0, dims=64), draw(64, 1, dims=64))
    assert any("64 images for 64 dimensions" in text for text in warnings(scores))


def test_repeated_images_are_warned_about():
    repeated = np.repeat(REAL[:20], 10, axis=0)
    assert any("duplicate" in text or "repeat" in text for text in warnings(score(repeated, REAL)))


@pytest.mark.parametrize(("real", "fake", "side"), [(13, 20, "REAL"), (20, 13, "FAKE")])
def test_too_few_images_for_the_neighbours_are_refused(real, fake, side):
    with pytest.raises(ValueError, match=f"{side} has 13 images.*needs at least 14"):
        check_counts(real, fake, 5)
    check_counts(14, 14, 5)


def test_quick_scores_are_those_of_the_whole_report():
    fake = draw(200, 1, shift=0.3)
    whole = score(REAL, fake)
    expected = {name: whole[name] for name in ("precision", "recall", "density", "coverage")}
    expected |= {"kid": whole["kid"]["kid"], "frechet": whole["frechet"]["value"]}
    assert quick_scores(REAL, fake) == pytest.approx(expected)
    assert set(METRICS) == set(expected)


def test_scores_of_draws_are_those_of_each_set_by_itself():
    pool = draw(600, 1, shift=0.3)
    drawn = score_draws(REAL, pool, 200, seed=7)
    order = np.random.default_rng(7).permutation(600)
    sets = [quick_scores(REAL, pool[rows]) for rows in np.split(order, 3)]
    assert (drawn["n"], drawn["sets"]) == (200, 3)
    for name in METRICS:
        values = [one[name] for one in sets]
        assert drawn[name]["mean"] == pytest.approx(np.mean(values))
        assert drawn[name]["sd"] == pytest.approx(np.std(values, ddof=1))


def test_films_trained_on_score_against_held_out_ones_at_their_count():
    train, held_out = draw(60, 1, shift=0.3), draw(40, 2)
    found = score_reals(held_out, train, splits=3, seed=5)
    random = np.random.default_rng(5)
    sets = [quick_scores(held_out, train[random.permutation(60)[:40]]) for _ in range(3)]
    for name in METRICS:
        assert found[name] == pytest.approx(np.mean([one[name] for one in sets]))
    assert score_reals(train, held_out) == {}  # fewer would stand too far away


def test_one_bad_set_of_few_does_not_pass_for_its_generator():
    """A pool whose first set is far from the films: the first set's score says so, draws do not."""
    pool = np.concatenate([draw(30, 1, shift=1.0), draw(1470, 2)])
    films = draw(30, 3)
    scores = score(films, pool[:30], pool=pool)
    alone = score(films, pool[:30])
    assert scores["frechet"] == alone["frechet"] and alone["draws"] is None
    drawn = scores["draws"]["frechet"]
    assert drawn["mean"] + 3 * drawn["sd"] < scores["frechet"]["value"]
    held_out = draw(40, 4)
    held = score(films, pool[:30], pool=pool, held_out=held_out)["held_out"]
    assert (held["n"], held["draws"]["n"], held["draws"]["sets"]) == (30, 30, 50)
    assert held["draws"]["frechet"]["mean"] < held["fake_to_held_out"] - 1
    assert score(films, pool[:30], held_out=held_out)["held_out"]["draws"] is None
    # Beside the floor, too, images are drawn from all of them.
    assert abs(scores["floor"]["frechet"]["excess_mean"]) < 2
    assert alone["floor"]["frechet"]["excess_mean"] > 4
    json.dumps(scores)


def test_a_ladder_refuses_sets_of_different_counts():
    with pytest.raises(ValueError, match=r"one size, got \[50, 60\]"):
        ladder(REAL, {"a": draw(50, 1), "b": draw(60, 2)})


def test_comparing_says_which_is_nearer_and_that_equals_are_not_told_apart():
    near, far = draw(200, 1), draw(200, 2, shift=0.5)
    told = compare(REAL, near, far, permutations=200, seed=0)
    for measure in told.values():
        assert measure["high"] < 0 and measure["p_value"] < 0.01
    equal = compare(REAL, near, draw(200, 3), permutations=200, seed=0)
    for measure in equal.values():
        assert measure["low"] < 0 < measure["high"]


def test_too_little_variety_is_not_taken_for_copies():
    # 128 dimensions, 100 films: nearer to the films than held-out films come, and to these too.
    random = np.random.default_rng(0)
    scale = np.arange(1, 129) ** -0.3
    films, held_out, fake = (random.normal(size=(100, 128)) * scale for _ in range(3))
    scores = score(films, 0.8 * fake, held_out=held_out, permutations=100)
    held = scores["held_out"]
    assert held["fake_to_real"] < held["real_to_held_out"]
    assert not named(findings(scores), "COPIES?")
    copies = films + 0.01 * fake
    assert named(findings(score(films, copies, held_out=held_out, permutations=100)), "COPIES?")


def test_variety_does_not_shrink_with_the_number_of_images():
    random = np.random.default_rng(1)
    films = random.normal(size=(150, 32))
    fakes = random.normal(size=(3000, 32)) + 0.9 * (np.arange(32) < 16)  # a little beside the films
    few, many = (score(films, some, permutations=10) for some in (fakes[:150], fakes))
    assert many["recall"] < 0.7 * few["recall"]
    assert few["recall_of_as_many"] == few["recall"]
    assert many["recall_of_as_many"] == pytest.approx(few["recall"], abs=0.05)
