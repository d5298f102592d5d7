import pytest

from keras_cxrgan.study.protocols import PROTOCOLS


@pytest.mark.parametrize("title", ["4a", "4b"])
def test_the_tables_of_davoodi2021_fit_what_they_are_said_to_be(title):
    # A digit copied wrongly would break these: F1 is the harmonic mean of sensitivity and
    # specificity, 4 classes are of equal size, and the total is the mean sensitivity.
    (table,) = (each for each in PROTOCOLS["davoodi2021"].tables if each.title == title)
    scores = dict(table.scores)
    total = scores.pop("all")["accuracy"]
    assert len(scores) == 4
    for each in scores.values():
        sensitivity, specificity = each["sensitivity"], each["specificity"]
        harmonic = 2 * sensitivity * specificity / (sensitivity + specificity)
        assert each["F1"] == pytest.approx(harmonic, abs=0.0065)
        assert each["accuracy"] == pytest.approx((sensitivity + 3 * specificity) / 4, abs=0.002)
    assert total == pytest.approx(sum(s["sensitivity"] for s in scores.values()) / 4, abs=0.001)


def test_the_tables_of_ng2023_fit_what_they_are_said_to_be():
    for table in PROTOCOLS["ng2023"].tables:
        scores = table.scores["covid"]
        precision, recall = scores["precision"], scores["recall"]
        assert scores["F1"] == pytest.approx(
            2 * precision * recall / (precision + recall), abs=0.006
        )
