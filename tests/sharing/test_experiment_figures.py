"""Figures of experiments: that they can be drawn and read, and the numbers they rest on."""

import numpy as np
import pytest

from keras_cxrgan.data.images import decode, image_grid
from keras_cxrgan.sharing import experiment_figures as figures


def films(count, size=8):
    values = np.arange(count, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None], (count, size, size)).copy()


def log(count):
    return [
        {"epoch": n + 1.0, "discriminator_loss": 1 / (n + 1), "generator_loss": float(n)}
        for n in range(count)
    ]


def test_tiles_are_the_images_of_a_grid_in_their_order():
    images = films(9)
    assert np.array_equal(figures.tiles(image_grid(images, columns=3, gap=2), 8), images)


def test_the_corner_of_a_grid_is_its_first_images():
    grid = image_grid(films(9), columns=3, gap=2)
    assert np.array_equal(figures.tiles(figures.corner(grid, 8, side=2), 8)[:, 0, 0], [0, 1, 3, 4])


def test_nearest_distance_is_zero_for_repeats_and_rms_grey_levels_otherwise():
    images = films(4) * 10
    images[1] = images[0]
    assert figures.nearest_distances(images) == pytest.approx([0, 0, 10, 10], abs=1e-6)


@pytest.mark.parametrize("epochs", [1, 30])
@pytest.mark.parametrize("runs", [1, 3])
def test_loss_curves_are_drawn_for_any_number_of_runs_and_epochs(tmp_path, runs, epochs):
    path = figures.losses([(f"run {n}", log(epochs)) for n in range(runs)], tmp_path / "a.png")
    assert decode(path.read_bytes()).min() < 100  # ink


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    rows, published = {"500 (for 600)": [1.0, 2.0], "700": []}, {"500": 1.4}
    paths = [
        figures.scores(rows, published, tmp_path / name, ours="o", theirs="t", floor=0.5)
        for name in ("a.png", "b.png")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_grids_and_lines_with_an_odd_number_of_panels_are_drawn(tmp_path):
    grid = image_grid(films(4), columns=2, gap=2)
    assert figures.grids([("$a_", grid)] * 4, tmp_path / "g.png", columns=3).is_file()
    panels = [("norm", "y", {"a": ([1, 2], [3.0, 4.0]), "b": ([1], [2.0])})] * 3
    assert figures.lines(panels, tmp_path / "l.png", logarithmic=["norm"]).is_file()


def test_no_curve_is_left_out_however_many_there_are(tmp_path):
    def ink(count):
        curves = {f"{n}": ([0, 1, 2], [n, n, n]) for n in range(count)}
        image = decode(figures.lines([("a", "y", curves)], tmp_path / "a.png").read_bytes())
        # Rows of the image that a horizontal line crosses, left of the legend.
        return int((image[:, 120:400] < 250).all(axis=1).sum())

    assert ink(9) > ink(5) > ink(3)


def test_a_long_title_stays_inside_the_figure_and_off_its_neighbour(tmp_path):
    panel = ("WGAN-GP, equal generator updates, epoch 1750.1", np.zeros((64, 64), np.uint8))
    image = decode(figures.grids([panel] * 2, tmp_path / "grids.png").read_bytes())
    middle = image.shape[1] // 2
    for column in (0, middle, -1):
        assert image[:, column].min() == 255
    assert image.min() == 0
