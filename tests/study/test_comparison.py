import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from keras_cxrgan.study.comparison import compare, mcnemar, seed_sign_test


def one_hot(right, labels, classes=2):
    """Probabilities (S, N, K) that are right or wrong as told."""
    return np.eye(classes)[np.where(right, labels, (labels + 1) % classes)]


def correlated_films(random, patients=60, seeds=1, films=3):
    """Labels, two equally good arms and patients whose films are right or wrong together."""
    of_film = np.repeat(np.arange(patients), films)
    labels = of_film % 2
    arms = [one_hot(random.random((seeds, patients))[:, of_film] < 0.7, labels) for _ in range(2)]
    return labels, arms, of_film


def test_difference_and_counts_of_a_case_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    baseline = one_hot(np.array([[1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 1, 0]], bool), labels)
    arm = one_hot(np.array([[1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]], bool), labels)
    found = compare(labels, arm, baseline, list("aabbcd"), resamples=100)
    assert found.baseline == pytest.approx((1 / 2 + 5 / 8) / 2)
    assert found.arm == pytest.approx((5 / 8 + 1) / 2)
    assert found.by_seed == pytest.approx((1 / 8, 3 / 8))
    assert found.difference == pytest.approx(1 / 4)
    assert found.seed_sd == pytest.approx(np.std([1 / 8, 3 / 8], ddof=1))
    assert (found.films, found.patients, found.seeds) == (6, 4, 2)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_interval_of_independent_films_is_that_of_the_paired_proportions():
    # One film a patient, one class in each arm wrong: the variance has a closed form.
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], 200)
    sides = [random.random((1, 400)) < share for share in (0.8, 0.7)]
    found = compare(labels, *(one_hot(side, labels) for side in sides), range(400), seed=1)
    change = sides[0][0].astype(float) - sides[1][0]
    variance = sum(np.var(change[labels == k], ddof=1) / 200 for k in (0, 1)) / 4
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    assert found.low == pytest.approx(found.difference - half, abs=0.004)
    assert found.high == pytest.approx(found.difference + half, abs=0.004)


def test_films_of_one_patient_are_not_new_evidence():
    random = np.random.default_rng(3)
    labels, arms, patients = correlated_films(random, films=4)
    by_patient = compare(labels, *arms, patients, resamples=2000)
    one_film = compare(labels[::4], *(arm[:, ::4] for arm in arms), patients[::4], resamples=2000)
    as_if_independent = compare(labels, *arms, range(len(labels)), resamples=2000)
    width = by_patient.high - by_patient.low
    assert width == pytest.approx(one_film.high - one_film.low, rel=0.05)
    assert width > 1.7 * (as_if_independent.high - as_if_independent.low)
    assert by_patient.p_value == pytest.approx(one_film.p_value, abs=0.04)


def test_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(4)
    covered = 0
    for study in range(200):
        labels, arms, patients = correlated_films(random, patients=80, films=2)
        found = compare(labels, *arms, patients, resamples=200, seed=study)
        covered += found.low <= 0 <= found.high
    assert 183 <= covered <= 199  # 95 % of 200 is 190; three standard deviations are 9


