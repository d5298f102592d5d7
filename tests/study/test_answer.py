import dataclasses
import json

import numpy as np
import pytest

from keras_cxrgan.study.answer import answer, answers
from keras_cxrgan.study.comparison import Comparison, compare

FOUND = Comparison(
    score="balanced_accuracy",
    baseline=0.700,
    arm=0.731,
    difference=0.031,
    low=0.010,
    high=0.0521,
    confidence=0.95,
    p_value=0.002,
    by_seed=(0.03, 0.032),
    seed_sd=0.0014,
    films=300,
    patients=210,
    seeds=5,
    resamples=10_000,
)


def found(**changes):
    return dataclasses.replace(FOUND, **changes)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.010, 0.052, 0.002, "helps"),
        (1e-9, 0.052, 0.002, "helps"),
        (0.0, 0.052, 0.002, "no difference shown"),
        (-1e-9, 0.052, 0.002, "no difference shown"),
        (-0.05, 0.05, 1.0, "no difference shown"),
        (-0.052, 0.0, 0.002, "no difference shown"),
        (-0.052, -1e-9, 0.002, "hurts"),
        # Four patients all one way: the bootstrap leaves 0 out, an exact test cannot.
        (0.010, 0.052, 0.125, "no difference shown"),
        (-0.052, -0.010, 0.125, "no difference shown"),
        (0.010, 0.052, 0.05, "helps"),
    ],
)
def test_the_verdict_at_the_borders(low, high, p_value, verdict):
    assert answer("GAN", found(low=low, high=high, p_value=p_value)).verdict == verdict


def test_the_sentences():
    assert answer("real + GAN", FOUND).sentence == (
        "real + GAN helps: balanced accuracy rises by 3.1 percentage points (+1.0 to +5.2; 95 %;"
        " 300 films of 210 patients, 5 seeds)."
    )
    hurt = found(difference=-0.02, low=-0.03, high=-0.0001)
    assert answer("real + GAN", hurt).sentence == (
        "real + GAN hurts: balanced accuracy falls by 2.0 percentage points (-3.0 to -0.01; 95 %;"
        " 300 films of 210 patients, 5 seeds)."
    )
    nothing = found(difference=0.012, low=-0.012, high=0.0361, seeds=1)
    assert answer("real + GAN", nothing).sentence == (
        "No difference shown for real + GAN: balanced accuracy differs by +1.2 percentage points"
        " (-1.2 to +3.6; 95 %; 300 films of 210 patients, 1 seed); a difference under 3.7 points"
        " cannot be excluded; with one seed this is about two networks, not about the method."
    )


def test_the_correction_is_told_and_can_take_an_answer_away():
    corrected = found(confidence=1 - 0.05 / 6, comparisons=6, p_value=0.012)
    arms = {f"arm {i}": dataclasses.replace(corrected, p_value=0.12) for i in range(5)}
    results = answers({"first": corrected, **arms})
    assert [each.verdict for each in results] == ["helps"] + ["no difference shown"] * 5
    assert "99.17 %, corrected for 6 comparisons;" in results[0].sentence
    json.dumps([dataclasses.asdict(each) for each in results], allow_nan=False)


def test_an_uncorrected_comparison_of_many_gets_no_answer():
    with pytest.raises(ValueError, match=r"compare\(..., comparisons=2\)"):
        answers({"a": FOUND, "b": FOUND})


def study(random, effect, luck, seeds=4, patients=60):
    """One simulated study: patients of 1-3 films, three classes, arms of `effect` in logits."""
    of_film = np.repeat(np.arange(patients), random.integers(1, 4, patients))
    labels = of_film % 3
    difficulty = random.normal(1.2, 1.0, patients)[of_film]

    def arm(gain):
        own = random.normal(0.0, 0.4, patients)[of_film]
        logits = difficulty + own + gain + random.normal(0.0, luck, (seeds, 1))
        right = random.random((seeds, len(labels))) < 1 / (1 + np.exp(-logits))
        return np.eye(3)[np.where(right, labels, (labels + 1) % 3)]

    return labels, arm(effect), arm(0.0), of_film


@pytest.mark.parametrize("luck", [0.0, 0.4])
def test_without_an_effect_an_answer_is_as_rare_as_stated(luck):
    random = np.random.default_rng(11)
    studies = [compare(*study(random, 0.0, luck), resamples=200, seed=i) for i in range(100)]
    wrong = sum(answer("GAN", each).verdict != "no difference shown" for each in studies)
    assert wrong <= 10  # 5 % of 100 is 5; two standard deviations more are 10


@pytest.mark.parametrize(("effect", "verdict"), [(1.5, "helps"), (-1.5, "hurts")])
def test_a_real_effect_is_found(effect, verdict):
    random = np.random.default_rng(12)
    studies = [compare(*study(random, effect, 0.2), resamples=200, seed=i) for i in range(20)]
    assert sum(answer("GAN", each).verdict == verdict for each in studies) >= 18
