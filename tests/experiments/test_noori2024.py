"""Noori 2024: the statistics line, the figures and the variants."""

import math

from experiments import noori2024
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.workflows import assembly, reproducing


def cells(setting):
    return {cell.row: cell for cell in noori2024.cells(setting)}


def test_every_row_steps(smoke, steps):
    for row, cell in cells(smoke(noori2024)).items():
        losses = steps(cell.recipe)
        assert all(map(math.isfinite, losses.values())), row


def test_at_paper_scale_only_the_variants_differ_from_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(reproducing, "count_films", lambda *_: 1341)
    monkeypatch.setattr(reproducing.Setting, "films", lambda self: "films")
    monkeypatch.setattr(reproducing.Setting, "trained_on", lambda self: ("NORMAL",))
    found = cells(reproducing.Setting(noori2024.EXPERIMENT, tmp_path, "paper"))
    paper = RECIPES["noori2024"]
    changed = {row: set(cell.recipe.difference(paper)) for row, cell in found.items()}
    assert changed == {
        "as published": set(),
        "longer": {"epochs"},
        "lr 0.002": {"generator_learning_rate", "discriminator_learning_rate"},
        "512x512": {"image_size", "width"},
        "512x512, steadied": {"image_size", "width", *noori2024.STEADY},
    }
    assert found["longer"].run == found["as published"].name


def test_512_is_the_tutorials_network_with_three_more_doublings():
    recipe = RECIPES["noori2024"].override(**noori2024.LARGE)
    generator, _ = assembly.build_networks(recipe)
    assert generator.output_shape == (None, 512, 512, 1)
    maps = [layer.output.shape[1:] for layer in generator.layers if "conv" in layer.name.lower()]
    # 4x4x512 to 32x32x64 as in the tutorial, then 32, 16, 8 maps and the film.
    assert [shape[-1] for shape in maps if shape[0] > 32] == [32, 16, 8, 1]


def test_the_line_stands_beside_the_published_one_and_the_figures_are_drawn(smoke, faked):
    setting = smoke(noori2024)
    written = reproducing.reproduce(setting, noori2024.cells, noori2024.present)
    assert not written["failed"], written["cells"]
    line = written["tables"][0]
    assert line["rows"][0] == [
        "as published: published",
        "1.2223",
        "2.1597",
        "0.6463",
        "0.0906",
        "0.3155",
    ]
    assert line["rows"][1] == ["as published: ours (1 seed)", "1.2", "2.1", "0.6", "0.1", "0.3"]
    assert [name for name, _ in written["figures"]] == ["figure6.png", "figure7.png", "large.png"]
    assert all((setting.out / name).is_file() for name, _ in written["figures"])


def test_the_last_loss_stands_beside_those_of_the_last_tenth():
    log = [{"discriminator_loss": 0.1, "generator_loss": 5.0} for _ in range(99)]
    log.append({"discriminator_loss": 1.3, "generator_loss": 8.8})
    said = noori2024.late_losses(log)
    assert said[0].startswith(
        "Loss_D ends at 1.3; over the last 10 passes its median is 0.1, from 0.1 to 1.3"
    )
    assert "median is 5" in said[1]