def test_training_luck_widens_the_interval():
    random = np.random.default_rng(5)
    labels = np.repeat([0, 1], 150)
    luck = np.array([0.9, 0.6, 0.9, 0.6])[:, None]
    lucky = one_hot(random.random((4, 300)) < luck, labels)
    steady = one_hot(random.random((4, 300)) < 0.75, labels)
    baseline = one_hot(random.random((4, 300)) < 0.75, labels)
    wide, narrow = (
        compare(labels, arm, baseline, range(300), resamples=1000) for arm in (lucky, steady)
    )
    assert wide.seed_sd > 0.1
    assert narrow.seed_sd < 0.06
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_arms_that_predict_alike_do_not_get_an_interval_of_no_width():
    labels = np.tile([0, 1], 20)
    same = np.eye(2)[labels]
    found = compare(labels, same, same, range(40), resamples=100)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.high == pytest.approx((1 - 0.025 ** (1 / 20)) / 2)  # of each class twenty
    assert found.low == -found.high
    alike = compare(labels, same, same, range(40), resamples=100, score="accuracy")
    assert alike.high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_five_patients_who_agree_cannot_exclude_much_of_their_class():
    # Of 205, five have the rare disease, and both arms find them all: 2 in 5 could be missed.
    labels = np.repeat([0, 1], [200, 5])
    same = np.eye(2)[labels]
    found = compare(labels, same, same, range(205), resamples=100)
    assert found.high == pytest.approx((1 - 0.025 ** (1 / 5)) / 2)
    assert found.high == pytest.approx(0.261, abs=0.001)
    # A gain of 20 points among the others is 10 of the mean, and does not show beside that.
    better = np.eye(2)[np.where(np.arange(205) < 40, 1, labels)]
    assert compare(labels, same, better, range(205), resamples=100).low < 0


def test_more_comparisons_make_the_interval_wider():
    random = np.random.default_rng(6)
    labels, arms, patients = correlated_films(random)
    one, six = (compare(labels, *arms, patients, comparisons=m) for m in (1, 6))
    ratio = stats.norm.ppf(1 - 0.05 / 12) / stats.norm.ppf(0.975)
    assert six.confidence == pytest.approx(1 - 0.05 / 6)
    assert (six.high - six.low) / (one.high - one.low) == pytest.approx(ratio, rel=0.06)


def test_swapping_the_arms_turns_the_sign_and_a_seed_repeats_the_numbers():
    random = np.random.default_rng(7)
    labels, (a, b), patients = correlated_films(random, seeds=3)
    there = compare(labels, a, b, patients, resamples=500, score="macro_f1")
    back = compare(labels, b, a, patients, resamples=500, score="macro_f1")
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value, abs=0.05)
    assert there == compare(labels, a, b, patients, resamples=500, score="macro_f1")
    assert there != compare(labels, a, b, patients, resamples=500, score="macro_f1", seed=1)


def test_permutation_is_the_exact_test_where_films_are_patients():
    labels = np.tile([0, 1], 15)
    arm, baseline = np.ones(30, bool), np.arange(30) >= 7
    found = compare(
        labels, one_hot(arm, labels), one_hot(baseline, labels), range(30), score="accuracy"
    )
    assert found.p_value == pytest.approx(2 / 2**7, abs=0.004)


def test_lucky_training_runs_have_a_large_p_value_too():
    # Two seeds of +20 and +2 points: patients are many, so swapping them alone says p < .01.
    random = np.random.default_rng(9)
    labels = np.repeat([0, 1], 150)
    shares = [np.array(each)[:, None] for each in ((0.85, 0.67), (0.65, 0.65))]
    arms = [one_hot(random.random((2, 300)) < share, labels) for share in shares]
    found = compare(labels, *arms, range(300), resamples=2000)
    assert found.by_seed[0] - found.by_seed[1] > 0.1
    assert found.low < 0 < found.high
    assert found.p_value > 0.05


@pytest.mark.parametrize("comparisons", [1, 6])
@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_and_p_value_do_not_contradict_each_other(comparisons, seeds):
    random = np.random.default_rng(10)
    labels = np.tile([0, 1], 40)
    verdicts = []
    for gain in np.linspace(0.0, 0.35, 8):
        right = [random.random((seeds, 80)) < 0.6 + each for each in (gain, 0.0)]
        arms = [one_hot(each, labels) for each in right]
        found = compare(labels, *arms, range(80), comparisons=comparisons, resamples=1000)
        if found.p_value < 0.05:
            assert found.low > 0
        verdicts.append(found.p_value < 0.05)
    assert 0 < sum(verdicts) < 8


