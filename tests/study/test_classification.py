import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from keras_cxrgan.study.classification import (
    PER_CLASS,
    SCORES,
    auc,
    brier_score,
    calibration_error,
    classify,
    confusion_matrix,
    davoodi2021_f1,
    overall,
    softmax,
)

# Two films of class a, three of b, one of c.
LABELS = [0, 0, 1, 1, 1, 2]
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.3, 0.6, 0.1],
        [0.2, 0.7, 0.1],
        [0.1, 0.8, 0.1],
        [0.5, 0.3, 0.2],
        [0.1, 0.2, 0.7],
    ]
)


def test_every_score_of_a_case_counted_by_hand():
    scores = classify(LABELS, PROBABILITIES, "abc")
    assert scores.confusion == ((1, 1, 0), (1, 2, 0), (0, 0, 1))
    a, b, c = scores.classes
    assert (a.sensitivity, a.specificity, a.precision, a.f1) == (0.5, 0.75, 0.5, 0.5)
    assert a.accuracy == pytest.approx(4 / 6)
    assert (b.sensitivity, b.precision) == pytest.approx((2 / 3, 2 / 3))
    assert b.specificity == pytest.approx(2 / 3)
    assert (c.sensitivity, c.specificity, c.precision, c.f1, c.auc) == (1, 1, 1, 1, 1)
    # a: 0.8 is above all four others, 0.3 above three of them.
    assert a.auc == 7 / 8
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert scores.macro["f1"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert a.davoodi2021_f1 == pytest.approx(2 * 0.5 * 0.75 / 1.25)


def test_a_class_without_films_is_none_and_stays_out_of_the_means():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7], [0.1, 0.8, 0.1]])
    scores = classify([0, 0, 1], probabilities, "abc")
    c = scores.classes[2]
    assert (c.sensitivity, c.f1, c.auc, c.davoodi2021_f1) == (None, None, None, None)
    assert c.specificity == pytest.approx(2 / 3)
    assert scores.absent == ("c",)
    assert scores.balanced_accuracy == 0.75
    assert scores.macro["auc"] == 1.0


def test_a_class_never_predicted_has_no_precision_but_lowers_the_mean():
    scores = classify([0, 0, 1], np.array([[0.9, 0.1]] * 3), ["a", "b"])
    b = scores.classes[1]
    assert (b.precision, b.f1, b.sensitivity) == (None, 0.0, 0.0)
    assert scores.macro["precision"] == pytest.approx((2 / 3 + 0) / 2)
    assert b.auc == 0.5


def test_films_of_one_class_only_have_no_auc_anywhere():
    scores = classify([1, 1], np.array([[0.4, 0.6], [0.7, 0.3]]), ["a", "b"])
    assert scores.macro["auc"] is None
    assert scores.classes[1].specificity is None
    assert scores.macro["davoodi2021_f1"] is None


def test_scores_go_into_strict_json():
    scores = classify([0, 0, 0], np.array([[1.0, 0.0]] * 3), ["a", "b"])
    assert json.loads(json.dumps(dataclasses.asdict(scores), allow_nan=False))["films"] == 3


def test_auc_with_ties_is_the_mann_whitney_statistic_of_scipy():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 6, 200) / 10, random.random(200) < 0.3
    expected = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    pairs = positive.sum() * (~positive).sum()
    assert auc(positive, scores) == pytest.approx(expected / pairs, abs=1e-12)


def test_auc_of_folds_compares_films_that_one_network_has_scored():
    # Each network ranks its own films without fault; the second gives all of them more.
    labels, parts = np.array([0, 0, 1, 1] * 2), np.repeat([0, 1], 4)
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    assert auc(labels == 1, scores) == 0.75
    assert auc(labels == 1, scores, parts) == 1.0
    found = classify(labels, np.stack([1 - scores, scores], axis=1), ["normal", "covid"], parts)
    assert [each.auc for each in found.classes] == [1.0, 1.0] and found.macro["auc"] == 1.0


def test_auc_of_equal_scores_is_chance_and_of_one_kind_nothing():
    assert auc([True, False, False], [0.3, 0.3, 0.3]) == 0.5
    assert auc([False, False], [0.1, 0.2]) is None


@pytest.mark.parametrize("name", SCORES)
def test_weighting_a_film_twice_is_having_it_twice(name):
    random = np.random.default_rng(1)
    labels = np.array(LABELS * 3)
    probabilities = softmax(random.normal(size=(2, 18, 3)))
    weights = random.integers(0, 3, (4, 18)).astype(float)
    weights[:, :6] += 1
    values = overall(name, labels, probabilities, weights)
    for b, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(18), counts)
        repeated = overall(name, labels[rows], probabilities[:, rows])
        assert values[b] == pytest.approx(repeated[0], abs=1e-12)


def test_true_f1_and_the_papers_f1_differ_as_measured():
    # Davoodi's bacterial pneumonia: sensitivity 0.716, specificity 0.855, one film in four.
    assert davoodi2021_f1(0.716, 0.855) == pytest.approx(0.779, abs=5e-4)
    labels = np.array([1] * 1000 + [0] * 3000)
    predicted = np.array([1] * 716 + [0] * 284 + [1] * 435 + [0] * 2565)
    scores = classify(labels, np.eye(2)[predicted], ["rest", "bacterial"]).classes[1]
    assert scores.f1 == pytest.approx(0.666, abs=5e-4)
    assert davoodi2021_f1(0.0, 0.0) == 0.0


def test_calibration_error_by_hand_and_of_certainty():
    # Confidence 0.8 in one bin: three of four right. 0.6 in another: none of one right.
    probabilities = np.array([[0.8, 0.2]] * 4 + [[0.4, 0.6]])
    assert calibration_error([0, 0, 0, 1, 0], probabilities) == pytest.approx(
        4 / 5 * 0.05 + 1 / 5 * 0.6
    )
    assert calibration_error([0, 1], np.eye(2)) == 0.0
    assert calibration_error([1, 0], np.eye(2)) == 1.0


def test_brier_score_of_ignorance_truth_and_error():
    assert brier_score([0, 1, 2, 3], np.full((4, 4), 0.25)) == 0.75
    assert brier_score([0, 1], np.eye(2)) == 0.0
    assert brier_score([1, 0], np.eye(2)) == 2.0


def test_confusion_rows_are_the_truth():
    assert confusion_matrix([0, 0, 0], [1, 1, 2], 3).tolist() == [[0, 2, 1], [0] * 3, [0] * 3]


def test_softmax_of_large_logits():
    assert softmax([1000.0, 0.0]).tolist() == [1.0, 0.0]
    assert softmax([[0.0, np.log(3)]])[0] == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[2.0, -1.0], [0.5, 0.5]], "softmax first"),
        ([0, 1], [[np.nan, 1.0], [0.5, 0.5]], "softmax first"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels from 0 to 2"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], "a row for each film"),
        ([], np.zeros((0, 2)), "one integer for each film"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "one integer for each film"),
    ],
)
def test_what_cannot_be_scored_says_so(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classify(labels, probabilities, ["a", "b"])


def test_names_must_fit_and_scores_be_known():
    with pytest.raises(ValueError, match="3 class names for probabilities of 2"):
        classify([0, 1], np.eye(2), "abc")
    with pytest.raises(ValueError, match="unknown score 'mood'"):
        overall("mood", np.array([0]), np.eye(2)[None])
    assert set(PER_CLASS) == {name.removeprefix("macro_") for name in SCORES if "macro" in name}
