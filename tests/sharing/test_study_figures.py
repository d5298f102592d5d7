"""The figures of a study show the numbers they are given."""

import pytest

from keras_cxrgan.sharing import study_figures
from keras_cxrgan.sharing.study_figures import learning_curve

CURVES = {
    "real": [(25.0, [0.70, 0.72]), (100.0, [0.80])],
    "gan x1": [(25.0, [0.74, 0.74]), (100.0, [0.79])],
    "copies $x$": [(100.0, [0.81])],
}


@pytest.fixture
def figure(monkeypatch):
    """The figure that is drawn, instead of a file."""
    monkeypatch.setattr(study_figures, "_save", lambda figure, path: figure)
    return lambda curves: learning_curve(curves, "sizes.png", "real")


def points(axis):
    """[(sizes, means)] of each line with markers in a panel, the baseline first."""
    return [
        (list(line.get_xdata()), pytest.approx(list(line.get_ydata())))
        for line in axis.get_lines()
        if line.get_marker() == "o"
    ]


def test_each_row_has_a_panel_beside_the_baseline_in_percent(figure):
    gan, copies = [axis for axis in figure(CURVES).axes if axis.axison]
    real = ([25, 100], [71, 80])
    assert points(gan) == [real, ([25, 100], [74, 79])]
    assert points(copies) == [real, ([100], [81])]
    assert gan.get_title() == "gan x1 (real: grey)"
    assert list(gan.get_xticks()) == [25, 100]
    low, high = gan.get_ylim()
    assert low < 71 - 1.42 and high > 81  # the bars of two seeds are inside


def test_the_baseline_alone_has_a_panel(figure):
    (axis,) = [axis for axis in figure({"real": CURVES["real"]}).axes if axis.axison]
    assert points(axis)[0] == ([25, 100], [71, 80])


def test_names_with_formula_signs_are_written_as_they_are(tmp_path):
    assert learning_curve(CURVES, tmp_path / "sizes.png", "real").stat().st_size > 5000