def test_the_p_value_is_corrected_for_the_comparisons():
    random = np.random.default_rng(12)
    labels = np.tile([0, 1], 60)
    arms = [one_hot(random.random((1, 120)) < share, labels) for share in (0.8, 0.65)]
    one, four, many = (
        compare(labels, *arms, range(120), comparisons=m).p_value for m in (1, 4, 10_000)
    )
    assert 0.0 < one < 0.1
    assert four == pytest.approx(4 * one)
    assert many == 1.0


def test_auc_differences_are_compared_too():
    random = np.random.default_rng(8)
    labels = np.repeat([0, 1], 60)
    scores = [random.normal(shift * labels, 1.0) for shift in (3.0, 0.5)]
    arm, baseline = (np.stack([1 - p, p], axis=1) for p in (1 / (1 + np.exp(-np.array(scores)))))
    found = compare(labels, arm, baseline, range(120), score="macro_auc", resamples=500)
    assert found.low > 0.1
    assert found.p_value == pytest.approx(2 / 501)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (3, 9), (8, 8), (12, 30)])
def test_mcnemar_is_the_binomial_test_of_scipy(gained, lost):
    count = gained + lost + 10
    labels = np.zeros(count, int)
    arm, baseline = labels.copy(), labels.copy()
    baseline[:gained] = 1
    arm[gained : gained + lost] = 1
    found = mcnemar(labels, arm, baseline, range(count))
    discordant = gained + lost
    exact = stats.binomtest(gained, discordant).pvalue if discordant else 1.0
    assert (found.only_arm_right, found.only_baseline_right) == (gained, lost)
    assert found.p_exact == pytest.approx(exact)
    assert found.p_patients == pytest.approx(exact)
    # Fagerland et al. 2013: the mid-p leaves out half the chance of what was seen, on both sides.
    seen = stats.binom.pmf(gained, discordant, 0.5) * (1 if gained == lost else 2)
    assert found.p_mid == pytest.approx(exact - seen / 2)
    assert found.both_right == 10


def test_mcnemar_by_patients_counts_patients():
    # Two patients of five films each, all gained: films say 2 / 2^10, patients 2 / 2^2.
    labels = np.zeros(20, int)
    baseline = np.repeat([1, 0], 10)
    found = mcnemar(labels, labels, baseline, np.repeat(list("abcd"), 5))
    assert found.p_exact == pytest.approx(2 / 2**10)
    assert found.p_patients == pytest.approx(0.5)
    assert (found.films, found.patients) == (20, 4)


def test_mcnemar_by_patients_of_unequal_sizes_by_hand():
    # Patients moved by 3, 1 and 1 films, all gained: |+-3 +-1 +-1| = 5 in 2 of 8 swaps.
    labels = np.zeros(5, int)
    found = mcnemar(labels, labels, labels + 1, list("aaabc"))
    assert found.p_patients == 0.25


def test_seed_sign_test_by_hand():
    assert seed_sign_test([0.1, 0.2, 0.1, 0.3, 0.1]) == 0.0625
    assert seed_sign_test([0.1, -0.1]) == 1.0
    assert seed_sign_test([3.0, 2.0, -1.0]) == 0.5
    with pytest.raises(ValueError, match="1 to 20 seeds"):
        seed_sign_test([])


def test_what_cannot_be_compared_says_so():
    labels = np.array([0, 0, 1, 1])
    arm = np.eye(2)[labels]
    with pytest.raises(ValueError, match="same seeds, films and classes"):
        compare(labels, np.stack([arm] * 2), np.stack([arm] * 3), "abcd")
    with pytest.raises(ValueError, match="class 1 has the films of one patient only"):
        compare(labels, arm, arm, "abcc")
    with pytest.raises(ValueError, match="3 patients for 4 films"):
        compare(labels, arm, arm, "abc")
    with pytest.raises(ValueError, match="unknown score 'luck'"):
        compare(labels, arm, arm, "abcd", score="luck")
    with pytest.raises(ValueError, match="one class and one patient for each film"):
        mcnemar(labels, labels, labels, "abc")
